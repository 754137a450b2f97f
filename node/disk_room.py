"""Whether this node's disk has room for new work: below a reserve, nothing new is taken, and what is there goes on.

Owns the words for it. May not know: what fills the disk. The reserve is for what cannot be refused: output, ends,
what the agent records; the ledger has some room of its own beyond it (node/ledger/spare.py).
"""

from __future__ import annotations

import os
from pathlib import Path

from node import logs
from node.errors import DiskFull
from node.ledger.spare import Spare

log = logs.get("disk")


class DiskRoom:
    """Of the file system of one folder."""

    def __init__(self, folder: Path, reserve_bytes: int, spare: Spare) -> None:
        self._folder = folder
        self._reserve_bytes = reserve_bytes
        self._spare = spare
        self._had = True

    def check(self) -> bool:
        """Whether there is room now; a change is logged. Raises OSError."""
        free = self._free_bytes()
        has = free >= self._reserve_bytes and self._spare.refill()
        if has != self._had:
            self._had = has
            if has:
                log.info("there is room on the disk again", free_bytes=free)
            else:
                log.warning("the disk is full, so nothing new is taken", free_bytes=free, wanted=self._reserve_bytes)
        return has

    def require(self) -> None:
        """Raises DiskFull."""
        free = self._free_bytes()
        if free < self._reserve_bytes or not self._spare.is_whole():
            raise DiskFull(
                f"the disk of this node is full ({free} bytes free below {self._folder}, resources.reserve_disk_bytes "
                f"keeps {self._reserve_bytes}); ask another node, or free some"
            )

    def _free_bytes(self) -> int:
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize
