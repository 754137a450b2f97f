"""What the door answers instead of carrying a request on: a status, a name for programs, a line for people."""

from __future__ import annotations

import math
from http import HTTPStatus

from node.errors import (
    BadToken,
    Busy,
    InvalidValue,
    MissingImage,
    NodeError,
    NotFound,
    NotNow,
    NotPermitted,
    PeerUnreachable,
    TooLarge,
)
from scheduler.errors import Overloaded, SchedulerError, UnknownSite

RETRY_S_MIN, RETRY_S_MAX = 1, 3_600


class Gone(Exception):
    """The client closed its connection, or does not take what it is sent: nobody is left to answer."""


class CutShort(Exception):
    """The backend broke off, or sent what is not HTTP/1.1."""


class Refused(Exception):
    """An answer of the door's own. `kind` names the problem; `retry_s` (0: never) says when to come again."""

    def __init__(
        self, status: int, kind: str, detail: str, *, retry_s: float = 0.0, field: str = "", expected: str = ""
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.retry_s = retry_s
        self.field = field
        self.expected = expected

    @property
    def title(self) -> str:
        """The status in words."""
        return HTTPStatus(self.status).phrase

    @property
    def retry_after(self) -> str:
        """The value of Retry-After, in seconds; nothing where it is no use to come again."""
        return str(min(RETRY_S_MAX, max(RETRY_S_MIN, math.ceil(self.retry_s)))) if self.retry_s else ""


def malformed(detail: str) -> Refused:
    """Return the refusal of bytes that are not strict HTTP/1.1; the connection can't be trusted after it."""
    return Refused(400, "malformed", detail)


_STATUS: list[tuple[type[Exception], int, str, float]] = [
    (BadToken, 401, "bad-token", 0.0),
    (NotPermitted, 403, "not-permitted", 0.0),
    (UnknownSite, 404, "unknown-site", 0.0),
    (NotFound, 404, "not-found", 0.0),
    (MissingImage, 503, "no-image", 30.0),
    (NotNow, 409, "not-possible", 0.0),
    (TooLarge, 413, "too-large", 0.0),
    (PeerUnreachable, 503, "node-unreachable", 2.0),
    (Busy, 503, "busy", 2.0),
    (Overloaded, 503, "busy", 2.0),
]


def from_error(error: NodeError | SchedulerError) -> Refused:
    """Return the refusal for an error of the sites, or of reading a wish."""
    if isinstance(error, InvalidValue):
        return Refused(400, "invalid-value", str(error), field=error.field, expected=error.expected)
    for kind, status, name, retry_s in _STATUS:
        if isinstance(error, kind):
            return Refused(status, name, str(error), retry_s=retry_s)
    return Refused(502, "refused", str(error))
