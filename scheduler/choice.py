"""Why a task goes where it goes, and which nodes were the next best: words that its attempt keeps for who asks.

Said of single tasks and of gangs the leader places. Of an array's tasks, which go by hundreds to many nodes at once, no
more is told than by whom they were placed: each would cost a search of its own, and some more bytes of the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.score import WHY

RUNNERS_UP = 2


def by_policy(policy: str, others: Sequence[str]) -> str:
    """Say what spoke for the chosen node, before which others."""
    return f": {WHY[policy]} ({policy}), {_before(others)}"


def slipping_past(first: int, others: Sequence[str]) -> str:
    """Say that a job behind the first in line was let past, before which other nodes."""
    return f": it slips past job {first} without delaying it, {_before(others)}"


def _before(others: Sequence[str]) -> str:
    return f"before {' and '.join(others[:RUNNERS_UP])}" if others else "nowhere else is room"
