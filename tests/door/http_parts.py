"""What tests of the door's front need: sites in memory, honest backends on loopback, clients that speak raw bytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import h11
import msgspec
import trio

from node.door.catalogue import Catalogue
from node.door.config import Door
from node.door.http import serve
from node.door.http.counts import Counts
from node.door.http.senders import Verify
from node.errors import NodeError
from scheduler.sites.site import Site, SitePhase, SiteView

HOST = "shop.example"
KEY = "b:u:shop:1"
PATIENCE_S = 30.0


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    with trio.fail_after(PATIENCE_S):
        while not condition():
            await trio.sleep(0.01)


@dataclass
class MemorySites:
    """Sites of one imagined keeper: each starts in `start_s`, and listens where `ports` says (else nowhere)."""

    start_s: float = 0.0
    ports: dict[str, int] = field(default_factory=dict)
    views: dict[str, SiteView] = field(default_factory=dict)
    open: Counter[str] = field(default_factory=Counter)
    starts: Counter[str] = field(default_factory=Counter)
    uses: int = 0
    asked: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    failing: NodeError | None = None
    failures: int = 1 << 30
    starting: dict[str, trio.Event] = field(default_factory=dict)

    def add(self, key: str = KEY, host: str = HOST, port: int = 0, phase: str = "awake", **more: object) -> None:
        """Have a site already."""
        self.ports[key] = port or self.ports.get(key, 0)
        view = SiteView(key, "shop", SitePhase(phase), "n1", hosts=(host,), port=self.ports[key])
        self.views[key] = msgspec.structs.replace(view, address="127.0.0.1" if phase == "awake" else "", **more)

    async def want(self, site: Site, wait_s: float) -> SiteView:
        if site.key not in self.views:
            self.add(site.key, site.hosts[0], phase="asleep")
        return await self.wake(site.key, wait_s)

    def _fail(self) -> None:
        """Fail, as long as there are failures left."""
        if self.failing is not None and self.failures:
            self.failures -= 1
            raise self.failing

    async def wake(self, key: str, wait_s: float) -> SiteView:
        self.asked.append(key)
        self._fail()
        if self.views[key].phase in (SitePhase.ASLEEP, SitePhase.FROZEN):
            self.views[key] = msgspec.structs.replace(self.views[key], phase=SitePhase.STARTING)
            self.starting[key] = trio.Event()
            self.starts[key] += 1
            trio.lowlevel.spawn_system_task(self._start, key)
        if self.views[key].phase is SitePhase.STARTING:
            with trio.move_on_after(wait_s):
                await self.starting[key].wait()
        return self.views[key]

    async def _start(self, key: str) -> None:
        await trio.sleep(self.start_s)
        self.views[key] = msgspec.structs.replace(self.views[key], phase=SitePhase.AWAKE, address="127.0.0.1")
        self.starting[key].set()

    async def find(self, host: str) -> tuple[SiteView, ...]:
        return tuple(view for view in self.views.values() if host in view.hosts)

    def remembered(self, key: str) -> SitePhase | None:
        return self.views[key].phase if key in self.views else None

    def began(self, key: str, keeper: str) -> None:
        assert keeper == "n1"
        self.open[key] += 1

    def ended(self, key: str, keeper: str) -> None:
        self.open[key] -= 1
        self.uses += 1
        assert self.open[key] >= 0

    async def unready(self, key: str, keeper: str, why: str) -> SiteView:
        self.told.append(why)
        self.views[key] = msgspec.structs.replace(
            self.views[key], phase=SitePhase.BROKEN, address="", reason=why, retry_s=7.0
        )
        return self.views[key]


Answering = Callable[["Backend", h11.Connection, trio.SocketStream], Awaitable[None]]


@dataclass
class Backend:
    """A server that notes every byte, reads requests with h11, and answers with what it saw, as JSON."""

    port: int = 0
    raw: bytearray = field(default_factory=bytearray)
    connections: int = 0
    open: int = 0
    requests: list[dict[str, object]] = field(default_factory=list)
    answering: Answering | None = None

    def headers(self, number: int = -1) -> dict[str, str]:
        """Return the headers of a request it got; of those that came twice, the last."""
        return dict(self.requests[number]["headers"])  # type: ignore[call-overload, no-any-return]

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        self.open += 1
        try:
            await self._serve(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass
        finally:
            self.open -= 1

    async def _serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        while True:
            request, digest, size = None, hashlib.sha256(), 0
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    data = await stream.receive_some(65_536)
                    self.raw += data[: max(0, 65_536 - len(self.raw))]
                    connection.receive_data(data)
                    if not data and request is None:
                        return
                elif isinstance(event, h11.Request):
                    request = event
                    if connection.they_are_waiting_for_100_continue:
                        go_on = h11.InformationalResponse(status_code=100, headers=[])
                        await stream.send_all(connection.send(go_on) or b"")
                elif isinstance(event, h11.Data):
                    digest.update(event.data)
                    size += len(event.data)
                else:
                    break
            if request is None:
                return
            seen = {
                "method": request.method.decode(),
                "target": request.target.decode(),
                "headers": [(name.decode(), value.decode("latin-1")) for name, value in request.headers],
                "bytes": size,
                "sha256": digest.hexdigest(),
            }
            self.requests.append(seen)
            if self.answering is not None:
                await self.answering(self, connection, stream)
            else:
                await answer(connection, stream, json.dumps(seen).encode())
            if connection.our_state is h11.MUST_CLOSE:
                await stream.aclose()
                return
            connection.start_next_cycle()


async def answer(connection: h11.Connection, stream: trio.SocketStream, body: bytes, **fields: str) -> None:
    """Send a whole answer."""
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    headers += [(name.replace("_", "-"), value) for name, value in fields.items()]
    await stream.send_all(
        (connection.send(h11.Response(status_code=200, headers=headers)) or b"")
        + (connection.send(h11.Data(data=body)) or b"")
        + (connection.send(h11.EndOfMessage()) or b"")
    )


@asynccontextmanager
async def backend(answering: Answering | None = None) -> AsyncIterator[Backend]:
    """Serve on a loopback port."""
    made = Backend(answering=answering)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            trio.serve_tcp,
            made.serve,
            0,
        )
        made.port = listeners[0].socket.getsockname()[1]
        yield made
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def scripted(script: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """Serve connections with a script of raw bytes; yields the port."""

    async def play(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await script(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, play, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@dataclass
class RunningDoor:
    """A door that serves, and what it stands on."""

    port: int
    sites: MemorySites
    counts: Counts
    scope: trio.CancelScope

    async def connect(self) -> RawClient:
        """Open a raw connection."""
        return RawClient(await trio.open_tcp_stream("127.0.0.1", self.port))


@asynccontextmanager
async def door(sites: MemorySites, verify: Verify | None = None, **settings: object) -> AsyncIterator[RunningDoor]:
    """Run a door on a loopback port."""
    config = replace(Door(front_ends=(), hold_s=PATIENCE_S, stop_grace_s=1.0), **settings)
    counts = Counts()
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def run(task_status: trio.TaskStatus[int]) -> None:
            with scope:
                await serve(("127.0.0.1", 0), config, sites, Catalogue(), verify, counts, task_status=task_status)

        port = await nursery.start(run)
        try:
            yield RunningDoor(port, sites, counts, scope)
        finally:
            scope.cancel()


class RawClient:
    """A client that sends the bytes it is told to."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.buffer = bytearray()

    async def send(self, data: bytes) -> None:
        """Send raw bytes; a door that closed already is no error here."""
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError:
            return

    async def answer(self, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Read one answer with h11: status, headers, body."""
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        connection.send(h11.EndOfMessage())
        if self.buffer:
            connection.receive_data(bytes(self.buffer))
            self.buffer.clear()
        head: h11.Response | None = None
        body = bytearray()
        with trio.fail_after(PATIENCE_S):
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await self.stream.receive_some(65_536))
                elif isinstance(event, h11.Response):
                    head = event
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    break
                elif isinstance(event, h11.ConnectionClosed):
                    raise EOFError
        assert head is not None
        self.buffer += connection.trailing_data[0]
        headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
        return head.status_code, headers, bytes(body)

    async def rest(self) -> bytes:
        """Read until the door closes."""
        received = bytes(self.buffer)
        self.buffer.clear()
        with trio.fail_after(PATIENCE_S):
            try:
                while data := await self.stream.receive_some(65_536):
                    received += data
            except trio.BrokenResourceError:
                pass
        return received
