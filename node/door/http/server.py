"""Listens for clients, and ends well: no new ones, open requests finish for a while, then what is left is cut.

Owns the sockets and how many connections there are. A broken one never ends another.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from node import logs
from node.door.catalogue import Catalogue
from node.door.config import Door
from node.door.http.awaking import Awaking
from node.door.http.backends import Backends
from node.door.http.connection import Connection
from node.door.http.counts import Counts
from node.door.http.front import Front
from node.door.http.own_answers import of_refusal
from node.door.http.places import Places
from node.door.http.refusals import Refused
from node.door.http.senders import FrontEnds, Verify, client_of, plain_address
from node.door.http.wire import Wire
from node.door.sites import Sites

BACKLOG = 1_024
ACCEPT_PAUSE_S = 0.1
FILES_FOR_OTHERS = 512
REFUSAL_S = 1.0

log = logs.get("door")


async def serve(
    listen: tuple[str, int],
    config: Door,
    sites: Sites,
    catalogue: Catalogue,
    verify: Verify | None = None,
    counts: Counts | None = None,
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a door until cancelled; tells the bound port. `verify` tells whom a token speaks for (BadToken).

    OSError if the address can't be bound.
    """
    host, port = listen
    try:
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    except OSError as error:
        raise OSError(error.errno, f"the door can't listen on {host}:{port}: {error.strerror or error}") from None
    server = _Server(_front(config, sites, catalogue, verify, counts or Counts()))
    try:
        async with trio.open_nursery() as nursery:
            connections: trio.Nursery = await nursery.start(_shielded_nursery)
            try:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(server.front.backends.sweep)
                    for listener in listeners:
                        accepting.start_soon(server.accept, listener, connections)
                    task_status.started(listeners[0].socket.getsockname()[1])
            finally:
                for listener in listeners:
                    listener.socket.close()
                with trio.CancelScope(shield=True):
                    await server.finish(connections)
    finally:
        server.front.backends.close()
        log.info("the door is closed", **server.front.counts.as_dict())


def _front(config: Door, sites: Sites, catalogue: Catalogue, verify: Verify | None, counts: Counts) -> Front:
    return Front(
        config=config,
        sites=sites,
        awaking=Awaking(config, sites, catalogue),
        front_ends=FrontEnds(config.front_ends, verify),
        backends=Backends(),
        carried=Places(
            "requests are carried",
            "door.connections_max",
            config.connections_max,
            "door.site_requests_max",
            config.site_requests_max,
        ),
        counts=counts,
    )


async def _shielded_nursery(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """Hold a nursery whose tasks outlive the cancellation of the server, until its own scope is cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.shield = True
        task_status.started(nursery)
        await trio.sleep_forever()


def slots_for(connections_max: int) -> int:
    """Return how many connections this process has descriptors for, two each; the soft limit is raised if it may be."""
    wanted = 2 * connections_max + FILES_FOR_OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    possible = max(1, (soft - FILES_FOR_OTHERS) // 2)
    if possible < connections_max:
        log.warning("too few file descriptors for door.connections_max", limit=soft, connections=possible)
    return min(possible, connections_max)


class _Server:
    """The connections of one door."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self._slots = trio.Semaphore(slots_for(front.config.connections_max))
        self._clients = Places(
            "connections are open",
            "door.connections_max",
            front.config.connections_max,
            "door.client_connections_max",
            front.config.client_connections_max,
        )
        self._open: set[Wire] = set()
        self._idle: dict[trio.CancelScope, None] = {}
        self._ended = trio.Event()
        self._stopping = False

    async def accept(self, listener: trio.SocketListener, connections: trio.Nursery) -> None:
        """Take connections, as many at once as there are slots; the longest idle makes room for a new one."""
        while True:
            await self._slots.acquire()
            try:
                stream = await listener.accept()
            except OSError as error:
                # Out of file descriptors, mostly: others must end first.
                self._slots.release()
                log.warning("can't accept a connection", why=str(error))
                await trio.sleep(ACCEPT_PAUSE_S)
            except BaseException:
                self._slots.release()
                raise
            else:
                connections.start_soon(self._connection, stream)
                if not self._slots.value and self._idle:
                    next(iter(self._idle)).cancel()

    async def finish(self, connections: trio.Nursery) -> None:
        """Close idle connections, let the others end for a while, then cut them."""
        self._stopping = True
        for scope in tuple(self._idle):
            scope.cancel()
        with trio.move_on_after(self.front.config.stop_grace_s):
            while self._open:
                self._ended = trio.Event()
                await self._ended.wait()
        connections.cancel_scope.cancel()

    async def _connection(self, stream: trio.SocketStream) -> None:
        wire = Wire(stream)
        counts = self.front.counts
        self._open.add(wire)
        counts.connections += 1
        counts.open_connections += 1
        try:
            await self._serve(wire, plain_address(stream.socket.getpeername()[0]))
        except Exception as error:
            log.exception("a connection failed", why=repr(error))
        finally:
            wire.close()
            self._open.discard(wire)
            counts.open_connections -= 1
            self._slots.release()
            self._ended.set()

    async def _serve(self, wire: Wire, address: str) -> None:
        if self.front.front_ends.has(address):
            await Connection(self.front, wire, address, self._while_idle, lambda: self._stopping).run()
            return
        try:
            with self._clients.taken(client_of(address)):
                await Connection(self.front, wire, address, self._while_idle, lambda: self._stopping).run()
        except Refused as refusal:
            await self._turn_away(wire, refusal)

    async def _turn_away(self, wire: Wire, refusal: Refused) -> None:
        """Answer without reading: this client has more than its part already."""
        self.front.counts.refused["connections"] += 1
        try:
            await wire.send(of_refusal(refusal, None).encode(None, keep=False), REFUSAL_S)
            await wire.end_sending()
        except trio.BrokenResourceError:
            return

    @contextmanager
    def _while_idle(self) -> Iterator[None]:
        """Let a connection wait for its next request: for so long, and not while the door ends."""
        with trio.move_on_after(self.front.config.keep_alive_s) as scope:
            self._idle[scope] = None
            try:
                if self._stopping:
                    scope.cancel()
                yield
            finally:
                self._idle.pop(scope, None)
