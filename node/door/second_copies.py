"""Has what sites run on at a second node, too: else the loss of one host could be the loss of a site.

An image travels where containers need it, so one that runs on a single node may be there alone. The keeper of a site
that is awake has one more node get it: the one that hashing the image prefers, so that an image goes to few nodes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

import msgspec
import trio

from node import logs
from node.door import calls
from node.errors import InvalidValue, NodeError
from node.host.errors import ImageError
from node.host.image_name import split_stack
from node.peers import Peers
from scheduler.sites.hashing import preferred

CALL_TIMEOUT_S = 5.0
SEEN_MAX = 1_000

log = logs.get("sites")
_decode = msgspec.msgpack.Decoder(tuple[str, ...]).decode


class SecondCopies:
    """One node's part: it asks others, and fetches what it is asked to, one image after the other.

    `fetch` gets an image by its digest, if it is not here (ImageError).
    """

    def __init__(
        self,
        peers: Peers,
        keepers: Callable[[], list[str]],
        fetch: Callable[[str], Awaitable[object]],
        nursery: trio.Nursery,
    ) -> None:
        self._peers = peers
        self._keepers = keepers
        self._fetch = fetch
        self._nursery = nursery
        self._one_by_one = trio.CapacityLimiter(1)
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        peers.register(calls.COPY, self._on_copy)

    def see_to(self, image: str, node: str) -> None:
        """A site on a node runs on an image (a stack of digests): have it elsewhere, too, in the background."""
        others = [each for each in self._keepers() if each != node]
        if not image or not others:
            return
        which = image, preferred(image, others)
        if which in self._seen:
            return
        self._seen[which] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        self._nursery.start_soon(self._ask, *which)

    async def _ask(self, image: str, node: str) -> None:
        try:
            await self._peers.call(node, calls.COPY, calls.encode(split_stack(image)), CALL_TIMEOUT_S)
        except NodeError as error:
            self._seen.pop((image, node), None)
            log.debug("a node does not take a copy of an image", node=node, why=str(error))

    async def _on_copy(self, keeper: str, payload: bytes) -> bytes:
        try:
            digests = _decode(payload)
        except msgspec.MsgspecError as error:
            raise InvalidValue("call", "(not shown)", f"expected a call of this version ({error})") from None
        self._nursery.start_soon(self._get, digests)
        return b""

    async def _get(self, digests: tuple[str, ...]) -> None:
        async with self._one_by_one:
            for digest in digests:
                try:
                    await self._fetch(digest)
                except (ImageError, NodeError) as error:
                    log.warning("no second copy of an image could be had", image=digest, why=str(error))
