"""Heads of requests and answers, read strictly: what two readers could understand differently is refused.

Owns the grammar (RFC 9112) less what attacks on proxies live of: lone CR or LF, folded lines, blanks around names,
control characters, second or contradictory lengths, hosts that differ. Knows no connection. Requests that get past this
are written anew by `fields.py`, so that nobody behind reads anything but our own spelling.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from node.door.http.refusals import CutShort, Refused, malformed

TARGET_LENGTH_MAX = 8_192
LENGTH_DIGITS_MAX = 15
ANSWER_FIELDS_MAX = 200

_LETTER = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_REQUEST = re.compile(rf"({_LETTER}{{1,32}}) ([!-~]+) HTTP/([0-9]\.[0-9])", re.ASCII)
_ANSWER = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([^\x00-\x08\x0a-\x1f\x7f]{0,512}))?", re.ASCII)
_NAME = re.compile(rf"{_LETTER}{{1,256}}", re.ASCII)
_CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n")
_HOST = re.compile(r"([A-Za-z0-9._~-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{0,5})?", re.ASCII)
_ABSOLUTE = re.compile(r"(?i:https?)://([^/?#]*)(/?.*)", re.ASCII)

_LINES = "the head has a control character, or a line that does not end in CR LF"

CHUNKED = -1
UNTIL_CLOSE = -2
Length = int
"""How long a body is: bytes, or CHUNKED, or (answers alone) UNTIL_CLOSE."""


class Field(NamedTuple):
    """One line of a head; `key` is its name in small letters."""

    key: str
    name: str
    value: str


class Fields:
    """The fields of a head, in their order."""

    __slots__ = ("_all",)

    def __init__(self, fields: Iterable[Field] = ()) -> None:
        self._all = list(fields)

    def __iter__(self) -> Iterator[Field]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def values(self, key: str) -> list[str]:
        """Return every value of a field."""
        return [field.value for field in self._all if field.key == key]

    def get(self, key: str, default: str = "") -> str:
        """Return all values of a field as one, with commas between."""
        values = self.values(key)
        return ", ".join(values) if values else default

    def words(self, key: str) -> list[str]:
        """Return the parts of a field that is a list, in small letters."""
        return [word for part in self.get(key).lower().split(",") if (word := part.strip())]


class Request(NamedTuple):
    """The head of a request, checked. `target` is in origin form (`/path?query`) or `*`; `host` as it was sent."""

    method: str
    target: str
    minor: int
    host: str
    fields: Fields
    length: Length

    @property
    def keeps_alive(self) -> bool:
        """Whether the client wants to send more on this connection."""
        words = self.fields.words("connection")
        return "close" not in words if self.minor else "keep-alive" in words

    @property
    def websocket(self) -> bool:
        """Whether it asks to change to the WebSocket protocol: the one change that is let through."""
        upgrade = "upgrade" in self.fields.words("connection") and self.fields.words("upgrade") == ["websocket"]
        return upgrade and self.minor == 1 and self.method == "GET" and self.length == 0

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for a word before it sends the body."""
        return self.minor == 1 and self.length != 0 and bool(self.fields.values("expect"))


class Answer(NamedTuple):
    """The head of a backend's answer, checked."""

    status: int
    reason: str
    minor: int
    fields: Fields
    length: Length

    @property
    def keeps_alive(self) -> bool:
        """Whether the backend takes more on this connection."""
        words = self.fields.words("connection")
        lasts = "close" not in words if self.minor else "keep-alive" in words
        return lasts and self.length != UNTIL_CLOSE


def check_begun(head: bytearray, checked: int) -> None:
    """Refuse a head that is not whole yet, but wrong already after its first `checked` bytes."""
    # The last byte may be a CR whose LF is to come.
    if _CONTROLS.search(head, max(0, checked - 1), len(head) - head.endswith(b"\r")):
        raise malformed(_LINES)


