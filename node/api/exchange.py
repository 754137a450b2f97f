"""One request as a handler sees it (who, what, how much of it), and the resources that handlers are hung on."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from node.api import problems
from node.api.services import Services
from node.errors import InvalidValue, NotPermitted, TooLarge
from node.tokens import Principal, Role

FORWARDED = "fofoca.forwarded"
WAIT_S_MAX = 60.0


@dataclass(slots=True)
class Exchange:
    """A request of a known caller. `forwarded`: another node sent it here on the caller's behalf."""

    services: Services
    request: Request
    principal: Principal
    forwarded: bool

    async def body(self, bytes_max: int) -> bytes:
        """Return the whole body; TooLarge, or TooSlowError when it does not come in time."""
        return await read_body(self.request, bytes_max, self.services.bounds.stall_timeout_s)

    def stream(self, bytes_max: int) -> AsyncIterator[bytes]:
        """Yield the body as it comes, every piece within the time a client may stall; TooLarge, TooSlowError."""
        return stream_body(self.request, bytes_max, self.services.bounds.stall_timeout_s)

    def text(self, name: str, default: str, choices: tuple[str, ...] = ()) -> str:
        """Return a query parameter."""
        value = self.request.query_params.get(name, default)
        if choices and value not in choices:
            raise InvalidValue(name, value, f"expected one of {', '.join(choices)}")
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """Return a query parameter as a whole number between two bounds."""
        return whole_number(name, self.request.query_params.get(name, str(default)), low, high)

    def wait_s(self) -> float:
        """Return how long the caller wants to wait; more than the bound counts as the bound."""
        text = self.request.query_params.get("wait_s", "0")
        try:
            wait_s = float(text)
        except ValueError:
            wait_s = math.nan
        if not wait_s >= 0:
            raise InvalidValue("wait_s", text, f"expected seconds, from 0 to {WAIT_S_MAX:g}")
        return min(wait_s, WAIT_S_MAX)

    def seconds(self, name: str, high: float) -> float | None:
        """Return a query parameter as seconds; None where it is left out."""
        text = self.request.query_params.get(name)
        if text is None:
            return None
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds <= high:
            raise InvalidValue(name, text, f"expected seconds, from 0 to {high:g}")
        return seconds

    def path(self, name: str) -> str:
        """Return a part of the path."""
        return str(self.request.path_params[name])

    def require_operator(self, what: str) -> None:
        """Raise NotPermitted unless an operator or an administrator calls."""
        if not self.principal.operator:
            raise NotPermitted(f"only operators may {what}")

    def require_admin(self, what: str) -> None:
        """Raise NotPermitted unless an administrator calls."""
        if not self.principal.admin:
            raise NotPermitted(f"only administrators may {what}")


Handler = Callable[[Exchange], Awaitable[Response]]


class Resource:
    """The ASGI application of one path: its methods, with what all of them need before and after."""

    def __init__(self, services: Services, handlers: Mapping[str, Handler], *, door: bool = False) -> None:
        """`door`: tokens of role door may ask for it."""
        self._services = services
        self._door = door
        self._handlers = dict(handlers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. Every error leaves as a problem document."""
        try:
            response = await self._handler(scope)(self._exchange(Request(scope, receive)))
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 (from_error logs what it can't name)
            response = problems.from_error(error)
        await response(scope, receive, send)

    def _handler(self, scope: Scope) -> Handler:
        method = scope["method"]
        handler = self._handlers.get("GET" if method == "HEAD" else method)
        if handler is None:
            raise problems.MethodNotAllowed(method[:20], sorted(self._handlers))
        return handler

    def _exchange(self, request: Request) -> Exchange:
        principal = request.scope.get(FORWARDED)
        forwarded = principal is not None
        if principal is None:
            principal = self._services.gate.principal(request.headers)
        if principal.role is Role.DOOR and not self._door:
            raise NotPermitted("tokens of role door open the request door alone")
        return Exchange(self._services, request, principal, forwarded)


async def read_body(request: Request, bytes_max: int, timeout_s: float) -> bytes:
    """Return a request's whole body; TooLarge, or TooSlowError when all of it does not come in time."""
    _check_declared(request, bytes_max)
    body, more = bytearray(), True
    with trio.fail_after(timeout_s):
        while more:
            piece, more = await _piece(request)
            body += piece
            if len(body) > bytes_max:
                raise TooLarge(f"the body may have {bytes_max:,} bytes")
    return bytes(body)


async def stream_body(request: Request, bytes_max: int, stall_timeout_s: float) -> AsyncIterator[bytes]:
    """Yield a request's body as it comes, without ever holding more than a piece of it."""
    _check_declared(request, bytes_max)
    size, more = 0, True
    while more:
        with trio.fail_after(stall_timeout_s):
            piece, more = await _piece(request)
        size += len(piece)
        if size > bytes_max:
            raise TooLarge(f"the body may have {bytes_max:,} bytes")
        if piece:
            yield piece


def _check_declared(request: Request, bytes_max: int) -> None:
    declared = request.headers.get("content-length", "0")[:20]
    if declared.isdigit() and int(declared) > bytes_max:
        raise TooLarge(f"the body may have {bytes_max:,} bytes, not {int(declared):,}")


async def _piece(request: Request) -> tuple[bytes, bool]:
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


def whole_number(name: str, text: str, low: int, high: int) -> int:
    """Return a text as a whole number between two bounds; InvalidValue."""
    if not (text.isascii() and text.isdigit() and len(text) <= 30 and low <= int(text) <= high):
        raise InvalidValue(name, text, f"expected a whole number from {low} to {high}")
    return int(text)


def json_response(value: Any, status: int = 200) -> Response:
    """Return a value as JSON."""
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")
