"""One TCP connection, of a client or to a backend: bytes read ahead, and a bound on how long the other side may stall.

Owns the buffer and the clock of a connection. Knows heads and bodies by their ends alone.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct

import trio

from node.door.http.framing import Body
from node.door.http.head import check_begun
from node.door.http.refusals import CutShort, Refused

READ_BYTES = 64 * 1024
SEND_PIECE_BYTES = 64 * 1024
AHEAD_BYTES_MAX = 64 * 1024
LINGER_S = 2.0
_LAX_END = re.compile(rb"\r?\n\r?\n")


class Wire:
    """A connection. A side that breaks off and one that closes look the same to readers: the end."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._socket = stream.socket
        self.buffer = bytearray()
        self.received_bytes = 0
        self.sent_bytes = 0
        self.broke = False

    async def more(self) -> bool:
        """Read what comes next into the buffer; False at the end."""
        try:
            received = await self._stream.receive_some(READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.broke = True
            return False
        self.buffer += received
        self.received_bytes += len(received)
        return bool(received)

    async def head(self, bytes_max: int) -> bytes | None:
        """Take the next head, without its final empty line; None where the connection ends before it. Refused."""
        checked = 0
        while (end := self.buffer.find(b"\r\n\r\n", max(0, checked - 3))) < 0:
            check_begun(self.buffer, checked)
            checked = len(self.buffer)
            if checked > bytes_max:
                raise _head_too_large(bytes_max)
            if not await self.more():
                return None
        if end > bytes_max:
            raise _head_too_large(bytes_max)
        head = bytes(self.buffer[:end])
        del self.buffer[: end + 4]
        return head

    async def lax_head(self, bytes_max: int) -> bytes | None:
        """The same of an application, whose lines may end in a lone LF, as those of old CGI programs do (RFC 9112 2.2).

        What it says is written anew, so nobody in front could read it differently.
        """
        while (end := _LAX_END.search(self.buffer)) is None:
            if len(self.buffer) > bytes_max:
                raise _head_too_large(bytes_max)
            if not await self.more():
                return None
        head = bytes(self.buffer[: end.start()])
        del self.buffer[: end.end()]
        return head.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")

    async def piece(self, body: Body, stall_s: float) -> bytes:
        """Return the next content of a body, nothing when it is done; Refused, CutShort, trio.TooSlowError."""
        while not body.done:
            if (content := body.take(self.buffer)) is not None:
                return content
            with trio.fail_after(stall_s):
                came = await self.more()
            if not came and (self.broke or not body.end()):
                raise CutShort("the connection ended in the middle of a body")
        return b""

    async def send(self, data: bytes, stall_s: float) -> None:
        """Send; trio.BrokenResourceError where the other side is gone or takes nothing for so long."""
        view = memoryview(data)
        for start in range(0, len(view), SEND_PIECE_BYTES):
            try:
                with trio.fail_after(stall_s):
                    await self._stream.send_all(view[start : start + SEND_PIECE_BYTES])
            except trio.TooSlowError:
                raise trio.BrokenResourceError("the reader stalls") from None
            except trio.ClosedResourceError as error:
                raise trio.BrokenResourceError("closed here") from error
        self.sent_bytes += len(view)

    async def until_end(self) -> None:
        """Read ahead, within a bound, until the other side closes."""
        while len(self.buffer) < AHEAD_BYTES_MAX:
            if not await self.more():
                return
        await trio.sleep_forever()

    async def end_sending(self) -> None:
        """Tell the other side that nothing more comes; it may still send."""
        try:
            await self._stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def linger(self) -> None:
        """Close so that the last answer arrives even where the other side still sends: a reset would destroy it."""
        await self.end_sending()
        with trio.move_on_after(LINGER_S):
            while await self.more():
                self.buffer.clear()

    def close(self) -> None:
        """Close at once."""
        self._socket.close()

    def cut(self) -> None:
        """Close so that the other side sees that something is missing: by a reset."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def fileno(self) -> int:
        """Return its descriptor, -1 once closed."""
        return self._socket.fileno()


def _head_too_large(bytes_max: int) -> Refused:
    return Refused(431, "too-large", f"the head passes {bytes_max:,} bytes")
