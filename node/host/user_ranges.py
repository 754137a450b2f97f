"""Which range of host user ids an owner's containers run under.

Every owner gets a range of its own, so that a process that breaks out of its container is nobody on the host and
nobody to other owners' files (user_namespaces(7)). Ranges are given out in order of first use, kept in one small file
for good, and never reused: files of removed containers may still carry the old ids.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from node.errors import NodeError

RANGE_WIDTH = 65536


class RangesExhausted(NodeError):
    """The operator's fault: more owners than sub-id ranges."""


class UserRanges:
    """The owners' ranges of one node, kept in `path`; `count` ranges from `first` on."""

    def __init__(self, path: Path, first: int, count: int) -> None:
        self._path = path
        self._first = first
        self._count = count
        self._slots: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}

    def base(self, owner: str) -> int:
        """Return the first host id of the owner's range; RangesExhausted when none is left."""
        if owner not in self._slots:
            self._assign(owner)
        return self._first + self._slots[owner] * RANGE_WIDTH

    def _assign(self, owner: str) -> None:
        if len(self._slots) >= self._count:
            raise RangesExhausted(
                f"runtime.user_ranges: all {self._count} ranges of user ids are given out; "
                "allow more in /etc/subuid and the agent's configuration"
            )
        slots = {**self._slots, owner: len(self._slots)}
        temporary = self._path.with_suffix(".new")
        with temporary.open("w") as file:
            json.dump(slots, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        self._slots = slots
