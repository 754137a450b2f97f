"""Messages of the scheduling machine on their way to other nodes.

One batch at a time is under way to each node; what the machine says meanwhile waits and travels together, bounded by
count and bytes. A message that can't be delivered is dropped: the machine repeats what matters, and only it knows what
still does. A batch is answered when this node keeps up with what it was told, so that a slow disk slows its senders.

What the machine has to say to whoever brought a batch travels back with the answer, once it is durable: half of the
calls would else only carry such replies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import trio

from node import logs
from node.errors import Busy, InvalidValue, PeerError
from node.peers import Peers

METHOD = "deliver"
DELIVER_TIMEOUT_S = 5.0
WAITING_MAX = 10_000
WAITING_BYTES_MAX = 32 << 20
BATCH_BYTES_MAX = 4 << 20
REPLY_WAIT_S = 0.1
"""An answer waits no longer for the disk: what is said later travels by itself."""

log = logs.get("outbox")
_decode = msgspec.msgpack.Decoder(list[bytes]).decode


@dataclass(slots=True)
class _Bag:
    """What waits for one node; when it is too much the oldest goes.

    `draining`: it is being sent; `answering`: how many calls of that node are being answered, and can take it along.
    """

    messages: deque[bytes] = field(default_factory=deque)
    size_bytes: int = 0
    draining: bool = False
    answering: int = 0

    def put(self, message: bytes) -> None:
        self.messages.append(message)
        self.size_bytes += len(message)
        while len(self.messages) > 1 and (len(self.messages) > WAITING_MAX or self.size_bytes > WAITING_BYTES_MAX):
            self.take()

    def take(self) -> bytes:
        message = self.messages.popleft()
        self.size_bytes -= len(message)
        return message

    def next_batch(self) -> Sequence[bytes]:
        batch: list[bytes] = []
        size_bytes = 0
        while self.messages and (not batch or size_bytes + len(self.messages[0]) <= BATCH_BYTES_MAX):
            batch.append(self.take())
            size_bytes += len(batch[-1])
        return batch


class Hearer(Protocol):
    """Takes what a node said at once, in order; returns what is set once there is its reply, None where none comes."""

    def __call__(self, sender: str, *messages: bytes) -> trio.Event | None: ...


class Outbox:
    """What this node's machine says to others, and the entrance for what others' machines say to it.

    `received` passes messages on to this node's machine; `keep_up` returns when more of them may come.
    """

    def __init__(
        self,
        peers: Peers,
        received: Hearer,
        keep_up: Callable[[], Awaitable[None]],
        nursery: trio.Nursery,
    ) -> None:
        self._peers = peers
        self._received = received
        self._keep_up = keep_up
        self._nursery = nursery
        self._waiting: dict[str, _Bag] = {}
        peers.register(METHOD, self._deliver)

    def send(self, to: str, message: bytes) -> None:
        """Send soon; of what is too much for one node the oldest is dropped."""
        if to == self._peers.name:
            self._received(to, message)
            return
        bag = self._waiting.setdefault(to, _Bag())
        bag.put(message)
        self._set_going(to, bag)

    def _set_going(self, to: str, bag: _Bag) -> None:
        """Send what no answer takes along; forget a bag that is of no use any more."""
        if bag.draining or bag.answering:
            return
        if bag.messages:
            bag.draining = True
            self._nursery.start_soon(self._drain, to, bag)
        else:
            del self._waiting[to]

    async def _drain(self, to: str, bag: _Bag) -> None:
        while batch := bag.next_batch():
            try:
                answer = await self._peers.call(to, METHOD, msgspec.msgpack.encode(batch), DELIVER_TIMEOUT_S)
                self._hear(to, answer)
                await self._keep_up()
            except (PeerError, Busy, InvalidValue) as error:
                log.debug("messages not delivered", to=to, messages=len(batch), why=str(error))
        bag.draining = False
        self._set_going(to, bag)

    def _hear(self, sender: str, payload: bytes) -> trio.Event | None:
        try:
            messages = _decode(payload)
        except msgspec.DecodeError as error:
            raise InvalidValue(METHOD, payload[:16], f"expected a list of messages ({error})") from None
        return self._received(sender, *messages) if messages else None

    async def _deliver(self, sender: str, payload: bytes) -> bytes:
        replied = self._hear(sender, payload)
        await self._keep_up()
        with self._answering(sender) as bag:
            if replied is not None:
                with trio.move_on_after(REPLY_WAIT_S):
                    await replied.wait()
            # While others are on their way to that node, in a call of ours, these wait for them: order is kept.
            return msgspec.msgpack.encode([] if bag.draining else bag.next_batch())

    @contextmanager
    def _answering(self, sender: str) -> Iterator[_Bag]:
        bag = self._waiting.setdefault(sender, _Bag())
        bag.answering += 1
        try:
            yield bag
        finally:
            bag.answering -= 1
            self._set_going(sender, bag)
