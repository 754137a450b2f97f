"""The keeper's side: what this node's machine wants done for the sites it keeps, and what doors ask of it.

Adds to the machine what it may not know: who waits for a site, which doors know it (and are told when it changes),
containers on other nodes, and the others that might keep a site which is new here. Every call may come twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable

import msgspec
import trio

from node import logs
from node.door import calls
from node.door.calls import Answer, Change, encode
from node.door.probing import answers
from node.effects import Effects
from node.errors import NodeError, PeerRefused
from node.peers import Peers
from scheduler.errors import SchedulerError, UnknownSite
from scheduler.events import (
    Action,
    FreezeTask,
    ProbeSite,
    SiteChanged,
    SiteDropped,
    SiteMoved,
    SiteReady,
    SitesElsewhere,
    SiteSlept,
    SiteUnready,
    SiteUsed,
    SiteWanted,
    TaskFrozen,
    TaskThawed,
    ThawTask,
)
from scheduler.model import JobSpec
from scheduler.sites.claims import Claim, Claims
from scheduler.sites.kept import UP
from scheduler.sites.site import Site, SitePhase, SiteView

INTEREST_S = 90.0
"""A door that asked for a site is told its changes for so long; it forgets what it knows earlier than that."""
INTERESTS_MAX = 20_000
"""Of one door; beyond it those that ended are forgotten."""
WHO_TIMEOUT_S = 1.0
CALL_TIMEOUT_S = 5.0
TELL_TRIES_MAX = 3
THAW_TRIES_MAX = 40
RETRY_S = 0.25

log = logs.get("sites")


class Keeping:
    """The sites that one node keeps. `complete` makes a spec one that the machine takes (image, secrets).

    `copy` sees to it that an image which a site runs on at a node is had elsewhere, too.
    """

    def __init__(
        self,
        effects: Effects,
        peers: Peers,
        complete: Callable[[str, JobSpec], Awaitable[JobSpec]],
        set_frozen: Callable[[str, bool], Awaitable[None]],
        nursery: trio.Nursery,
        probe: Callable[[str, int, str, float], Awaitable[str]] = answers,
        copy: Callable[[str, str], None] = lambda image, node: None,
    ) -> None:
        self._copy = copy
        self._probe_at = probe
        self._effects = effects
        self._machine = effects.machine
        self._me = peers.name
        self._peers = peers
        self._complete = complete
        self._set_frozen = set_frozen
        self._nursery = nursery
        self._claims = Claims(self._me)
        self._taking: dict[str, trio.Event] = {}
        self._waiters: dict[str, set[trio.Event]] = defaultdict(set)
        self._interest: dict[str, dict[str, float]] = defaultdict(dict)
        self._untold: dict[str, set[str]] = {}
        for method, handler in (
            (calls.WANT, self._on_want),
            (calls.WAKE, self._on_wake),
            (calls.SHOW, self._on_show),
            (calls.SLEEP, self._on_sleep),
            (calls.DROP, self._on_drop),
            (calls.FIND, self._on_find),
            (calls.WHO, self._on_who),
            (calls.LIST, self._on_list),
            (calls.USED, self._on_used),
            (calls.UNREADY, self._on_unready),
            (calls.MOVE, self._on_move),
            (calls.COMPARE, self._on_compare),
            (calls.FREEZE, self._on_freeze),
        ):
            peers.register(method, handler)

    # --- what the machine wants done

    def perform(self, action: Action) -> bool:
        """Carry out an action if it is about sites; everything slow goes on in the background."""
        match action:
            case ProbeSite():
                self._nursery.start_soon(self._probe, action)
            case FreezeTask():
                self._nursery.start_soon(self._freeze, action)
            case ThawTask():
                self._nursery.start_soon(self._thaw, action)
            case SiteMoved():
                self._nursery.start_soon(self._move, action)
            case SiteChanged():
                self._changed(action)
            case _:
                return False
        return True

    async def _probe(self, action: ProbeSite) -> None:
        why = await self._probe_at(action.address, action.port, action.path, action.ready_s)
        if why:
            log.warning("a site's container does not answer", site=action.key, container=str(action.id), why=why)
            self._effects.post(SiteUnready(action.key, why, action.id))
        else:
            self._effects.post(SiteReady(action.key, action.id))

    async def _freeze(self, action: FreezeTask) -> None:
        """Unless its node says that it can't, the container may be frozen: thawing one that is not does no harm."""
        worked = True
        try:
            await self._order(action.node, str(action.id), frozen=True)
        except PeerRefused as error:
            log.warning("a site's container can't be frozen", site=action.key, why=error.why)
            worked = False
        except NodeError as error:
            log.debug("nobody knows whether a container is frozen", site=action.key, why=str(error))
        self._effects.post(TaskFrozen(action.key, action.id.job, worked))

    async def _thaw(self, action: ThawTask) -> None:
        """Until its node says that it goes on or can't: one that is gone is told to its home."""
        for _ in range(THAW_TRIES_MAX):
            try:
                await self._order(action.node, str(action.id), frozen=False)
                break
            except PeerRefused:
                break
            except NodeError:
                await trio.sleep(RETRY_S)
        self._effects.post(TaskThawed(action.key, action.id.job))

    async def _order(self, node: str, container: str, *, frozen: bool) -> None:
        order = encode(calls.Freeze(container, frozen))
        await self._peers.call(node, calls.FREEZE, order, CALL_TIMEOUT_S)

    async def _move(self, action: SiteMoved) -> None:
        try:
            await self._peers.call(action.keeper, calls.MOVE, encode(action.site), CALL_TIMEOUT_S)
        except NodeError as error:
            log.debug("a site stays for now", site=action.site.key, keeper=action.keeper, why=str(error))
        else:
            self._effects.post(SiteDropped(action.site.key, moved=True))

    # --- who waits, who is told

    def _changed(self, change: SiteChanged) -> None:
        for waiter in list(self._waiters.get(change.key, ())):
            waiter.set()
        now, view = trio.current_time(), self._view(change.key)
        if view is not None and view.phase is SitePhase.AWAKE:
            self._copy(self._machine.site_spec(change.key).spec.image_digest, view.node)
        for door in self._machine.keepers() if change.everywhere else list(self._interest):
            known = self._interest[door]
            if change.everywhere or known.get(change.key, 0.0) > now:
                self._tell_soon(door, change.key)
            else:
                known.pop(change.key, None)

    def _tell_soon(self, door: str, key: str) -> None:
        if door in self._untold:
            self._untold[door].add(key)
        else:
            self._untold[door] = {key}
            self._nursery.start_soon(self._tell, door)

    async def _tell(self, door: str) -> None:
        """One call at a time to each door, each with what is true when it is made: so none overtakes another."""
        tries = 0
        while keys := sorted(self._untold[door])[: calls.ENTRIES_MAX]:
            self._untold[door].difference_update(keys)
            changes = [Change(key, self._view(key)) for key in keys]
            try:
                await self._peers.call(door, calls.CHANGED, encode(changes), CALL_TIMEOUT_S)
            except NodeError as error:
                tries += 1
                if tries < TELL_TRIES_MAX:
                    self._untold[door].update(keys)
                    await trio.sleep(RETRY_S)
                else:
                    log.debug("a door was not told of sites", door=door, sites=len(keys), why=str(error))
            else:
                tries = 0
        del self._untold[door]

    def _view(self, key: str) -> SiteView | None:
        return self._machine.site(key, trio.current_time()) if self._machine.keeps(key) else None

    def _known_by(self, door: str, keys: Iterable[str]) -> None:
        now, known = trio.current_time(), self._interest[door]
        known.update(dict.fromkeys(keys, now + INTEREST_S))
        if len(known) > INTERESTS_MAX:
            self._interest[door] = {key: until_s for key, until_s in known.items() if until_s > now}

    async def _settled(self, key: str, wait_s: float) -> SiteView:
        """Return a site once it is awake or there is nothing to wait for, else as it is after a while; UnknownSite."""
        view = self._machine.site(key, trio.current_time())
        with trio.move_on_after(wait_s):
            while not view.settled:
                await self._next_change(key)
                view = self._machine.site(key, trio.current_time())
        return self._machine.site(key, trio.current_time())

    async def _next_change(self, key: str) -> None:
        changed = trio.Event()
        waiters = self._waiters[key]
        waiters.add(changed)
        try:
            await changed.wait()
        finally:
            waiters.discard(changed)
            if not waiters:
                self._waiters.pop(key, None)

    # --- what doors ask

    async def _on_want(self, door: str, payload: bytes) -> bytes:
        wanted = calls.read_wanted(payload)
        self._known_by(door, [wanted.site.key])
        try:
            elsewhere = await self._wanted(wanted.site)
            answer = Answer(elsewhere=elsewhere) if elsewhere else await self._answer(wanted.site.key, wanted.wait_s)
        except (SchedulerError, NodeError) as error:
            answer = calls.refusal(error)
        return encode(answer)

    async def _wanted(self, site: Site) -> str:
        """Have the machine give a site; return who keeps it, if that is another node."""
        while site.key in self._taking:
            await self._taking[site.key].wait()
        if self._machine.keeps(site.key):
            await self._effects.ask(SiteWanted(await self._completed(site)))
            return ""
        taken = self._taking[site.key] = trio.Event()
        self._claims.begin(site.key)
        try:
            site = await self._completed(site)
            keeper = self._claims.settle(site.key, await self._ask_around(site.key))
            if keeper != self._me:
                return keeper
            await self._effects.ask(SiteWanted(site))
            return ""
        finally:
            self._claims.end(site.key)
            del self._taking[site.key]
            taken.set()

    async def _completed(self, site: Site) -> Site:
        """Resolve the image when a container is to be started, and not for each request to one that is there."""
        if self._machine.keeps(site.key):
            known, phase = self._machine.site_spec(site.key), self._machine.site(site.key, 0.0).phase
            spec = msgspec.structs.replace(site.spec, image_digest=known.spec.image_digest)
            if phase in UP and spec == known.spec:
                return msgspec.structs.replace(site, spec=spec)
        return msgspec.structs.replace(site, spec=await self._complete(site.owner, site.spec))

    async def _ask_around(self, key: str) -> dict[str, Claim]:
        """Ask all others whether they keep a site that is new here; who does not answer does not count."""
        claims: dict[str, Claim] = {}

        async def ask(node: str) -> None:
            try:
                claims[node] = calls.read_claim(await self._peers.call(node, calls.WHO, encode(key), WHO_TIMEOUT_S))
            except NodeError as error:
                log.debug("a node does not say what it keeps", node=node, why=str(error))

        async with trio.open_nursery() as nursery:
            for node in self._machine.keepers():
                if node != self._me:
                    nursery.start_soon(ask, node)
        return claims

    async def _answer(self, key: str, wait_s: float) -> Answer:
        try:
            return Answer(await self._settled(key, wait_s))
        except UnknownSite as error:  # dropped meanwhile
            return calls.refusal(error)

    async def _on_wake(self, door: str, payload: bytes) -> bytes:
        named = calls.read_named(payload)
        self._known_by(door, [named.key])
        try:
            if self._machine.site(named.key, 0.0).phase is not SitePhase.AWAKE:
                site = self._machine.site_spec(named.key)
                await self._effects.ask(SiteWanted(await self._completed(site)))
        except (SchedulerError, NodeError) as error:
            return encode(calls.refusal(error))
        return encode(await self._answer(named.key, named.wait_s))

    async def _on_show(self, door: str, payload: bytes) -> bytes:
        named = calls.read_named(payload)
        return encode(await self._answer(named.key, 0.0))

    async def _on_sleep(self, door: str, payload: bytes) -> bytes:
        named = calls.read_named(payload)
        try:
            await self._effects.ask(SiteSlept(named.key))
        except SchedulerError as error:
            return encode(calls.refusal(error))
        return encode(await self._answer(named.key, 0.0))

    async def _on_drop(self, door: str, payload: bytes) -> bytes:
        named = calls.read_named(payload)
        try:
            view = self._machine.site(named.key, trio.current_time())
            await self._effects.ask(SiteDropped(named.key))
        except SchedulerError as error:
            return encode(calls.refusal(error))
        return encode(Answer(view))

    async def _on_find(self, door: str, payload: bytes) -> bytes:
        views = self._machine.sites_answering(calls.read_text(payload), trio.current_time())
        self._known_by(door, [view.key for view in views])
        return encode(views)

    async def _on_who(self, node: str, payload: bytes) -> bytes:
        key = calls.read_text(payload)
        return encode(Claim.KEPT if self._machine.keeps(key) else self._claims.asked(key, node))

    async def _on_list(self, node: str, payload: bytes) -> bytes:
        owner = calls.read_text(payload)
        return encode([view for view in self._machine.sites(trio.current_time()) if owner in ("", view.owner)])

    async def _on_used(self, door: str, payload: bytes) -> bytes:
        uses = calls.read_uses(payload)
        self._known_by(door, [use.key for use in uses if self._machine.keeps(use.key)])
        for use in uses:
            self._effects.post(SiteUsed(use.key, "" if use.busy_s else door, use.open, use.age_s, use.busy_s))
        return b""

    async def _on_unready(self, door: str, payload: bytes) -> bytes:
        named = calls.read_named(payload)
        self._known_by(door, [named.key])
        log.info("a door finds nobody at a site's address", site=named.key, door=door, why=named.why)
        self._effects.post(SiteUnready(named.key, named.why))
        return encode(await self._answer(named.key, 0.0))

    # --- what other keepers ask

    async def _on_move(self, keeper: str, payload: bytes) -> bytes:
        site = calls.read_site(payload)
        if not self._machine.keeps(site.key):
            await self._refusing(self._effects.ask(SiteWanted(site, wake=False)))
        return b""

    async def _on_compare(self, keeper: str, payload: bytes) -> bytes:
        both = await self._effects.ask(SitesElsewhere(keeper, calls.read_keepings(payload)))
        return encode(both)

    async def compare(self, node: str) -> None:
        """Find out with a node that appeared what both keep, so that one of the two gives it up."""
        mine = self._machine.keepings()
        for start in range(0, len(mine), calls.ENTRIES_MAX):
            batch = encode(mine[start : start + calls.ENTRIES_MAX])
            try:
                both = calls.read_keepings(await self._peers.call(node, calls.COMPARE, batch, CALL_TIMEOUT_S))
            except NodeError as error:
                log.warning("a node does not say what it keeps", node=node, why=str(error))
                return
            if both:
                log.info("two nodes keep sites; one gives them up", other=node, sites=len(both))
                self._effects.post(SitesElsewhere(node, both))

    async def _on_freeze(self, keeper: str, payload: bytes) -> bytes:
        order = calls.read_freeze(payload)
        await self._set_frozen(order.container, order.frozen)
        return b""

    # --- inside

    @staticmethod
    async def _refusing(asked: Awaitable[object]) -> None:
        try:
            await asked
        except SchedulerError as error:
            raise calls.raised(calls.refusal(error)) from None
