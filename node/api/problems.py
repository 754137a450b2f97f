"""Errors as problem documents (RFC 9457): the one place that says which error is which HTTP status.

Nothing else leaves the node when something goes wrong: no traceback, no exception's name. `type` is a stable name for
programs, `detail` one line for people; `field`, `value` and `expected` are there where a value was wrong.
"""

from __future__ import annotations

import errno
import secrets
from typing import Any

import msgspec
import trio
from starlette.responses import Response

from node import logs
from node.errors import (
    BadToken,
    Busy,
    CallerError,
    DiskFull,
    InvalidValue,
    KeysNotSettled,
    LedgerAway,
    NotFound,
    NotNow,
    NotPermitted,
    PeerRefused,
    PeerUnreachable,
    TooLarge,
    UnknownImage,
    shorten,
)
from node.host.errors import FetchInterrupted, ImageError, ImageInUse
from scheduler.errors import ForeignJob, InvalidSpec, NotPossible, Overloaded, UnknownJob

TYPE_PREFIX = "urn:fofoca:problem:"
MEDIA_TYPE = "application/problem+json"

log = logs.get("api")


class MethodNotAllowed(Exception):
    """The path is there, but not for this method."""

    def __init__(self, method: str, allowed: list[str]) -> None:
        super().__init__(f"{method} is not possible here; possible: {', '.join(allowed)}")
        self.allowed = allowed


_KINDS: list[tuple[type[Exception], int, str, str]] = [
    (UnknownImage, 400, "unknown-image", "No such image"),
    (InvalidValue, 400, "invalid-value", "A value can't be taken"),
    (InvalidSpec, 400, "invalid-value", "A value can't be taken"),
    (BadToken, 401, "bad-token", "Who calls?"),
    (NotPermitted, 403, "not-permitted", "Not yours to do"),
    (UnknownJob, 404, "unknown-job", "No such job"),
    (NotFound, 404, "not-found", "Not found"),
    (MethodNotAllowed, 405, "method-not-allowed", "Not this way"),
    (trio.TooSlowError, 408, "too-slow", "The request came too slowly"),
    (NotNow, 409, "not-possible", "Not possible now"),
    (NotPossible, 409, "not-possible", "Not possible now"),
    (KeysNotSettled, 409, "keys-not-settled", "The nodes' keys differ"),
    (TooLarge, 413, "too-large", "Too large"),
    (PeerRefused, 502, "node-refused", "Another node refused"),
    (PeerUnreachable, 503, "node-unreachable", "Another node can't be reached"),
    (Busy, 503, "busy", "Too much at once"),
    (LedgerAway, 503, "ledger-away", "The ledger is out of reach"),
    (DiskFull, 507, "disk-full", "No space left"),
    (ImageInUse, 409, "image-in-use", "The image is in use"),
    (FetchInterrupted, 503, "node-unreachable", "Another node can't be reached"),
    (ImageError, 400, "bad-image", "An image that can't be taken"),
    (Overloaded, 503, "busy", "Too much at once"),
    (CallerError, 400, "refused", "Refused"),
    (ForeignJob, 508, "not-the-home", "Forwarded to a node that is not the job's home"),
]


def problem(status: int, kind: str, title: str, detail: str, **members: Any) -> Response:
    """Return a problem document as a response."""
    document = {"type": TYPE_PREFIX + kind, "title": title, "status": status, "detail": detail, **members}
    return Response(msgspec.json.encode(document), status_code=status, media_type=MEDIA_TYPE)


def not_found(path: str) -> Response:
    """Return the answer for a path that is none of the API's."""
    return problem(
        404, "not-found", "Not found", f"there is nothing at {shorten(path)}; docs/http-api.md has the paths"
    )


def from_error(error: Exception) -> Response:
    """Return the answer for an error. What is not the caller's or a peer's fault is logged whole, and told in brief."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        error = DiskFull("the disk of this node is full; ask another node, or free some")
    for kind, status, name, title in _KINDS:
        if isinstance(error, kind):
            detail = str(error) or title
            response = problem(status, name, title, detail, **_members(error))
            _add_headers(error, response)
            return response
    reference = secrets.token_hex(4)
    log.exception("a request failed", reference=reference)
    return problem(500, "internal", "An error of this node", f"the node's log has more under {reference}")


def _members(error: Exception) -> dict[str, Any]:
    if isinstance(error, InvalidValue | InvalidSpec):
        value = error.value
        plain = value if value is None or isinstance(value, bool | int | float) else shorten(value)
        return {"field": error.field, "value": plain, "expected": error.expected}
    if isinstance(error, PeerRefused | PeerUnreachable):
        return {"node": error.node}
    return {}


def _add_headers(error: Exception, response: Response) -> None:
    if isinstance(error, BadToken):
        response.headers["www-authenticate"] = 'Bearer realm="fofoca"'
    elif isinstance(error, Busy | LedgerAway | Overloaded | PeerUnreachable):
        response.headers["retry-after"] = "1"
    elif isinstance(error, MethodNotAllowed):
        response.headers["allow"] = ", ".join(error.allowed)
