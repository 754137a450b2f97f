"""Whether this node can take something new: room on its disk for what comes of it, and a ledger to write it down in."""

from __future__ import annotations

from collections.abc import Callable

from node.disk_room import DiskRoom
from node.errors import NodeError


class NewWork:
    """What is there goes on, whatever the answer."""

    def __init__(self, disk: DiskRoom, trouble: Callable[[], NodeError | None]) -> None:
        """`trouble`: why the ledger takes nothing just now."""
        self._disk = disk
        self._trouble = trouble

    def check(self) -> bool:
        """Whether it can now. Raises OSError."""
        return self._disk.check() and self._trouble() is None

    def require(self) -> None:
        """Raises DiskFull or LedgerAway."""
        if (trouble := self._trouble()) is not None:
            raise trouble
        self._disk.require()
