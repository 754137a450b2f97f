"""Which images a node may do without, and removing those: for room, on an operator's word, and in the course of time.

The rule, one for all three: content in use stays. The node where an image was imported keeps it as long as it has a
name anywhere. A fetched copy may go while another node that answers has the content, too; content without a name may
go, but is kept for a while where nothing presses, because jobs that wait may still mean it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

import trio

from node import logs
from node.host.errors import ImageError
from node.host.image_room import Idle
from node.host.images import ImageStore
from node.image_names import ImageNames

SWEEP_INTERVAL_S = 300.0

log = logs.get("images")

Holders = Callable[[str], Awaitable[Mapping[str, int]]]
"""Returns the other nodes that have some content."""


class ImageUpkeep:
    """The judge of one node's store; it sets itself as its room's `expendable`."""

    def __init__(self, store: ImageStore, names: ImageNames, holders: Holders, unnamed_keep_s: float) -> None:
        self._store = store
        self._names = names
        self._holders = holders
        self._unnamed_keep_s = unnamed_keep_s
        store.room.expendable = self.expendable

    async def run(self) -> None:
        """Collect content without a name once nobody has used it for `unnamed_keep_s`; until cancelled."""
        while True:
            await trio.sleep(SWEEP_INTERVAL_S)
            await self.sweep()

    async def sweep(self) -> list[Idle]:
        """Collect once; return what went."""
        return await self._remove([idle for idle in self._unused(self._unnamed_keep_s) if not self._named(idle.digest)])

    async def prune(self, unused_for_s: float, dry_run: bool) -> list[Idle]:
        """Remove all that nobody has used for so long and that the cluster can do without; return it."""
        going = [idle for idle in self._unused(unused_for_s) if await self.expendable(idle.digest)]
        return going if dry_run else await self._remove(going)

    async def expendable(self, digest: str) -> bool:
        """Whether the cluster can do without this node's copy."""
        if not self._named(digest):
            return True
        return self._store.facts(digest).fetched and bool(await self._holders(digest))

    def _named(self, digest: str) -> bool:
        return self._names.means(digest) or self._store.is_named(digest)

    def _unused(self, for_s: float) -> list[Idle]:
        return [idle for idle in self._store.idle() if idle.last_used_unix_s <= time.time() - for_s]

    async def _remove(self, going: list[Idle]) -> list[Idle]:
        gone = []
        for idle in going:
            try:
                if await self._store.remove_idle(idle.digest):
                    gone.append(idle)
            except ImageError as error:
                log.warning("an image that nobody uses can't be removed", digest=idle.digest, why=str(error))
        if gone:
            size_bytes = sum(idle.size_bytes for idle in gone)
            log.info("images that nobody uses are removed", count=len(gone), size_bytes=size_bytes)
        return gone