def read_request(head: bytes | bytearray, fields_max: int) -> Request:
    """Read a head without its final empty line; Refused."""
    line, fields = _read(head, fields_max)
    match = _REQUEST.fullmatch(line)
    if match is None:
        raise malformed("the request line is not `METHOD TARGET HTTP/1.1`")
    method, target, version = match[1], match[2], match[3]
    if version not in ("1.0", "1.1"):
        raise Refused(505, "version", f"HTTP/{version} is not spoken here; HTTP/1.1 is")
    if len(target) > TARGET_LENGTH_MAX:
        raise Refused(414, "too-large", f"the request's target passes {TARGET_LENGTH_MAX:,} characters")
    minor = int(version[2])
    target, host = _place(method, target, fields)
    length = _request_length(fields, minor)
    if fields.get("expect", "100-continue").lower() != "100-continue":
        raise Refused(417, "expectation", "nothing but 100-continue can be expected")
    return Request(method, target, minor, host, fields, length)


def read_answer(head: bytes | bytearray, method: str) -> Answer:
    """Read the head of the answer to a request with this method; CutShort."""
    try:
        line, fields = _read(head, ANSWER_FIELDS_MAX)
        match = _ANSWER.fullmatch(line)
        if match is None:
            raise malformed("the status line is none")
        minor, status = int(match[1]), int(match[2])
        length = _declared_length(fields)
    except Refused as error:
        raise CutShort(f"its answer is not HTTP/1.1: {error.detail}") from None
    if method == "HEAD" or status < 200 or status in (204, 304):
        length = 0
    elif length is None:
        length = UNTIL_CLOSE
    return Answer(status, match[3] or "", minor, fields, length)


def _read(head: bytes | bytearray, fields_max: int) -> tuple[str, Fields]:
    if _CONTROLS.search(head):
        raise malformed(_LINES)
    line, *rest = head.decode("latin-1").split("\r\n")
    if len(rest) > fields_max:
        raise Refused(431, "too-large", f"the head has {len(rest)} fields; at most {fields_max} are taken")
    return line, Fields(_field(text) for text in rest)


def _field(line: str) -> Field:
    if line[:1] in (" ", "\t"):
        raise malformed("a line of the head is folded")
    name, colon, value = line.partition(":")
    if not colon or _NAME.fullmatch(name) is None:
        raise malformed("a line of the head is no field: its name is empty or has a character that names don't have")
    return Field(name.lower(), name, value.strip(" \t"))


def _place(method: str, target: str, fields: Fields) -> tuple[str, str]:
    """Return target and host of a request, which must agree where both name a host."""
    hosts = fields.values("host")
    if len(hosts) != 1 or _HOST.fullmatch(hosts[0]) is None:
        raise malformed("exactly one field Host with the name of a host is needed")
    if absolute := _ABSOLUTE.fullmatch(target):
        if absolute[1].lower() != hosts[0].lower():
            raise malformed("the target and the field Host name different hosts")
        target = absolute[2] if absolute[2].startswith("/") else "/" + absolute[2]
    elif not target.startswith("/") and not (target == "*" and method == "OPTIONS"):
        raise malformed("the target is neither a path nor a URL; tunnels (CONNECT) are not made")
    if "#" in target:
        raise malformed("the target has a fragment")
    return target, hosts[0]


def _request_length(fields: Fields, minor: int) -> Length:
    length = _declared_length(fields)
    if length == CHUNKED and minor == 0:
        raise malformed("HTTP/1.0 knows no chunks")
    return 0 if length is None else length


def _declared_length(fields: Fields) -> Length | None:
    codings, lengths = fields.values("transfer-encoding"), fields.values("content-length")
    if codings and lengths:
        raise malformed("both Content-Length and Transfer-Encoding are there")
    if codings:
        if len(codings) > 1 or codings[0].lower() != "chunked":
            raise malformed("the one Transfer-Encoding that is taken is `chunked`, said once")
        return CHUNKED
    if not lengths:
        return None
    text = lengths[0]
    if len(lengths) > 1 or not (text.isascii() and text.isdigit() and len(text) <= LENGTH_DIGITS_MAX):
        raise malformed("Content-Length is not one whole number")
    return int(text)
