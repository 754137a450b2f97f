"""Many callers, one write: the commits that arrive during a write go to the disk together with the next one.

Owns the queue, its order and its bounds; may not know what a write is. The idea is as old as DeWitt et al. 1984
("Implementation techniques for main memory database systems"): a lone caller pays one sync, 32 callers share one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import trio

from node.ledger.protocol import LedgerClosed, LedgerError, LedgerOverloaded, check_changes
from scheduler.events import Change

QUEUE_COMMITS_MAX = 65_536
QUEUE_BYTES_MAX = 256 * 2**20
BATCH_COMMITS_MAX = 2_048
BATCH_BYTES_MAX = 16 * 2**20


class _Commit:
    """One caller's changes on their way to the disk."""

    __slots__ = ("changes", "error", "settled", "size_bytes")

    def __init__(self, changes: Sequence[Change], size_bytes: int) -> None:
        self.changes = tuple(changes)
        self.size_bytes = size_bytes
        self.settled = trio.Event()
        self.error: LedgerError | None = None


class GroupCommit:
    """The queue in front of `write`, which makes a batch durable, all or nothing, or raises LedgerError.

    The first failed write ends it: a later commit on top of a lost one would be a state nobody was ever in.
    """

    def __init__(self, write: Callable[[Sequence[Change]], Awaitable[None]]) -> None:
        self._write = write
        self._queue: deque[_Commit] = deque()
        self._queue_bytes = 0
        self._writing = False
        self._idle = trio.Event()
        self._idle.set()
        self._refusal: LedgerError | None = None

    async def commit(self, changes: Sequence[Change]) -> None:
        """Queue the changes at once, so that the order is that of the calls; return when they are durable."""
        commit = self._enqueue(changes)
        self._start_writing()
        await commit.settled.wait()
        if commit.error is not None:
            # Each caller gets an exception of its own: a shared one would collect everybody's traceback.
            raise type(commit.error)(*commit.error.args) from commit.error

    async def close(self) -> None:
        """Refuse further commits and wait for those that were taken."""
        self._refusal = self._refusal or LedgerClosed("the ledger is closed")
        await self._idle.wait()

    def fail(self, error: LedgerError) -> None:
        """Refuse everything from now on, and all that still waits."""
        self._refusal = LedgerClosed(f"the ledger takes nothing since: {error}")
        while self._queue:
            self._settle_first(error)

    def _enqueue(self, changes: Sequence[Change]) -> _Commit:
        if self._refusal is not None:
            raise type(self._refusal)(*self._refusal.args)
        size_bytes = check_changes(changes)
        if len(self._queue) >= QUEUE_COMMITS_MAX or self._queue_bytes + size_bytes > QUEUE_BYTES_MAX:
            raise LedgerOverloaded(
                f"{len(self._queue)} commits with {self._queue_bytes} bytes wait for the disk; at most"
                f" {QUEUE_COMMITS_MAX} and {QUEUE_BYTES_MAX} bytes may"
            )
        commit = _Commit(changes, size_bytes)
        self._queue.append(commit)
        self._queue_bytes += size_bytes
        return commit

    def _settle_first(self, error: LedgerError | None = None) -> None:
        commit = self._queue.popleft()
        self._queue_bytes -= commit.size_bytes
        commit.error = error
        commit.settled.set()

    def _start_writing(self) -> None:
        # A system task, because a writer inside one caller's task would be cancelled with that caller,
        # and the others' commits with it. It lives as long as the burst.
        if not self._writing:
            self._writing = True
            self._idle = trio.Event()
            trio.lowlevel.spawn_system_task(self._write_queued)

    async def _write_queued(self) -> None:
        with trio.CancelScope(shield=True):
            while self._queue:
                await self._write_batch()
        self._writing = False
        self._idle.set()

    async def _write_batch(self) -> None:
        count, changes = self._next_batch()
        try:
            await self._write(changes)
        except LedgerError as error:
            self.fail(error)
            return
        for _ in range(count):
            self._settle_first()

    def _next_batch(self) -> tuple[int, list[Change]]:
        changes: list[Change] = []
        size_bytes = count = 0
        for commit in self._queue:
            size_bytes += commit.size_bytes
            if count and (count == BATCH_COMMITS_MAX or size_bytes > BATCH_BYTES_MAX):
                break
            changes += commit.changes
            count += 1
        return count, changes
