"""Wall-clock time beside the monotonic clock: for what people say in dates, and for nothing else.

Every event that carries both keeps the two in step, so that a wall clock that was set right is followed. Nothing that
must be safe is decided by it.
"""

from __future__ import annotations

from datetime import UTC, datetime


class WallClock:
    """How this node's wall clock lies to its monotonic one."""

    def __init__(self) -> None:
        self._offset_s = 0.0

    def see(self, now: float, unix_s: float) -> None:
        """Both clocks were read at once."""
        if unix_s:
            self._offset_s = unix_s - now

    def unix_s(self, now: float) -> float:
        """Return the wall clock's time."""
        return now + self._offset_s

    def when(self, unix_s: float) -> float:
        """Return the moment on the monotonic clock."""
        return unix_s - self._offset_s


def date(unix_s: float) -> str:
    """Write a moment for people."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
