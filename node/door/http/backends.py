"""Connections to containers: made, kept for a moment after use, and taken again.

Owns which connections idle. A kept connection belongs to one run of one site: an address that another container got
meanwhile is never reached over it.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from typing import NamedTuple

import trio

from node.door.http.wire import Wire
from scheduler.sites.site import SiteView

IDLE_S = 15.0
IDLE_PER_PLACE_MAX = 32
IDLE_MAX = 512
SWEEP_S = 5.0


class Place(NamedTuple):
    """Where one run of a site's container listens."""

    key: str
    job: int
    address: str
    port: int


class Backend(Wire):
    """A connection to a place. `reused`: it has carried an answer before, so it may be closing right now."""

    def __init__(self, stream: trio.SocketStream, place: Place) -> None:
        super().__init__(stream)
        self.place = place
        self.reused = False
        self.idle_since_s = 0.0

    def quiet(self) -> bool:
        """Whether nothing came meanwhile: an end, or bytes nobody asked for."""
        if self.buffer or self.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return not poll.poll(0)


def place_of(view: SiteView) -> Place:
    """Return where an awake site listens."""
    return Place(view.key, view.job, view.address, view.port)


class Backends:
    """All connections that idle, the most recently used first out."""

    def __init__(self) -> None:
        self._idle: dict[Place, deque[Backend]] = {}
        self._count = 0

    def kept(self, place: Place) -> Backend | None:
        """Take a connection that idles and still is open."""
        while waiting := self._idle.get(place):
            backend = waiting.pop()
            self._count -= 1
            if not waiting:
                del self._idle[place]
            if backend.quiet():
                backend.reused = True
                return backend
            backend.close()
        return None

    def keep(self, backend: Backend) -> None:
        """Let a connection idle, or close it if enough do."""
        waiting = self._idle.setdefault(backend.place, deque())
        if len(waiting) >= IDLE_PER_PLACE_MAX or self._count >= IDLE_MAX:
            backend.close()
            return
        backend.idle_since_s = trio.current_time()
        waiting.append(backend)
        self._count += 1

    async def sweep(self) -> None:
        """Close what idled for too long, for good."""
        while True:
            await trio.sleep(SWEEP_S)
            self.close(before_s=trio.current_time() - IDLE_S)

    def close(self, before_s: float = float("inf")) -> None:
        """Close connections that idle since before a time."""
        for place, waiting in list(self._idle.items()):
            while waiting and waiting[0].idle_since_s <= before_s:
                waiting.popleft().close()
                self._count -= 1
            if not waiting:
                del self._idle[place]


async def connect(place: Place, timeout_s: float) -> Backend:
    """Make a connection; OSError tells why there is none."""
    family = socket.AF_INET6 if ":" in place.address else socket.AF_INET
    plain = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        with trio.fail_after(timeout_s):
            await plain.connect((place.address, place.port))
    except trio.TooSlowError:
        plain.close()
        raise TimeoutError(f"no connection within {timeout_s:g} s") from None
    except BaseException:
        plain.close()
        raise
    return Backend(trio.SocketStream(plain), place)
