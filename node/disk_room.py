"""Whether this node's disk has room for new work: below a reserve, nothing new is taken, and what is there goes on.

Owns the words for it. May not know: what fills the disk. The reserve is for what cannot be refused: output, ends,
what the agent records; the ledger has some room of its own beyond it (node/ledger/spare.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from node import logs
from node.errors import DiskFull
from node.ledger.spare import Spare

FILES_MIN = 4096
"""So many more files must be possible: millions of empty ones fill a disk as well, with room left in bytes."""

log = logs.get("disk")


class DiskRoom:
    """Of the file system of one folder."""

    def __init__(
        self,
        folder: Path,
        reserve_bytes: int,
        spare: Spare,
        statvfs: Callable[[Path], os.statvfs_result] = os.statvfs,
    ) -> None:
        self._folder = folder
        self._statvfs = statvfs
        self._reserve_bytes = reserve_bytes
        self._spare = spare
        self._had = True

    def check(self) -> bool:
        """Whether there is room now; a change is logged. Raises OSError."""
        lack = self._lack()
        has = not lack and self._spare.refill()
        if has != self._had:
            self._had = has
            if has:
                log.info("there is room on the disk again")
            else:
                log.warning("the disk is full, so nothing new is taken", why=lack or "the ledger's spare room is used")
        return has

    def require(self) -> None:
        """Raises DiskFull."""
        lack = self._lack() or ("" if self._spare.is_whole() else "the ledger's spare room is used (ledger.spare)")
        if lack:
            raise DiskFull(f"the disk of this node is full ({lack}); ask another node, or free some")

    def _lack(self) -> str:
        found = self._statvfs(self._folder)
        free = found.f_bavail * found.f_frsize
        if free < self._reserve_bytes:
            kept = f"resources.reserve_disk_bytes keeps {self._reserve_bytes}"
            return f"{free} bytes free below {self._folder}, {kept}"
        if found.f_files and found.f_favail < FILES_MIN:  # some file systems don't count them
            return f"{found.f_favail} inodes free below {self._folder}, {FILES_MIN} are kept"
        return ""
