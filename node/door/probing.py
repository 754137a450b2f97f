"""Does a container answer at its address? Tried again and again, first every few milliseconds, until it does."""

from __future__ import annotations

import math
import os

import trio

FIRST_PAUSE_S = 0.002
PAUSE_GROWTH = 1.15
"""What is found late is a twentieth of what the start took: starts are waited for by people."""
PAUSE_S_MAX = 0.25
CONNECT_TIMEOUT_S = 0.25
"""A packet sent before the container's link was up is repeated by the kernel a second later only: better a new try."""
ANSWER_TIMEOUT_S = 5.0
STATUS_LINE_BYTES_MAX = 256


async def answers(address: str, port: int, path: str, ready_s: float) -> str:
    """Return when the port takes connections (and a GET of `path`, if there is one, is answered): nothing, or why not
    within `ready_s`.
    """
    pause_s, why = FIRST_PAUSE_S, ""
    with trio.move_on_after(ready_s if ready_s > 0 else math.inf):
        while (why := await _tried(address, port, path)) != "":
            await trio.sleep(pause_s)
            pause_s = min(pause_s * PAUSE_GROWTH, PAUSE_S_MAX)
        return ""
    return f"nothing answers at port {port} within {ready_s:g} s of its start: {why or 'no connection'}"


async def _tried(address: str, port: int, path: str) -> str:
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            stream = await trio.open_tcp_stream(address, port, happy_eyeballs_delay=math.inf)
    except trio.TooSlowError:
        return "no connection in time"
    except OSError as error:
        return _brief(error)
    async with stream:
        if not path:
            return ""
        try:
            with trio.fail_after(ANSWER_TIMEOUT_S):
                return await _got(stream, address, path)
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
            return f"GET {path} is not answered"


async def _got(stream: trio.SocketStream, address: str, path: str) -> str:
    host = f"[{address}]" if ":" in address else address
    await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    line = b""
    while b"\n" not in line and len(line) < STATUS_LINE_BYTES_MAX:
        piece = await stream.receive_some(STATUS_LINE_BYTES_MAX)
        if not piece:
            break
        line += piece
    words = line.split(b"\n", 1)[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return f"GET {path} is not answered by HTTP"
    return "" if int(words[1]) < 500 else f"GET {path} is answered by {words[1].decode()}"


def _brief(error: OSError) -> str:
    causes = [each for each in getattr(error.__cause__, "exceptions", ()) if isinstance(each, OSError)]
    cause = (causes or [error])[0]
    return os.strerror(cause.errno).lower() if cause.errno else str(cause)
