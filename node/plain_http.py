"""The part of HTTP/1.1 that nodes speak among themselves: a head, a body of a declared length, and nothing else.

Owns reading within bounds. Knows no paths and no calls. Whoever sends more than this part (chunks, folded or repeated
fields) is refused, which a node's own client never is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

HEAD_BYTES_MAX = 8 * 1024
READ_BYTES = 64 * 1024
LENGTH_DIGITS_MAX = 12


class Malformed(Exception):
    """What came is not of this part of HTTP; one line says why."""


class Source(Protocol):
    """Where bytes come from."""

    async def receive_some(self, max_bytes: int, /) -> bytes | bytearray:
        """Return what there is; nothing at the end."""


class Head(NamedTuple):
    """A request's or an answer's first line, and its fields by their names in small letters."""

    line: str
    fields: Mapping[str, str]

    def length(self) -> int:
        """Return how many bytes follow; Malformed if that is not declared."""
        text = self.fields.get("content-length", "")
        if not (text.isascii() and text.isdigit() and len(text) <= LENGTH_DIGITS_MAX):
            raise Malformed("it does not declare its length")
        if "transfer-encoding" in self.fields:
            raise Malformed("it is encoded for its transfer")
        return int(text)


class Reader:
    """Reads heads and bodies from one connection; `begun` came from it already."""

    def __init__(self, source: Source, begun: bytes = b"") -> None:
        self._source = source
        self._buffer = bytearray(begun)

    async def head(self) -> Head | None:
        """Return the next head; None where the connection ends instead. Malformed."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise Malformed(f"its head passes {HEAD_BYTES_MAX:,} bytes")
            if not await self._more():
                if self._buffer:
                    raise Malformed("the connection ended in the middle of a head")
                return None
        line, *rest = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        fields = dict(_field(text) for text in rest)
        if len(fields) != len(rest):
            raise Malformed("a field is repeated")
        return Head(line, fields)

    async def body(self, length: int) -> bytes:
        """Return the next `length` bytes; Malformed if fewer come."""
        while len(self._buffer) < length:
            if not await self._more():
                raise Malformed("the connection ended in the middle of a body")
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    async def _more(self) -> bool:
        received = await self._source.receive_some(READ_BYTES)
        self._buffer += received
        return bool(received)


def _field(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name or name != name.strip():
        raise Malformed("a line of its head is no field")
    return name.lower(), value.strip()
