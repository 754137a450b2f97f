"""Listens: the TCP address (TLS, too) and the local socket, served by hypercorn's protocols on trio.

Owns the sockets and what a connection may cost: how many there are, how long a client may stall. The local socket has
connections of its own, so that strangers who fill the TCP ones can't lock the operator out. hypercorn's own `serve`
is not used: there one broken connection can end all, and a client that reads nothing can hold up the end.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node import logs
from node.api import tls
from node.api.rpc import FIRST_LINE

LOCAL_CONNECTIONS_MAX = 256
HEADER_BYTES_MAX = 32 * 1024
KEEP_ALIVE_S = 15.0
GRACE_S = 3.0
BACKLOG = 1_024
SEND_PIECE_BYTES = 64 * 1024
ACCEPT_PAUSE_S = 0.1
READ_BYTES = 64 * 1024
CALLS = f"{FIRST_LINE}\r\n".encode("ascii")

Calls = Callable[["BoundedStream", bytes, Callable[[], AbstractContextManager[object]]], Awaitable[None]]
"""Serves a connection that another node began with a call (`rpc.serve_calls`)."""

AnyStream = trio.SocketStream | trio.SSLStream[tls.Begun]

log = logs.get("api")


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where to listen, and the bounds of a connection. `tls`: what users get on the TCP port, None for plain HTTP."""

    host: str
    port: int
    socket_path: Path
    connections_max: int = 1_000
    stall_timeout_s: float = 30.0
    tls: ssl.SSLContext | None = None


