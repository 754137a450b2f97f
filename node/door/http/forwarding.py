"""Carries a request to its awake site, over a kept connection or a new one, again where that can do no harm.

Nothing is ever sent twice that could act twice: a request is repeated only if no byte of it was sent, or if its method
may be repeated, it has no body, and no byte of an answer came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from node.door.http.awaking import STARTING_RETRY_S, Awake, not_awake
from node.door.http.backends import Backend, connect, place_of
from node.door.http.counts import Record
from node.door.http.exchange import Exchange
from node.door.http.fields import Sender, request_head
from node.door.http.framing import Body
from node.door.http.front import Front
from node.door.http.head import Request
from node.door.http.own_answers import host_and_port, marks
from node.door.http.refusals import CutShort, Refused
from node.door.http.tunnel import tunnel
from node.door.http.wire import Wire
from node.errors import NodeError
from scheduler.errors import SchedulerError
from scheduler.sites.site import SitePhase, SiteView

TRIES_MAX = 3
CONNECT_PAUSE_S = 0.05
CONNECT_TRY_S = 1.0
"""Whether the site moved is looked at so often while its host says nothing at all."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request with what was read of its body, and whose it is."""

    request: Request
    sender: Sender
    body: Body
    first: bytes


class Forwarding:
    """One request on its way. `may_keep`: whether the client's connection may last."""

    def __init__(self, front: Front, client: Wire, asked: Asked, record: Record, may_keep: Callable[[], bool]) -> None:
        self._front = front
        self._client = client
        self._asked = asked
        self._record = record
        self._may_keep = may_keep
        self._elsewhere: SiteView | None = None

    async def run(self, awake: Awake) -> bool:
        """Carry it, and return whether the client's connection lasts; Refused, Gone."""
        view = awake.view
        with self._front.carried.taken(view.key):
            self._front.sites.began(view.key, view.keeper)
            try:
                return await self._tries(awake)
            finally:
                self._front.sites.ended(view.key, view.keeper)

    async def _tries(self, awake: Awake) -> bool:
        view = awake.view
        for number in range(1, TRIES_MAX + 1):
            backend, view = await self._reach(self._elsewhere or view, fresh=number > 1)
            exchange = self._exchange(backend, view, awake.cold_ms)
            try:
                await exchange.run()
            except CutShort as error:
                if self._may_repeat(exchange) and number < TRIES_MAX:
                    self._front.counts.retried += 1
                    continue
                if not exchange.status:
                    raise Refused(502, "backend", f"the application at {host_and_port(view)} failed: {error}") from None
                return self._cut()
            except Refused:
                if not exchange.status:
                    raise
                return self._cut()
            finally:
                self._record.status = exchange.status
                if exchange.backend_lasts:
                    self._front.backends.keep(backend)
                elif not exchange.tunnel:
                    backend.close()
            if exchange.tunnel:
                await self._tunnel(backend)
            return exchange.client_lasts
        raise AssertionError("the last try neither succeeded nor failed")

    def _exchange(self, backend: Backend, view: SiteView, cold_ms: float | None) -> Exchange:
        asked = self._asked
        return Exchange(
            config=self._front.config,
            client=self._client,
            backend=backend,
            request=asked.request,
            body=asked.body,
            first=asked.first,
            head=request_head(asked.request, asked.sender),
            marks=marks(cold_ms),
            may_keep=self._may_keep,
            moved=lambda: self._moved(view),
        )

    def _may_repeat(self, exchange: Exchange) -> bool:
        return exchange.nothing_came and exchange.repeatable

    def _cut(self) -> bool:
        """End a client's answer that can't be whole any more, so that it is seen not to be."""
        self._front.counts.cut_short += 1
        self._client.cut()
        return False

    async def _tunnel(self, backend: Backend) -> None:
        config = self._front.config
        self._front.counts.tunnels += 1
        try:
            await tunnel(self._client, backend, config.tunnel_idle_s, config.stall_timeout_s)
        finally:
            self._front.counts.tunnels -= 1
            backend.close()

    async def _moved(self, view: SiteView) -> bool:
        """Whether the site has another container meanwhile. Thaws one that was frozen just when this request came."""
        try:
            now = await self._front.sites.wake(view.key, 0.0)
        except (NodeError, SchedulerError):
            return False  # the exchange goes on all the same, and tells if it fails
        moved = now.phase is SitePhase.AWAKE and place_of(now) != place_of(view)
        self._elsewhere = now if moved else self._elsewhere
        return moved

    async def _reach(self, view: SiteView, *, fresh: bool) -> tuple[Backend, SiteView]:
        """Return a connection to the site, and the site as it is by then, waiting as for one that starts; Refused."""
        config = self._front.config
        began_s = trio.current_time()
        until_s, held_until_s = began_s + config.connect_timeout_s, began_s + config.hold_s
        while True:
            backend = None if fresh else self._front.backends.kept(place_of(view))
            if backend is not None:
                return backend, view
            before = place_of(view)
            try:
                left_s = max(CONNECT_PAUSE_S, until_s - trio.current_time())
                return await connect(before, min(CONNECT_TRY_S, left_s)), view
            except OSError as error:
                why = f"{host_and_port(view)} takes no connections: {error.strerror or error}"
            await trio.sleep(CONNECT_PAUSE_S)
            if trio.current_time() >= until_s:
                view = await self._front.awaking.unready(view, why)
                until_s = held_until_s
            if not view.settled or view.phase is SitePhase.AWAKE:
                view = await self._front.awaking.again(view, max(0.0, held_until_s - trio.current_time()))
            if view.phase is not SitePhase.AWAKE:
                raise not_awake(view)
            if place_of(view) != before:
                until_s = trio.current_time() + config.connect_timeout_s
            elif trio.current_time() >= held_until_s:
                raise Refused(503, "unreachable", f"site {view.key} can't be reached: {why}", retry_s=STARTING_RETRY_S)
