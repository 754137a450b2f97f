"""What was last heard of the cluster's network, on disk: the pools of containers and the addresses of the nodes.

Containers outlive their agent. Without this a new agent's rules would know of no other node until it has heard of them
again, and what a container sends to another node in between would leave under this host's address, which others trust.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

FILE = "cluster"
"""Beside the containers' records, whose names end in .json."""


class Known(msgspec.Struct, frozen=True):
    """Pools as networks, hosts as addresses, of both versions."""

    pools: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()


def read(directory: Path) -> Known:
    """Return what was written last; nothing where there is none, or what there is can't be read."""
    try:
        return msgspec.json.decode((directory / FILE).read_bytes(), type=Known)
    except (FileNotFoundError, msgspec.MsgspecError):
        return Known()


def write(directory: Path, known: Known) -> None:
    """Replace it in one step; not synced, for containers end with the host. Raises OSError."""
    scratch = directory / f"{FILE}.tmp"
    scratch.write_bytes(msgspec.json.encode(known))
    os.replace(scratch, directory / FILE)
