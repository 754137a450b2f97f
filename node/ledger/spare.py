"""Room set aside on the ledger's disk, so that a disk that others filled does not stop what frees it again.

When a commit finds no space, it gets some of this first: a cancellation, an end, whatever makes containers go and
their files with them. It is bounded, so whoever takes new work asks `is_whole` first. When all of it is used, commits
wait for space (`waiting`), and go on by themselves: an agent that ended would only lose its memory.
May not know: what is committed, or who fills the disk.
"""

from __future__ import annotations

import os
from pathlib import Path

SPARE_BYTES = 4 << 20
STEP_BYTES = 128 << 10
"""Given at a time and used at once: what lies free is anybody's."""


class Spare:
    """A file of zeros. Blocking calls of some microseconds."""

    def __init__(self, path: Path, size_bytes: int = SPARE_BYTES) -> None:
        self._path = path
        self._size_bytes = size_bytes
        self.waiting = False
        """A commit waits for space that nobody has."""

    def is_whole(self) -> bool:
        return self._left() == self._size_bytes

    def give(self) -> bool:
        """Free a step of it for the next commit; False: nothing is left. Raises OSError."""
        left = self._left()
        if left:
            os.truncate(self._path, max(0, left - STEP_BYTES))
        return left > 0

    def refill(self) -> bool:
        """Set aside what is missing, all or nothing; False: the disk has no room for it."""
        left = self._left()
        if left == self._size_bytes:
            return True
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return False
        try:
            os.posix_fallocate(descriptor, 0, self._size_bytes)
        except OSError:
            os.ftruncate(descriptor, left)
            return False
        finally:
            os.close(descriptor)
        return True

    def _left(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0
