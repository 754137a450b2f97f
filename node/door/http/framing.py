"""Where bodies end: bytes of a declared length, chunks, or all until the connection closes. No I/O.

A body takes its bytes out of a connection's buffer. Chunks are taken apart here and made anew by whoever sends them on;
extensions and trailers are dropped, which RFC 9112 allows and which leaves nothing for the next reader to misread.
"""

from __future__ import annotations

import re
from typing import Protocol

from node.door.http.head import CHUNKED, UNTIL_CLOSE, Length
from node.door.http.refusals import malformed

CHUNK_LINE_BYTES_MAX = 128
TRAILER_BYTES_MAX = 8_192
EXTENSION_BYTES_MAX = 16_384

_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,12})((?:;[\t\x20-\x7e]*)?)")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}:[\t\x20-\x7e\x80-\xff]*")


class Body(Protocol):
    """A body that is being read."""

    done: bool

    def take(self, buffer: bytearray) -> bytes | None:
        """Take the next content out of the buffer, maybe nothing at its end; None: more must come first. Refused."""

    def end(self) -> bool:
        """Say that the connection ended; whether the body was whole by that."""


def body_of(length: Length) -> Body:
    """Return the body of a length as heads declare it."""
    if length == CHUNKED:
        return Chunked()
    return UntilClose() if length == UNTIL_CLOSE else Sized(length)


class Sized:
    """So many bytes."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = not length

    def take(self, buffer: bytearray) -> bytes | None:
        """Take what is there, up to the length."""
        if not buffer:
            return None
        taken = bytes(buffer[: self._left])
        del buffer[: self._left]
        self._left -= len(taken)
        self.done = not self._left
        return taken

    def end(self) -> bool:
        """Say whether it was whole."""
        return self.done


class UntilClose:
    """Everything until the connection ends."""

    done = False

    def take(self, buffer: bytearray) -> bytes | None:
        """Take what is there."""
        if not buffer:
            return None
        taken = bytes(buffer)
        buffer.clear()
        return taken

    def end(self) -> bool:
        """Be whole by the end."""
        self.done = True
        return True


class Chunked:
    """Chunks, each after a line with its size; the last is empty, trailers may follow."""

    def __init__(self) -> None:
        self._left = 0  # of the present chunk
        self._in_data = False
        self._in_trailers = False
        self._aside = 0  # bytes of extensions and trailers, which cost and carry nothing
        self.done = False

    def take(self, buffer: bytearray) -> bytes | None:
        """Take the content of every chunk, or part of one, that is there."""
        content = bytearray()
        while not self.done and self._step(buffer, content):
            pass
        return bytes(content) if content or self.done else None

    def end(self) -> bool:
        """Say whether it was whole."""
        return self.done

    def _step(self, buffer: bytearray, content: bytearray) -> bool:
        """Read one line, or some of a chunk; False if more must come first."""
        if self._in_data:
            return self._data(buffer, content)
        line = _line(buffer, TRAILER_BYTES_MAX if self._in_trailers else CHUNK_LINE_BYTES_MAX)
        if line is None:
            return False
        if self._in_trailers:
            self._trailer(line)
        else:
            self._size(line)
        return True

    def _size(self, line: bytes) -> None:
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise malformed("a chunk's size is not a hexadecimal number")
        self._put_aside(len(match[2]))
        self._left = int(match[1], 16)
        self._in_data, self._in_trailers = self._left > 0, self._left == 0

    def _data(self, buffer: bytearray, content: bytearray) -> bool:
        if self._left:
            content += buffer[: self._left]
            taken = min(self._left, len(buffer))
            del buffer[:taken]
            self._left -= taken
            return taken > 0
        if not b"\r\n".startswith(buffer[:2]):
            raise malformed("a chunk is not followed by CR LF")
        if len(buffer) < 2:
            return False
        del buffer[:2]
        self._in_data = False
        return True

    def _trailer(self, line: bytes) -> None:
        if line and _TRAILER.fullmatch(line) is None:
            raise malformed("a trailer is no field")
        self._put_aside(len(line))
        self.done = not line

    def _put_aside(self, count: int) -> None:
        self._aside += count
        if self._aside > EXTENSION_BYTES_MAX:
            raise malformed(f"extensions and trailers of chunks pass {EXTENSION_BYTES_MAX:,} bytes")


def _line(buffer: bytearray, length_max: int) -> bytes | None:
    """Take a line out of the buffer; None if it is not whole yet."""
    end = buffer.find(b"\n", 0, length_max + 2)
    if end < 0:
        if len(buffer) > length_max + 1:
            raise malformed(f"a line between chunks passes {length_max} bytes")
        # A CR that no LF follows ends nothing, and would be waited for in vain.
        if b"\r" in buffer[:-1]:
            raise malformed("a line between chunks has a lone CR")
        return None
    line = bytes(buffer[: end + 1])
    del buffer[: end + 1]
    if not line.endswith(b"\r\n"):
        raise malformed("a line between chunks does not end in CR LF")
    return line[:-2]


def chunk(content: bytes) -> bytes:
    """Return content as one chunk."""
    return b"%x\r\n%b\r\n" % (len(content), content)


LAST_CHUNK = b"0\r\n\r\n"
