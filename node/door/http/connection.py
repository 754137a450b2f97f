"""One client's connection: requests one after the other, each answered in its turn.

Owns when a connection lasts. After anything that could leave client and door of different minds about where the next
request begins, it ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

import trio

from node import logs
from node.door.http.awaking import Awake
from node.door.http.counts import GONE_STATUS, Record, write
from node.door.http.exchange import body_too_large
from node.door.http.fields import Sender
from node.door.http.forwarding import Asked, Forwarding
from node.door.http.framing import Body, body_of
from node.door.http.front import Front
from node.door.http.head import CHUNKED, Request, read_request
from node.door.http.own_answers import OwnAnswer, of_address, of_refusal
from node.door.http.refusals import CutShort, Gone, Refused, from_error
from node.door.http.wire import Wire
from node.errors import NodeError
from scheduler.errors import SchedulerError
from scheduler.sites.site import SiteView

MODE = "x-fofoca-door"
MODES = ("answer", "forward")

log = logs.get("door")


class Connection:
    """A client's connection. `idle` is held while nothing is asked; `stopping` tells whether the door ends."""

    def __init__(
        self,
        front: Front,
        wire: Wire,
        address: str,
        idle: Callable[[], AbstractContextManager[object]],
        stopping: Callable[[], bool],
    ) -> None:
        self._front = front
        self._wire = wire
        self._address = address
        self._listed = front.front_ends.has(address)
        self._idle = idle
        self._stopping = stopping

    async def run(self) -> None:
        """Serve until either side ends it."""
        try:
            while await self._next():
                pass
            await self._wire.linger()
        except Gone:
            return

    async def _next(self) -> bool:
        """Serve one request; False if the connection ends after it."""
        if not self._wire.buffer:
            with self._idle():
                await self._wire.more()
            if not self._wire.buffer:
                raise Gone
        record = Record(self._address, began_s=trio.current_time())
        received, sent = self._wire.received_bytes - len(self._wire.buffer), self._wire.sent_bytes
        try:
            return await self._one(record)
        except Gone:
            record.status = record.status or GONE_STATUS
            raise
        finally:
            record.received_bytes = self._wire.received_bytes - len(self._wire.buffer) - received
            record.sent_bytes = self._wire.sent_bytes - sent
            self._front.counts.add(record)
            if self._front.config.access_log:
                write(record, trio.current_time())

    async def _one(self, record: Record) -> bool:
        try:
            head = await self._head()
            request = read_request(head, self._front.config.fields_max)
        except Refused as refusal:
            return await self._refuse(refusal, None, False, record)
        record.method, record.host, record.target = request.method, request.host, request.target
        body = body_of(request.length)
        try:
            return await self._asked(request, body, record)
        except Refused as refusal:
            return await self._refuse(refusal, request, body.done, record)
        except (NodeError, SchedulerError) as error:
            return await self._refuse(from_error(error), request, body.done, record)

    async def _head(self) -> bytes:
        config = self._front.config
        try:
            with trio.fail_after(config.head_timeout_s):
                head = await self._wire.head(config.head_bytes_max)
        except trio.TooSlowError:
            raise Refused(408, "slow", "the request's head did not come in time (door.head_timeout_s)") from None
        if head is None:
            raise Gone
        return head

    async def _asked(self, request: Request, body: Body, record: Record) -> bool:
        config = self._front.config
        if request.length > config.body_bytes_max:
            raise body_too_large(config)
        sender = self._front.front_ends.sender(self._address, self._listed, request.fields)
        answers = self._answers(request, sender)
        first = await self._first_chunks(request, body)
        awake = await self._front.awaking.site(request, sender, self._while_there)
        record.site, record.cold_ms = awake.view.key, awake.cold_ms
        if answers:
            return await self._tell(request, body, awake, record)
        asked = Asked(request, sender, body, first)
        return await Forwarding(self._front, self._wire, asked, record, lambda: not self._stopping()).run(awake)

    def _answers(self, request: Request, sender: Sender) -> bool:
        """Whether the sender wants to be told where the site is. The public never is: it could not get there."""
        if not sender.front_end:
            return False
        mode = request.fields.get(MODE, self._front.config.mode).lower()
        if mode not in MODES:
            raise Refused(400, "invalid-value", f"X-Fofoca-Door: {mode} is not valid; expected answer or forward")
        return mode == "answer"

    async def _first_chunks(self, request: Request, body: Body) -> bytes:
        """Return the first content of a chunked body: nobody behind hears of one that begins with nonsense."""
        if request.length != CHUNKED or request.expects_continue:
            return b""
        try:
            first = await self._wire.piece(body, self._front.config.stall_timeout_s)
        except trio.TooSlowError:
            raise Refused(408, "slow", "the request's body made no progress (door.stall_timeout_s)") from None
        except CutShort:
            raise Gone from None
        if len(first) > self._front.config.body_bytes_max:
            raise body_too_large(self._front.config)
        return first

    async def _while_there(self, work: Callable[[], Awaitable[SiteView]]) -> SiteView:
        """Await something for the client, as long as it is there; Gone."""
        found: list[SiteView] = []
        failed: list[Exception] = []
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await self._wire.until_end()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            self._front.counts.waiting += 1
            try:
                found.append(await work())
            except (Refused, NodeError, SchedulerError) as error:
                failed.append(error)
            finally:
                self._front.counts.waiting -= 1
            nursery.cancel_scope.cancel()
        if failed:
            raise failed[0]
        if not found:
            raise Gone
        return found[0]

    async def _tell(self, request: Request, body: Body, awake: Awake, record: Record) -> bool:
        """Tell a front end where the site is; that counts as a use of it."""
        view = awake.view
        self._front.sites.began(view.key, view.keeper)
        self._front.sites.ended(view.key, view.keeper)
        self._front.counts.answered += 1
        return await self._answer(of_address(view, awake.cold_ms), request, body.done, record)

    async def _refuse(self, refusal: Refused, request: Request | None, lasts: bool, record: Record) -> bool:
        """Answer with a refusal."""
        record.refused = refusal.kind
        return await self._answer(of_refusal(refusal, request), request, lasts, record)

    async def _answer(self, answer: OwnAnswer, request: Request | None, lasts: bool, record: Record) -> bool:
        keep = lasts and request is not None and request.keeps_alive and not self._stopping()
        record.status = answer.status
        try:
            await self._wire.send(answer.encode(request, keep), self._front.config.stall_timeout_s)
        except trio.BrokenResourceError:
            raise Gone from None
        return keep
