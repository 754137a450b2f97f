"""A ledger in memory, for tests: it keeps the protocol's promises until `crash`, which loses what a crash would lose.

Knows no disk. A commit becomes durable after `commit_delay_s` (virtual seconds under a mock clock), so that a test can
crash in the middle of one.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from node.ledger.group_commit import GroupCommit
from node.ledger.protocol import Content, LedgerClosed, LedgerError
from scheduler.events import Change, Put


class MemoryLedger:
    """A Ledger whose disk is a dictionary."""

    def __init__(self, content: Content | None = None, commit_delay_s: float = 0.0) -> None:
        self._tables = {name: dict(table) for name, table in (content or {}).items()}
        self._commit_delay_s = commit_delay_s
        self._failure: LedgerError | None = None
        self._group = GroupCommit(self._write)

    async def load(self) -> Content:
        """Read everything; see Ledger.load."""
        await trio.lowlevel.checkpoint()
        return self._copy()

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make the changes durable; see Ledger.commit."""
        await self._group.commit(changes)

    async def close(self) -> None:
        """Finish what waits."""
        await self._group.close()

    def crash(self) -> MemoryLedger:
        """Return the ledger that a restarted agent finds: what was acknowledged, and nothing that still waited.

        The old one refuses everything from now on, and its waiting callers get LedgerClosed.
        """
        survivor = MemoryLedger(self._copy(), self._commit_delay_s)
        self.fail_with(LedgerClosed("the ledger crashed"))
        self._group.fail(LedgerClosed("the ledger crashed"))
        return survivor

    def fail_with(self, error: LedgerError) -> None:
        """Let the next write fail, as a full disk would."""
        self._failure = error

    async def _write(self, changes: Sequence[Change]) -> None:
        await trio.sleep(self._commit_delay_s)
        if self._failure is not None:
            raise self._failure
        for change in changes:
            self._apply(change)

    def _apply(self, change: Change) -> None:
        if isinstance(change, Put):
            self._tables.setdefault(change.table, {})[change.key] = change.value
        else:
            self._tables.get(change.table, {}).pop(change.key, None)

    def _copy(self) -> dict[str, dict[str, bytes]]:
        return {name: dict(table) for name, table in self._tables.items() if table}
