"""Who keeps a site that nobody kept so far, and who of two that keep it (a cut has healed) goes on.

Nodes may differ for a moment in who is alive, so two may believe that a site is theirs to take. Whoever wants to take
one asks all others first; of two that ask at once the lower yields, where the draw of keeper_of decides for both alike.
Whoever can't be asked does not count. Two that took one all the same, unseen by each other, tell each other what they
keep when they meet; the rule of `outdone` says the same on both sides. Pure; the asking is the shell's.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from scheduler.sites.hashing import keeper_of


class Claim(enum.StrEnum):
    """What a node says of a site when another is about to take it."""

    KEPT = "kept"
    WANTED = "wanted"
    FREE = "free"


class Keeping(msgspec.Struct, frozen=True, array_like=True):
    """A site as two keepers compare it."""

    key: str
    up: bool
    woken_unix_s: float


class Claims:
    """The sites that one node is about to take."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._yielded: dict[str, str] = {}

    def begin(self, key: str) -> None:
        """From now on others hear that this node wants it."""
        self._yielded[key] = ""

    def asked(self, key: str, by: str) -> Claim:
        """Answer another node that is about to take a site which is not kept here."""
        if key not in self._yielded:
            return Claim.FREE
        if keeper_of(key, (self._me, by)) == self._me:
            return Claim.WANTED
        self._yielded[key] = by
        return Claim.FREE

    def settle(self, key: str, answers: Mapping[str, Claim]) -> str:
        """Return who keeps or takes the site, after all that can be asked have answered."""
        kept = [node for node, claim in answers.items() if claim is Claim.KEPT]
        if kept:
            return min(kept)
        wanting = [node for node, claim in answers.items() if claim is Claim.WANTED]
        yielded = self._yielded.get(key, "")
        return keeper_of(key, [self._me, *wanting, *([yielded] if yielded else [])])

    def end(self, key: str) -> None:
        """It is settled."""
        self._yielded.pop(key, None)


def outdone(mine: Keeping, me: str, other: Keeping, by: str) -> bool:
    """Whether the other keeper's goes on: the one that is up, woken last; else that of the node that should keep it."""
    if _rank(mine) != _rank(other):
        return _rank(mine) < _rank(other)
    return keeper_of(mine.key, (me, by)) == by


def _rank(keeping: Keeping) -> tuple[bool, float]:
    return keeping.up, keeping.woken_unix_s if keeping.up else 0.0
