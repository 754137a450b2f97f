"""From a request to an awake site: by a front end's wish, or by its host; held while the container starts.

Owns how long a request waits, and what is said where it waits in vain. Knows the sites by their interface alone.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

import trio

from node.door.building import build
from node.door.catalogue import Catalogue
from node.door.config import Door
from node.door.http.choosing import Chooser, instance_of
from node.door.http.fields import Sender
from node.door.http.head import Request
from node.door.http.own_answers import from_browser
from node.door.http.places import Places
from node.door.http.refusals import Refused, from_error, malformed
from node.door.sites import Sites
from node.door.wish import HEADERS, from_headers, has_wish, host_of, is_host
from node.errors import NodeError, PeerUnreachable
from scheduler.errors import SchedulerError
from scheduler.sites.site import Site, SitePhase, SiteView

WISHES_MAX = 1_000
STARTING_RETRY_S = 2.0
HOPELESS_RETRY_S = 30.0
ASK_AGAIN_S = 0.25


Ask = Callable[[float], Awaitable[SiteView]]
"""Asks for one site, and waits so many seconds for it to be awake."""

Hold = Callable[[Callable[[], Awaitable[SiteView]]], Awaitable[SiteView]]
"""Awaits something that may take long, as long as the client is there."""


class Awake(NamedTuple):
    """A site that is awake; `cold_ms` is what the request waited for that, None where it did not."""

    view: SiteView
    cold_ms: float | None


class Awaking:
    """Finds and wakes sites for requests. `waiting` bounds how many are held."""

    def __init__(self, config: Door, sites: Sites, catalogue: Catalogue) -> None:
        self._hold_s, self._browser_hold_s = config.hold_s, min(config.hold_s, config.browser_hold_s)
        self._sites = sites
        self._catalogue = catalogue
        self._chooser = Chooser()
        self._built: OrderedDict[tuple[str, ...], Site] = OrderedDict()
        self.waiting = Places(
            "requests wait", "door.waiting_max", config.waiting_max, "door.site_waiting_max", config.site_waiting_max
        )

    async def site(self, request: Request, sender: Sender, hold: Hold) -> Awake:
        """Return the awake site a request is for; Refused where there is none, or not in time."""
        try:
            return await self._site(request, sender, hold)
        except (NodeError, SchedulerError) as error:
            raise from_error(error) from None

    async def again(self, view: SiteView, wait_s: float) -> SiteView:
        """Ask the keeper anew about a site nobody answers for; Refused."""
        try:
            view = await self._sites.wake(view.key, wait_s)
        except (NodeError, SchedulerError) as error:
            raise from_error(error) from None
        return view

    async def unready(self, view: SiteView, why: str) -> SiteView:
        """Tell the keeper that nobody answers at an awake site's address; return what it is now. Refused."""
        try:
            return await self._sites.unready(view.key, view.keeper, why)
        except (NodeError, SchedulerError) as error:
            raise from_error(error) from None

    async def _site(self, request: Request, sender: Sender, hold: Hold) -> Awake:
        began_s = trio.current_time()
        until_s = began_s + (self._browser_hold_s if from_browser(request) else self._hold_s)
        key, ask = await self._asking(request, sender)
        slept = self._sites.remembered(key) not in (None, SitePhase.AWAKE)
        view = await _patiently(ask, 0.0, until_s)
        if view.phase is SitePhase.AWAKE:  # maybe because it was thawed at once
            return Awake(view, (trio.current_time() - began_s) * 1000 if slept else None)
        view = await hold(partial(self._held, view, ask, until_s))
        if view.phase is not SitePhase.AWAKE:
            raise not_awake(view)
        return Awake(view, (trio.current_time() - began_s) * 1000)

    async def _held(self, view: SiteView, ask: Ask, until_s: float) -> SiteView:
        """Wait until a site is settled, or the time is up."""
        with self.waiting.taken(view.key):
            while not view.settled:
                left_s = until_s - trio.current_time()
                if left_s <= 0:
                    break
                asked_s = trio.current_time()
                view = await _patiently(ask, left_s, until_s)
                if view.phase is not SitePhase.AWAKE and trio.current_time() - asked_s < ASK_AGAIN_S:
                    await trio.sleep(min(ASK_AGAIN_S, left_s))
        return view

    async def _asking(self, request: Request, sender: Sender) -> tuple[str, Ask]:
        """Return the key of a request's site, and how to ask for it: the question takes how long to wait."""
        host = host_of(request.host)
        if sender.front_end:
            wishes = _wishes(request)
            if has_wish(wishes):
                site = self._wanted(wishes, host)
                return site.key, lambda wait_s: self._sites.want(site, wait_s)
            return await self._by_host(host, wishes.get("x-instance", ""))
        return await self._by_host(host, "")

    async def _by_host(self, host: str, instance: str) -> tuple[str, Ask]:
        views = await self._sites.find(host) if is_host(host) else ()
        if instance:
            views = tuple(view for view in views if instance_of(view.key) == instance)
        if not views:
            raise _unknown(host, instance)
        chosen = self._chooser.choose(host, views)

        async def ask(wait_s: float) -> SiteView:
            if not wait_s and chosen.phase is SitePhase.AWAKE:
                return chosen
            return await self._sites.wake(chosen.key, wait_s)

        return chosen.key, ask

    def _wanted(self, wishes: dict[str, str], host: str) -> Site:
        """Return the site of a wish; front ends send the same ones over and over."""
        known = (host, *(part for pair in sorted(wishes.items()) for part in pair))
        site = self._built.get(known)
        if site is None:
            site = self._built[known] = build(from_headers(wishes), self._catalogue, host=host, field="X-Application")
            if len(self._built) > WISHES_MAX:
                self._built.popitem(last=False)
        return site


async def _patiently(ask: Ask, wait_s: float, until_s: float) -> SiteView:
    """Ask, and ask again while the keeper can't be reached: when it is known to be gone, another one takes over."""
    while True:
        try:
            return await ask(wait_s)
        except PeerUnreachable:
            if trio.current_time() + ASK_AGAIN_S >= until_s:
                raise
        await trio.sleep(ASK_AGAIN_S)


def _wishes(request: Request) -> dict[str, str]:
    """Return the fields of a wish; one that is said twice could mean either."""
    found: dict[str, str] = {}
    for key, name, value in request.fields:
        if key in HEADERS:
            if key in found:
                raise malformed(f"{name} is there twice")
            found[key] = value
    return found


def not_awake(view: SiteView) -> Refused:
    """Return what to say of a site that can't be reached now."""
    retry_s = view.retry_s or STARTING_RETRY_S
    reason = f": {view.reason}" if view.reason else ""
    if view.phase is SitePhase.BROKEN:
        detail = f"site {view.key} does not come up{reason}; the next try is in {math.ceil(retry_s)} s"
        return Refused(503, "broken", detail, retry_s=retry_s)
    if view.failing:
        return Refused(
            503, "failing", f"site {view.key} does not come up so far{reason}; it is tried on", retry_s=retry_s
        )
    if view.hopeless:
        return Refused(503, "no-room", f"site {view.key} fits on no node{reason}", retry_s=HOPELESS_RETRY_S)
    return Refused(503, "starting", f"site {view.key} is {view.phase.value}{reason}", retry_s=retry_s)


def _unknown(host: str, instance: str) -> Refused:
    which = f" with instance {instance}" if instance else ""
    return Refused(
        404,
        "unknown-host",
        f"no site{which} answers for {host} here. A front end makes one by sending X-Backend, X-User and X-Application "
        "with a request, an operator with POST /v1/sites (docs/door.md); check also that the host is spelled right",
    )
