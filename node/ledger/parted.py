"""A ledger of two: what must outlive the host is in the first, what is lost with the host anyway in the second.

The host's own facts (which containers it has) are of no use without the host, so they need not travel; and whoever
takes up a home's record elsewhere finds none of them there. A commit goes to the first, then to the second. A crash in
between leaves the second behind the first: as if home and node, which agree by messages, were on two machines.
"""

from __future__ import annotations

from collections.abc import Sequence

from node.ledger.group_commit import GroupCommit
from node.ledger.protocol import Content, Ledger
from scheduler.events import Change


class PartedLedger:
    """A Ledger that keeps some tables in another."""

    def __init__(self, first: Ledger, second: Ledger, tables_of_second: frozenset[str]) -> None:
        self._first = first
        self._second = second
        self._tables = tables_of_second
        self._group = GroupCommit(self._write)

    async def load(self) -> Content:
        """Read both; see Ledger.load."""
        first, second = await self._first.load(), await self._second.load()
        return {**first, **{name: table for name, table in second.items() if name in self._tables}}

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make the changes durable; see Ledger.commit."""
        await self._group.commit(changes)

    async def close(self) -> None:
        """Finish what waits and close both."""
        await self._group.close()
        await self._first.close()
        await self._second.close()

    async def _write(self, changes: Sequence[Change]) -> None:
        first = [change for change in changes if change.table not in self._tables]
        second = [change for change in changes if change.table in self._tables]
        if first:
            await self._first.commit(first)
        if second:
            await self._second.commit(second)
