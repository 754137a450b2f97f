"""What is written anew on the way: heads to backends and to clients, without what concerns one connection alone.

Owns which fields pass, which are ours, and who is believed about where a request came from (RFC 7239, RFC 9110 7.6).
Everything that is a word of the door (X-Backend, X-Fofoca-...) ends here: no container sees or forges it. Names with
`_` count as those with `-`, for CGI and its heirs make no difference between them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from node.door.http.head import CHUNKED, UNTIL_CLOSE, Answer, Fields, Request
from node.door.wish import HEADERS

PSEUDONYM = "fofoca"
TOKEN = "x-fofoca-token"  # noqa: S105 (a field's name)
OWN_PREFIX = "x-fofoca-"
BACKEND_ADDRESS = "x-backend-address"

_CONNECTION = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
    | {"proxy-authorization", "proxy-authenticate", "content-length", "http2-settings"}
)
_ORIGIN = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"})
_OTHER_ORIGIN = frozenset({"x-real-ip", "x-forwarded-port", "x-forwarded-server", "x-client-ip", "true-client-ip"})
_WISH = frozenset(HEADERS) | {BACKEND_ADDRESS}


class Sender(NamedTuple):
    """Who sent a request: the address it came from, whether it is a front end, and whether by its Authorization."""

    address: str
    front_end: bool = False
    by_authorization: bool = False


def is_word_of_the_door(key: str) -> bool:
    """Whether a field speaks to the door, or for it."""
    return key in _WISH or key.startswith(OWN_PREFIX)


def request_head(request: Request, sender: Sender) -> bytes:
    """Return the head that the backend gets."""
    dropped = {"host", "expect", *_ORIGIN, *request.fields.words("connection")}
    if not sender.front_end:
        dropped |= _OTHER_ORIGIN
    if sender.by_authorization:
        dropped.add("authorization")
    lines = [f"{request.method} {request.target} HTTP/1.1", f"Host: {request.host}"]
    lines += _passing(request.fields, dropped)
    lines += _origin(request, sender)
    if request.length == CHUNKED:
        lines.append("Transfer-Encoding: chunked")
    elif request.length or request.fields.values("content-length") or request.method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {request.length}")
    if request.expects_continue:
        lines.append("Expect: 100-continue")
    lines += ["Connection: Upgrade", "Upgrade: websocket"] if request.websocket else []
    return _joined(lines)


def answer_head(request: Request, answer: Answer, marks: list[str], keep: bool) -> bytes:
    """Return the head that the client gets; `marks` are lines of our own."""
    lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
    lines += _passing(answer.fields, {"via", *answer.fields.words("connection")})
    lines.append("Via: " + ", ".join([*answer.fields.values("via"), f"1.{answer.minor} {PSEUDONYM}"]))
    lines += marks
    if answer.status == 101:
        return _joined([*lines, "Connection: Upgrade", "Upgrade: websocket"])
    if answer.status < 200:
        return _joined(lines)
    if answer.length in (CHUNKED, UNTIL_CLOSE):
        lines += ["Transfer-Encoding: chunked"] if request.minor else []
    elif request.method == "HEAD" or answer.status == 304:
        lines += [f"Content-Length: {length}" for length in answer.fields.values("content-length")]
    elif answer.status != 204:
        lines.append(f"Content-Length: {answer.length}")
    return _joined([*lines, connection_line(request, keep)])


def connection_line(request: Request | None, keep: bool) -> str:
    """Return the field Connection of an answer."""
    return "Connection: keep-alive" if keep and request is not None else "Connection: close"


def _passing(fields: Fields, dropped: Collection[str]) -> list[str]:
    lines = []
    for key, name, value in fields:
        dashed = key.replace("_", "-")
        if dashed in _CONNECTION or dashed in dropped or is_word_of_the_door(dashed):
            continue
        lines.append(f"{name}: {value}")
    return lines


def _origin(request: Request, sender: Sender) -> list[str]:
    """Say where the request came from: in addition to what a front end says, instead of what others say."""
    said = request.fields if sender.front_end else Fields()
    node = f'"[{sender.address}]"' if ":" in sender.address else sender.address
    proto = said.get("x-forwarded-proto") or "http"
    host = said.get("x-forwarded-host") or request.host
    return [
        "X-Forwarded-For: " + ", ".join([*said.values("x-forwarded-for"), sender.address]),
        f"X-Forwarded-Proto: {proto}",
        f"X-Forwarded-Host: {host}",
        "Forwarded: " + ", ".join([*said.values("forwarded"), f'for={node};host="{request.host}";proto=http']),
        "Via: " + ", ".join([*request.fields.values("via"), f"1.{request.minor} {PSEUDONYM}"]),
    ]


def _joined(lines: list[str]) -> bytes:
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
