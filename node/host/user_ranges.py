"""Which range of host user ids an owner's containers run under.

Every owner gets a range of its own, so that a process that breaks out of its container is nobody on the host and
nobody to other owners' files (user_namespaces(7)). Ranges are given out in order of first use, kept in one small file
for good, and never reused: files of removed containers may still carry the old ids.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import trio

from node.host.durable_file import write_durably
from node.host.errors import HostError

RANGE_WIDTH = 65_536


class RangesExhausted(HostError):
    """The operator's fault: more owners than ranges."""


class UserRanges:
    """The owners' ranges of one node, kept in `path`; `count` ranges from `first` on. HostError for a damaged file."""

    def __init__(self, path: Path, first: int, count: int) -> None:
        self._path = path
        self._first = first
        self._count = count
        self._slots = _read(path)
        self._assigning = trio.Lock()

    async def base(self, owner: str) -> int:
        """Return the first host id of the owner's range, durably theirs; RangesExhausted when none is left, OSError."""
        if owner not in self._slots:
            async with self._assigning:
                await self._assign(owner)
        return self._first + self._slots[owner] * RANGE_WIDTH

    async def _assign(self, owner: str) -> None:
        if owner in self._slots:
            return
        if len(self._slots) >= self._count:
            raise RangesExhausted(
                f"all {self._count} ranges of user ids of this node are given out ({self._path} lists the owners)"
            )
        slots = {**self._slots, owner: len(self._slots)}
        with trio.CancelScope(shield=True):  # what is on the disk and what is in memory must not part
            await trio.to_thread.run_sync(write_durably, self._path, msgspec.json.encode(slots))
        self._slots = slots


def _read(path: Path) -> dict[str, int]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except FileNotFoundError:
        return {}
    except msgspec.MsgspecError as error:
        raise HostError(
            f"{path} is damaged ({error}); restore it from a backup, or remove it together with all containers"
        ) from None
