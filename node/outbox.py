"""Messages of the scheduling machine on their way to other nodes.

One batch at a time is under way to each node; what the machine says meanwhile waits and travels together. A message
that can't be delivered is dropped: the machine repeats what matters, and only it knows what still does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import msgspec
import trio

from node import logs
from node.errors import Busy, PeerError
from node.peers import Peers

METHOD = "deliver"
DELIVER_TIMEOUT_S = 5.0
WAITING_MAX = 10_000
BATCH_BYTES_MAX = 4 << 20

log = logs.get("outbox")
_decode = msgspec.msgpack.Decoder(list[bytes]).decode


class Outbox:
    """What this node's machine says to others, and the entrance for what others' machines say to it."""

    def __init__(self, peers: Peers, received: Callable[[str, bytes], None], nursery: trio.Nursery) -> None:
        self._peers = peers
        self._received = received
        self._nursery = nursery
        self._waiting: dict[str, deque[bytes]] = {}
        peers.register(METHOD, self._deliver)

    def send(self, to: str, message: bytes) -> None:
        """Send soon; beyond WAITING_MAX messages for one node the oldest are dropped."""
        if to == self._peers.name:
            self._received(to, message)
            return
        if to in self._waiting:
            self._waiting[to].append(message)
            return
        self._waiting[to] = deque((message,), maxlen=WAITING_MAX)
        self._nursery.start_soon(self._drain, to)

    async def _drain(self, to: str) -> None:
        waiting = self._waiting[to]
        while waiting:
            batch = _next_batch(waiting)
            try:
                await self._peers.call(to, METHOD, msgspec.msgpack.encode(batch), DELIVER_TIMEOUT_S)
            except (PeerError, Busy) as error:
                log.debug("messages not delivered", to=to, messages=len(batch), why=str(error))
        del self._waiting[to]

    async def _deliver(self, sender: str, payload: bytes) -> bytes:
        for message in _decode(payload):
            self._received(sender, message)
        return b""


def _next_batch(waiting: deque[bytes]) -> Sequence[bytes]:
    batch: list[bytes] = []
    size = 0
    while waiting and (not batch or size + len(waiting[0]) <= BATCH_BYTES_MAX):
        size += len(waiting[0])
        batch.append(waiting.popleft())
    return batch
