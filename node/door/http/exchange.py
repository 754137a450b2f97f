"""One request carried to one backend, and its answer back: both ways at once, piece by piece, never a body in memory.

Owns the course of an exchange and what can go wrong in it. A piece is read only after the one before was taken, so that
the slower side sets the pace. Knows neither sites nor waiting.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from node.door.config import Door
from node.door.http.backends import Backend
from node.door.http.fields import answer_head
from node.door.http.framing import LAST_CHUNK, Body, body_of, chunk
from node.door.http.head import CHUNKED, UNTIL_CLOSE, Answer, Request, read_answer
from node.door.http.refusals import CutShort, Gone, Refused
from node.door.http.wire import Wire

ANSWER_HEAD_BYTES_MAX = 64 * 1024
INTERIM_ANSWERS_MAX = 16
SLOW_S = 1.0
"""After so long without an answer somebody asks whether the container still runs, again and again."""
MOVED_S = 10.0
"""So long after its place was taken a container has ended, or its host has: what can't be repeated waits till then."""

NOT_MODIFYING = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that may be repeated (RFC 9110 9.2.2)."""


@dataclass(slots=True)
class Exchange:
    """What is exchanged, between whom; and afterwards how it went.

    `moved` tells whether the site has another container by now. `status`: of the answer whose head has gone to the
    client, 0 if none has. `nothing_came`: the backend closed without a word, which connections do that idled.
    `client_lasts`, `backend_lasts`: another exchange may follow there.
    """

    config: Door
    client: Wire
    backend: Backend
    request: Request
    body: Body
    first: bytes
    head: bytes
    marks: list[str]
    may_keep: Callable[[], bool]
    moved: Callable[[], Awaitable[bool]]
    status: int = 0
    nothing_came: bool = False
    uploaded: bool = False
    tunnel: bool = False
    client_lasts: bool = False
    backend_lasts: bool = False
    body_bytes: int = 0
    failure: Exception | None = None
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    _waiting: trio.CancelScope = field(default_factory=trio.CancelScope)
    _due_s: float = math.inf

    async def run(self) -> None:
        """Carry both ways until the answer is whole, or a tunnel begins; Gone, CutShort, Refused."""
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            nursery.start_soon(self._guarded, self._upload)
            await self._guarded(self._download)
            nursery.cancel_scope.cancel()
        if self.failure is not None:
            raise self.failure

    async def _guarded(self, part: Callable[[], Awaitable[None]]) -> None:
        """Let what one direction meets end both; the first is what counts."""
        try:
            await part()
        except (Gone, CutShort, Refused) as error:
            self.failure = self.failure or error
            self._scope.cancel()

    # --- to the backend

    async def _upload(self) -> None:
        chunked = self.request.length == CHUNKED
        alive = await self._to_backend(self.head + self._encoded(self.first, chunked))
        self.body_bytes = len(self.first)
        while alive and (piece := await self._next_piece()):
            self.body_bytes += len(piece)
            if self.body_bytes > self.config.body_bytes_max:
                raise body_too_large(self.config)
            alive = await self._to_backend(self._encoded(piece, chunked))
        if alive and chunked:
            alive = await self._to_backend(LAST_CHUNK)
        self.uploaded = alive
        self._due_s = trio.current_time() + self.config.answer_timeout_s
        self._waiting.deadline = min(self._waiting.deadline, self._due_s)
        await self.client.until_end()
        raise Gone

    async def _next_piece(self) -> bytes:
        try:
            return await self.client.piece(self.body, self.config.stall_timeout_s)
        except CutShort:
            raise Gone from None
        except trio.TooSlowError:
            raise Refused(408, "slow", "the request's body made no progress (door.stall_timeout_s)") from None

    async def _to_backend(self, data: bytes) -> bool:
        """Send; False where the backend takes no more, which it may do after it answered."""
        try:
            await self.backend.send(data, self.config.stall_timeout_s)
        except trio.BrokenResourceError:
            return False
        return True

    @staticmethod
    def _encoded(piece: bytes, chunked: bool) -> bytes:
        return chunk(piece) if chunked and piece else piece

    # --- to the client

    async def _download(self) -> None:
        for _ in range(INTERIM_ANSWERS_MAX):
            answer = await self._answer()
            if answer.status >= 200:
                await self._pass_on(answer)
                return
            if answer.status == 101:
                await self._switch(answer)
                return
            if self.request.minor:
                await self._to_client(answer_head(self.request, answer, [], keep=True))
        raise CutShort(f"it sent {INTERIM_ANSWERS_MAX} answers that are none")

    async def _answer(self) -> Answer:
        return read_answer(await self._answer_bytes(), self.request.method)

    async def _answer_bytes(self) -> bytes:
        """Return the next head of the backend. Its time runs from when it has the whole request."""
        moved_s = math.inf
        while True:
            with trio.CancelScope(deadline=min(self._due_s, trio.current_time() + SLOW_S)) as self._waiting:
                return await self._head()
            if trio.current_time() >= self._due_s:
                what = "the application did not begin an answer in time (door.answer_timeout_s)"
                raise Refused(504, "slow-backend", what)
            if await self.moved():
                moved_s = min(moved_s, trio.current_time())
            if trio.current_time() - moved_s >= (0.0 if self.repeatable else MOVED_S):
                self.nothing_came = not self.backend.buffer and not self.status
                raise CutShort("its container is gone, another one has taken its place")

    @property
    def repeatable(self) -> bool:
        """Whether the request does no harm if it is sent twice, and can be."""
        return self.request.length == 0 and self.request.method in NOT_MODIFYING

    async def _head(self) -> bytes:
        try:
            head = await self.backend.lax_head(ANSWER_HEAD_BYTES_MAX)
        except Refused as error:
            raise CutShort(f"its answer is not HTTP/1.1: {error.detail}") from None
        if head is None:
            self.nothing_came = not self.backend.buffer and not self.status
            raise CutShort("it closed the connection without an answer")
        return head

    async def _pass_on(self, answer: Answer) -> None:
        request = self.request
        delimited = bool(request.minor) or answer.length not in (CHUNKED, UNTIL_CLOSE)
        keep = request.keeps_alive and delimited and self._all_read() and self.may_keep()
        pending = answer_head(request, answer, self.marks, keep)
        self.status = answer.status
        chunked = answer.length in (CHUNKED, UNTIL_CLOSE) and bool(request.minor)
        body = body_of(answer.length)
        while True:
            if pending and not self.backend.buffer and not body.done:
                await self._to_client(pending)
                pending = b""
            piece = await self._backend_piece(body)
            tail = LAST_CHUNK if chunked and body.done else b""
            if data := pending + self._encoded(piece, chunked) + tail:
                await self._to_client(data)
            pending = b""
            if body.done:
                break
        self.client_lasts = keep and self._all_read()
        self.backend_lasts = answer.keeps_alive and self.uploaded and not self.backend.buffer

    def _all_read(self) -> bool:
        """Whether no byte of the request's body is still to come from the client."""
        return self.body.done

    async def _backend_piece(self, body: Body) -> bytes:
        try:
            return await self.backend.piece(body, self.config.answer_timeout_s)
        except trio.TooSlowError:
            raise CutShort("its answer made no progress (door.answer_timeout_s)") from None
        except Refused as error:
            raise CutShort(f"its answer is not HTTP/1.1: {error.detail}") from None

    async def _switch(self, answer: Answer) -> None:
        if not self.request.websocket:
            raise CutShort("it changed the protocol without being asked to")
        await self._to_client(answer_head(self.request, answer, self.marks, keep=True))
        self.status = 101
        self.tunnel = True

    async def _to_client(self, data: bytes) -> None:
        try:
            await self.client.send(data, self.config.stall_timeout_s)
        except trio.BrokenResourceError:
            raise Gone from None


def body_too_large(config: Door) -> Refused:
    """Return the refusal of a body over its bound."""
    return Refused(413, "too-large", f"the request's body passes {config.body_bytes_max:,} bytes (door.body_bytes_max)")