async def serve(
    app: ASGIApp, calls: Calls, where: Listening, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled, and then let requests under way end for a moment; tells the bound TCP port.

    Connections that other nodes begin with a call go to `calls`, all others to the application.

    OSError if an address can't be bound.
    """
    tcp = await _open_tcp(where.host, where.port)
    local = open_local_socket(where.socket_path)
    server = _Server(app, calls, where.stall_timeout_s, where.tls)
    try:
        async with trio.open_nursery() as nursery:
            connections: trio.Nursery = await nursery.start(_shielded_nursery)
            try:
                async with trio.open_nursery() as accepting:
                    slots = trio.Semaphore(where.connections_max)
                    for listener in tcp:
                        accepting.start_soon(server.accept, listener, slots, connections)
                    accepting.start_soon(server.accept, local, trio.Semaphore(LOCAL_CONNECTIONS_MAX), connections)
                    task_status.started(tcp[0].socket.getsockname()[1])
            finally:
                with trio.CancelScope(shield=True):
                    await server.finish(connections)
    finally:
        where.socket_path.unlink(missing_ok=True)
        for listener in (*tcp, local):
            listener.socket.close()


async def _open_tcp(host: str, port: int) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    except OSError as error:
        why = error.strerror or error
        raise OSError(error.errno, f"the API can't listen on {host}:{port}: {why}") from None


async def _shielded_nursery(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """Hold a nursery whose tasks outlive the cancellation of the server, until its own scope is cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.shield = True
        task_status.started(nursery)
        await trio.sleep_forever()


def open_local_socket(path: Path) -> trio.SocketListener:
    """Listen on a unix socket that only this user can reach; what an agent before left there is replaced."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(path.name + "~")
    fresh.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(fresh))
    # Only once its mode is right does the socket get its name.
    fresh.chmod(0o600)
    listener.listen(BACKLOG)
    fresh.rename(path)
    return trio.SocketListener(trio.socket.from_stdlib_socket(listener))


class _Server:
    """The connections of one application."""

    def __init__(self, app: ASGIApp, calls: Calls, stall_timeout_s: float, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self._app = ASGIWrapper(cast(Any, partial(_call_draining, app)))
        self._calls = calls
        self._stall_timeout_s = stall_timeout_s
        self._config = _hypercorn_config()
        self._context = WorkerContext(None)
        self._streams: set[BoundedStream] = set()
        self._ended = trio.Event()
        self._idle: set[trio.CancelScope] = set()
        self._finishing = False

    async def accept(self, listener: trio.SocketListener, slots: trio.Semaphore, connections: trio.Nursery) -> None:
        """Take connections, as many at once as there are slots."""
        while True:
            await slots.acquire()
            try:
                stream = await listener.accept()
            except OSError as error:
                # Out of file descriptors, mostly: others must end first.
                slots.release()
                log.warning("can't accept a connection", why=str(error))
                await trio.sleep(ACCEPT_PAUSE_S)
            except BaseException:
                slots.release()
                raise
            else:
                connections.start_soon(self._connection, stream, slots)

    async def finish(self, connections: trio.Nursery) -> None:
        """Close idle connections, give the others a moment, then cut them."""
        self._finishing = True
        for scope in self._idle:
            scope.cancel()
        await self._context.terminated.set()
        with trio.move_on_after(GRACE_S):
            while self._streams:
                self._ended = trio.Event()
                await self._ended.wait()
        for stream in tuple(self._streams):
            stream.socket.close()
        connections.cancel_scope.cancel()

    async def _connection(self, socket_stream: trio.SocketStream, slots: trio.Semaphore) -> None:
        stream = BoundedStream(socket_stream, self._stall_timeout_s, socket_stream.socket)
        self._streams.add(stream)
        try:
            with self._while_idle():
                stream.begun = bytes(await socket_stream.receive_some(READ_BYTES))
            if stream.begun.startswith(CALLS):
                await self._calls(stream, stream.take_begun(), self._while_idle)
            elif stream.begun and (wished := await self._wished(stream, socket_stream)) is not None:
                await TCPServer(self._app, self._config, self._context, ConnectionState({}), cast(Any, wished)).run()
        except Exception as error:  # noqa: BLE001 (one client's nonsense must not end the others' connections)
            log.debug("a connection broke", why=repr(error))
        finally:
            self._streams.discard(stream)
            self._ended.set()
            slots.release()
            stream.socket.close()

    async def _wished(self, stream: BoundedStream, socket_stream: trio.SocketStream) -> BoundedStream | None:
        """Return the stream as users are to speak over it: TLS where there is a certificate; None where they don't."""
        if self._tls is None or socket_stream.socket.family == socket.AF_UNIX:
            return stream
        if not stream.begun.startswith(tls.HANDSHAKE[: len(stream.begun)]):
            await socket_stream.send_all(tls.PLAIN_REFUSED)
            return None
        secure = await tls.opened(self._tls, socket_stream, stream.take_begun())
        return BoundedStream(secure, self._stall_timeout_s, socket_stream.socket)

    @contextmanager
    def _while_idle(self) -> Iterator[object]:
        """Let a connection wait for its next request: for so long, and not while the server ends."""
        with trio.move_on_after(KEEP_ALIVE_S) as scope:
            self._idle.add(scope)
            try:
                if self._finishing:
                    scope.cancel()
                yield scope
            finally:
                self._idle.discard(scope)


class BoundedStream:
    """A socket stream whose reader may not stall: a piece that is not taken in time breaks the stream.

    An answer's head is held back until its body follows (hypercorn sends them apart): one packet and system call less.
    """

    def __init__(self, stream: AnyStream, stall_timeout_s: float, below: trio.socket.SocketType) -> None:
        self._stream = stream
        self._stall_timeout_s = stall_timeout_s
        self._held = b""
        self.begun = b""  # what was read to see which connection it is
        self.socket = below
        self.aclose = stream.aclose

    async def send_eof(self) -> None:
        """Say that nothing more comes, where that can be said of one direction; TLS ends both, when it is closed."""
        if isinstance(self._stream, trio.SocketStream):
            await self._stream.send_eof()

    def take_begun(self) -> bytes:
        """Return what was read of the stream before its reader came."""
        begun, self.begun = self.begun, b""
        return begun

    async def receive_some(self, max_bytes: int) -> bytes | bytearray:
        """Return what there is; nothing at the end."""
        return self.take_begun() or await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes) -> None:
        """Send, piece by piece; BrokenResourceError when the other side stalls or is gone."""
        if data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            self._held += data
            return
        view = memoryview(self._held + data if self._held else data)
        self._held = b""
        for start in range(0, len(view), SEND_PIECE_BYTES):
            try:
                with trio.fail_after(self._stall_timeout_s):
                    await self._stream.send_all(view[start : start + SEND_PIECE_BYTES])
            except trio.TooSlowError:
                self.socket.close()
                raise trio.BrokenResourceError("the reader stalled") from None


async def _call_draining(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Call the application; swallow what is left of a body that it answers without reading.

    hypercorn hands bodies over through a short queue. Nobody reads it once the answer is given, and a client that goes
    on sending would then hold the connection for good.
    """
    unread = True

    async def receive_noting() -> Message:
        nonlocal unread
        message = await receive()
        unread = message.get("more_body", False)
        return message

    async def send_draining(message: Message) -> None:
        if not unread or message["type"] != "http.response.body" or message.get("more_body", False):
            await send(message)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drain, receive)
            await send(message)
            nursery.cancel_scope.cancel()

    names = {name for name, _ in scope.get("headers", ())}
    if names & {b"content-length", b"transfer-encoding"}:
        await app(scope, receive_noting, send_draining)
    else:
        await app(scope, receive, send)


async def _drain(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _hypercorn_config() -> Config:
    config = Config()
    config.h11_max_incomplete_size = HEADER_BYTES_MAX
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.keep_alive_max_requests = 1_000_000
    config.include_server_header = False
    config.errorlog = logging.getLogger("fofoca.http")
    config.accesslog = None
    return config
