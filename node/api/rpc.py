"""The door between nodes: one path that takes sealed calls. The seal says who calls, so there are no tokens here.

Nodes that speak as node/client.py does are served without a general HTTP server between (`serve_calls`), which would
cost more than most calls do. Everybody else gets the same answers through the application (`RpcDoor`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Protocol

import trio
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from node.api import problems
from node.api.exchange import FORWARDED, read_body
from node.api.services import Services
from node.client import RPC_PATH, TICKET_HEADER
from node.errors import InvalidValue, NotFound, TooLarge
from node.plain_http import Head, Malformed, Reader, Source

MEDIA_TYPE = "application/octet-stream"
FIRST_LINE = f"POST {RPC_PATH} HTTP/1.1"


class Stream(Source, Protocol):
    """One connection, both ways."""

    async def send_all(self, data: bytes) -> None:
        """Send; BrokenResourceError."""


class RpcDoor:
    """The ASGI application of POST /internal/v1/rpc."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a call."""
        try:
            response = await self._answer(Request(scope, receive))
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 (from_error logs what it can't name)
            response = problems.from_error(error)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method != "POST":
            raise problems.MethodNotAllowed(request.method[:20], ["POST"])
        if FORWARDED in request.scope:
            raise NotFound("calls are not forwarded")
        stall_timeout_s = self._services.bounds.stall_timeout_s
        return await _answer(
            self._services, request.headers, lambda bytes_max: read_body(request, bytes_max, stall_timeout_s)
        )


async def _answer(services: Services, headers: Headers, body: Callable[[int], Awaitable[bytes]]) -> Response:
    """Carry out the call in a body, which is read only as far as its sender may be trusted."""
    services.gate.check_node(headers)
    bytes_max = services.peers.body_bytes_max(headers.get(TICKET_HEADER))
    status, answer = await services.peers.handle(await body(bytes_max))
    if status != 200:
        return problems.problem(status, "bad-seal", "Not of this cluster", "the call's seal was refused")
    return Response(answer, media_type=MEDIA_TYPE)


async def serve_calls(
    services: Services, stream: Stream, begun: bytes, idle: Callable[[], AbstractContextManager[object]]
) -> None:
    """Answer the calls that come over one connection, until it ends, pauses too long, or brings something else.

    `begun` is what was read of it; reading the next head goes on within `idle()`, which cuts it short.
    """
    reader, open_ = Reader(stream, begun), True
    while open_:
        head = None
        with idle():
            head = await reader.head()
        if head is None:
            return
        try:
            response = await _answer_next(services, head, reader)
        except Malformed as error:
            response = problems.from_error(InvalidValue("the request", head.line[:80], f"{error}"))
        except Exception as error:  # noqa: BLE001 (from_error logs what it can't name)
            response = problems.from_error(error)
        open_ = response.status_code == 200
        await stream.send_all(_head_of(response, open_))
        await stream.send_all(bytes(response.body))


async def _answer_next(services: Services, head: Head, reader: Reader) -> Response:
    if head.line != FIRST_LINE:
        raise NotFound("a connection that carries calls carries nothing else")

    async def body(bytes_max: int) -> bytes:
        if head.length() > bytes_max:
            raise TooLarge(f"the body may have {bytes_max:,} bytes")
        with trio.fail_after(services.bounds.stall_timeout_s):
            return await reader.body(head.length())

    return await _answer(services, Headers(head.fields), body)


def _head_of(response: Response, goes_on: bool) -> bytes:
    """Everything but a call that was carried out ends the connection: what is left of the request stays unread."""
    connection = "keep-alive" if goes_on else "close"
    return (
        f"HTTP/1.1 {response.status_code} {'OK' if goes_on else 'Refused'}\r\ncontent-type: {response.media_type}\r\n"
        f"content-length: {len(response.body)}\r\nconnection: {connection}\r\n\r\n"
    ).encode("ascii")
