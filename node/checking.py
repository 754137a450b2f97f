"""One look at a task: a command inside it, a TCP connection or an HTTP request to it. What is wrong, as a text, or "".

Owns the processes and connections of one check, its time-out and the bound of what is kept of its output. Nothing of a
check outlives its time-out: a command is killed with all it started, as far as that is still below it. Knows neither
when to look nor what an outcome means (scheduler/health.py).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Awaitable, Callable

import trio

from node.host.process_tree import kill_tree
from node.runtime.protocol import USUAL_UMASK, ContainerError, Runtime
from scheduler.condition import TEXT_MAX
from scheduler.spec.health import Health, HttpCheck

HEAD_BYTES_MAX = 8192
"""Of an HTTP answer, in which its first line must end."""
OUTPUT_BYTES = 4 * TEXT_MAX
"""Kept of a command's output, its end; a character may have four bytes."""
QUIET_S = 0.1
"""What a command started may hold its output open; once the command has ended this is waited for more of it."""


async def look(runtime: Runtime, container: str, address: str, asked: Health) -> str:
    """Return what is wrong with a task that runs; "" when nothing is. Takes no longer than its time-out."""
    with trio.move_on_after(asked.timeout_s):
        return await _kind(runtime, container, address, asked)
    return f"no answer within {asked.timeout_s:g} s"


def _kind(runtime: Runtime, container: str, address: str, asked: Health) -> Awaitable[str]:
    if asked.command:
        return _command(runtime, container, asked.command)
    if asked.http is not None:
        return _connected(address, asked.http.port, lambda stream: _http(stream, address, asked.http))
    return _connected(address, asked.tcp, None)


async def _connected(address: str, port: int, then: Callable[[trio.SocketStream], Awaitable[str]] | None) -> str:
    try:
        async with await trio.open_tcp_stream(address, port) as stream:
            return await then(stream) if then is not None else ""
    except (OSError, trio.BrokenResourceError) as error:
        reason: BaseException = error.__cause__ or error
        while isinstance(reason, BaseExceptionGroup):  # an address may have been tried in several ways
            reason = reason.exceptions[0]
        number = getattr(reason, "errno", None)
        return f"{address}:{port}: {os.strerror(number) if number else reason}"


async def _http(stream: trio.SocketStream, address: str, asked: HttpCheck | None) -> str:
    assert asked is not None
    host = asked.host or (f"[{address}]" if ":" in address else address)
    request = f"GET {asked.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: fofoca-health\r\nConnection: close\r\n\r\n"
    await stream.send_all(request.encode("ascii"))
    head = bytearray()
    while b"\n" not in head and len(head) < HEAD_BYTES_MAX:
        piece = await stream.receive_some(HEAD_BYTES_MAX)
        if not piece:
            break
        head += piece
    line = bytes(head).split(b"\n", 1)[0].decode("latin-1").strip()
    version, _, rest = line.partition(" ")
    status = rest[:3]
    if not version.startswith("HTTP/") or not (status.isascii() and status.isdigit()):
        return f"GET {asked.path}: no HTTP answer: {line[:100]!r}"
    if asked.status_min <= int(status) <= asked.status_max:
        return ""
    return f"GET {asked.path}: status {rest[:100]}, expected {asked.status_min} to {asked.status_max}"


async def _command(runtime: Runtime, container: str, argv: tuple[str, ...]) -> str:
    try:
        entrance = runtime.entrance(container)
        process = await trio.lowlevel.open_process(
            [*entrance.command, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(entrance.env),
            start_new_session=True,
            close_fds=True,
            umask=USUAL_UMASK,
        )
    except (ContainerError, OSError) as error:
        return str(error)
    output = bytearray()
    try:
        await _finished(process, output)
    finally:
        if process.returncode is None:
            kill_tree(process.pid)
        with trio.CancelScope(shield=True):
            await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()
    if process.returncode == 0:
        return ""
    said = bytes(output).decode("utf-8", "replace").strip()
    return f"exit code {process.returncode}{': ' if said else ''}{said}"


async def _finished(process: trio.Process, output: bytearray) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_keep_end, process, output, nursery.cancel_scope)
        await process.wait()
        nursery.cancel_scope.deadline = trio.current_time() + QUIET_S


async def _keep_end(process: trio.Process, output: bytearray, done: trio.CancelScope) -> None:
    assert process.stdout is not None
    async for piece in process.stdout:
        output += piece
        del output[:-OUTPUT_BYTES]
    await process.wait()
    done.cancel()
