"""Which node keeps a user's sites: the same answer on every node that knows the same members.

Rendezvous hashing (Thaler and Ravishankar, IEEE/ACM Transactions on Networking 6, 1998): every member draws a number
for the key, the highest keeps it. When a member goes, only its own sites move.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def keeper_of(key: str, members: Iterable[str]) -> str:
    """Return the member that keeps the site of this key, and the user's others, b:u:USER:1, b:u:USER:2 and so on;
    ValueError without members."""
    return preferred(key.rpartition(":")[0], members)


def preferred(key: str, members: Iterable[str]) -> str:
    """Return the member that draws the highest number for the key; ValueError without members."""
    return max(members, key=lambda member: (_draw(key, member), member))


def _draw(key: str, member: str) -> bytes:
    return hashlib.blake2b(f"{member}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
