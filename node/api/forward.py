"""A user's request, carried to the node that can answer it, and to all nodes at once.

A job's id names its home (id modulo 1000). The request travels as the call `http`, with the caller's principal under
the seal, and runs there through the same routes. A forwarded request is never forwarded again: loops can't be.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec
import trio
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope

from node.api.exchange import FORWARDED, Exchange
from node.errors import Busy, InvalidValue, NotFound, PeerError, PeerRefused, shorten
from node.tokens import Principal, Role
from scheduler.errors import ForeignJob, UnknownJob
from scheduler.numbers import home_number

METHOD = "http"
WAITING_METHOD = "http.wait"  # Long polls, apart, so that they can't use up the bound on calls of everybody else.
FORWARD_TIMEOUT_S = 10.0
FAN_OUT_TIMEOUT_S = 2.0
JOB_ID_MAX = 2**63 - 1
PREFIX = "/v1/"
KEPT_HEADERS = (b"content-type", b"x-next-offset", b"x-ended", b"x-attempt", b"retry-after", b"allow")


class ForwardedRequest(msgspec.Struct, frozen=True, array_like=True):
    """A request without its body's stream: what fits one sealed call."""

    method: str
    path: str
    query: bytes
    user: str
    role: Role
    body: bytes = b""


class ForwardedResponse(msgspec.Struct, frozen=True, array_like=True):
    """Its answer."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


_decode_request = msgspec.msgpack.Decoder(ForwardedRequest).decode
_decode_response = msgspec.msgpack.Decoder(ForwardedResponse).decode
_encode = msgspec.msgpack.Encoder().encode


def job_id(text: str) -> int:
    """Return the id in a path."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and 0 < int(text) <= JOB_ID_MAX):
        raise InvalidValue("id", text, "expected a job's id, a whole number such as 12001")
    return int(text)


async def at_home(
    exchange: Exchange, answer: Callable[[int], Awaitable[Response]], wait_s: float = 0.0, body: bytes = b""
) -> Response:
    """Answer a request about the job in the path: here if this is its home, else by asking the home."""
    wanted = job_id(exchange.path("id"))
    number = home_number(wanted)
    if number == exchange.services.number():
        return await answer(wanted)
    if exchange.forwarded:
        raise ForeignJob(f"node {exchange.services.node} is not the home of job {wanted}")
    home = exchange.services.peers.name_of(number)
    if home is None:
        raise UnknownJob(f"no job {wanted}: no node of this cluster has the number {number}")
    if not wait_s:
        return _response(await _ask(exchange, home, METHOD, FORWARD_TIMEOUT_S, body=body))
    with exchange.services.long_polls.by(exchange.principal.name):
        return _response(await _ask(exchange, home, WAITING_METHOD, FORWARD_TIMEOUT_S + wait_s, body=body))


async def at_node(exchange: Exchange, answer: Callable[[], Awaitable[Response]]) -> Response:
    """Answer a request about the node in the path: here if it is this one, else by asking it."""
    name = exchange.path("name")
    if name == exchange.services.node:
        return await answer()
    if exchange.forwarded or exchange.services.peers.address_of(name) is None:
        raise NotFound(f"no node {shorten(name)!r} in this cluster")
    return _response(await _ask(exchange, name, METHOD, FORWARD_TIMEOUT_S))


async def at_leader(exchange: Exchange, answer: Callable[[], Response]) -> Response:
    """Answer a request about the line: here if this node leads, else by asking who does."""
    leader = exchange.services.jobs.leader
    if exchange.forwarded or leader == exchange.services.node:
        return answer()
    return _response(await _ask(exchange, leader, METHOD, FORWARD_TIMEOUT_S))


def _response(answer: ForwardedResponse) -> Response:
    response = Response(answer.body, status_code=answer.status)
    response.raw_headers[:] = [*answer.headers, (b"content-length", str(len(answer.body)).encode())]
    return response


async def to_all(
    exchange: Exchange,
    nodes: Sequence[str],
    accept: tuple[int, ...] = (200,),
    get: str | None = None,
    timeout_s: float = FAN_OUT_TIMEOUT_S,
) -> tuple[dict[str, ForwardedResponse], list[str]]:
    """Ask several nodes at once; return the answers of an accepted status by node, and who gave none in time.

    `get`: the path to ask for instead of carrying on the request itself.
    """
    answers: dict[str, ForwardedResponse] = {}

    async def ask(node: str) -> None:
        try:
            answer = await _ask(exchange, node, METHOD, timeout_s, get)
        except (PeerError, Busy):
            return
        if answer.status in accept:
            answers[node] = answer

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(ask, node)
    return answers, sorted(set(nodes) - set(answers))


async def _ask(
    exchange: Exchange, node: str, method: str, timeout_s: float, get: str | None = None, body: bytes = b""
) -> ForwardedResponse:
    scope = exchange.request.scope
    principal = exchange.principal
    verb, path, query = (scope["method"], scope["path"], scope["query_string"]) if get is None else ("GET", get, b"")
    request = ForwardedRequest(verb, path, query, principal.name, principal.role, body)
    answer = await exchange.services.peers.call(node, method, _encode(request), timeout_s)
    try:
        return _decode_response(answer)
    except msgspec.DecodeError:
        raise PeerRefused(node, "its answer to a forwarded request can't be read") from None


def receiver(app: ASGIApp) -> Callable[[str, bytes], Awaitable[bytes]]:
    """Return the handler of the call `http`: runs a forwarded request through this node's own routes."""

    async def handle(_sender: str, payload: bytes) -> bytes:
        try:
            request = _decode_request(payload)
        except msgspec.DecodeError:
            raise InvalidValue("request", "", "expected a forwarded request of this version") from None
        if not request.path.startswith(PREFIX):
            raise NotFound(f"{request.path[:80]!r} is not forwarded")
        answer = _Answer()
        await app(_scope(request), _body_of(request), answer.send)
        return _encode(answer.response())

    return handle


class _Answer:
    """Collects what an application sends; the caller's bound on sealed bodies bounds it."""

    def __init__(self) -> None:
        self._status = 500
        self._headers: tuple[tuple[bytes, bytes], ...] = ()
        self._body = bytearray()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = tuple((name, value) for name, value in message["headers"] if name in KEPT_HEADERS)
        else:
            self._body += message.get("body", b"")

    def response(self) -> ForwardedResponse:
        return ForwardedResponse(self._status, self._headers, bytes(self._body))


def _scope(request: ForwardedRequest) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.path.encode(),
        "root_path": "",
        "query_string": request.query,
        "headers": [],
        FORWARDED: Principal(request.user, request.role),
    }


def _body_of(request: ForwardedRequest) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": request.body, "more_body": False}

    return receive
