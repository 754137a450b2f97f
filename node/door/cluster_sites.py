"""The door's side: all sites of the cluster as one node sees them, from memory where that is true enough.

What is remembered of a site is told by its keeper as it changes, and forgotten after a while in case a word was lost;
what is remembered of a host name (which sites answer for it) is asked of all keepers anew then. A keeper that is gone
is forgotten with all it kept: the next request finds, or makes, its sites elsewhere.
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import trio

from node import logs
from node.door import calls
from node.door.calls import Answer, Change, Named, Use, Wanted, encode
from node.errors import Busy, NodeError, PeerError, PeerUnreachable, UnknownSite
from node.peers import Peers
from node.turns import Turns
from scheduler.sites.hashing import keeper_of
from scheduler.sites.site import Site, SitePhase, SiteView
from scheduler.spec.networking import Publish

KNOWN_S = 60.0
"""Less than what keepers remember doors for (keeping.INTEREST_S)."""
FOUND_S, FOUND_NOTHING_S, FOUND_PARTLY_S = 30.0, 2.0, 0.5
VIEWS_MAX, HOSTS_MAX = 50_000, 50_000
FIND_TIMEOUT_S = 2.0
CALL_TIMEOUT_S = 5.0
POLL_S_MAX = 20.0
RETRY_S = 0.1
WAITING_AT_ONE_KEEPER_MAX = 128
FINDING_MAX = 64
WISHES_MAX = 8
"""Remembered of one site: front ends say the same things, but for the host that was asked for."""
USED_INTERVAL_S = 0.5
USED_ANEW_S = 30.0
HOPS_MAX = 4

log = logs.get("sites")


@dataclass(slots=True)
class _Known:
    """A site by its keeper's word, until when that is believed, and the wishes for it that changed nothing about it."""

    view: SiteView
    until_s: float
    wishes: tuple[Site, ...] = ()


@dataclass(slots=True)
class _Found:
    keys: set[str]
    until_s: float


@dataclass(slots=True)
class _Used:
    open: int = 0
    used_s: float = 0.0
    told_s: float = -math.inf


class ClusterSites:
    """Implements node.door.sites.Sites, and what the API asks besides. `keepers`: the nodes that may keep sites by now.

    `published`: containers' own addresses mean nothing to other nodes, so their ports are published.
    """

    def __init__(
        self, peers: Peers, keepers: Callable[[], list[str]], nursery: trio.Nursery, *, published: bool = False
    ) -> None:
        self._peers = peers
        self._me = peers.name
        self._keepers = keepers
        self._nursery = nursery
        self._published = published
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._found: OrderedDict[str, _Found] = OrderedDict()
        self._turns = Turns()
        self._asking: dict[str, set[trio.CancelScope]] = defaultdict(set)
        self._waiting: dict[str, trio.CapacityLimiter] = {}
        self._finding = trio.CapacityLimiter(FINDING_MAX)
        self._used: dict[tuple[str, str], _Used] = {}
        self._unsaid: set[tuple[str, str]] = set()
        self._say = trio.Event()
        peers.register(calls.CHANGED, self._on_changed)

    async def run(self) -> None:
        """Tell keepers how their sites are used, until cancelled."""
        while True:
            with trio.move_on_after(USED_ANEW_S):
                await self._say.wait()
            self._say = trio.Event()
            await self._tell_used()
            await trio.sleep(USED_INTERVAL_S)

    # --- the interface of the door

    async def want(self, site: Site, wait_s: float) -> SiteView:
        """Create a site or change it, and wake it, at its keeper; see node.door.sites."""
        site = self._reachable(site)
        if (known := self._as_wished(site)) is not None:
            return known
        deadline_s = trio.current_time() + wait_s
        async with self._turns.take(site.key, deadline_s):
            if (known := self._as_wished(site)) is not None:
                return known
            view = await self._until_settled(site.key, deadline_s, lambda s: (calls.WANT, encode(Wanted(site, s))))
            self._learn(view, site)
            return view

    async def wake(self, key: str, wait_s: float) -> SiteView:
        """Wake a site that is known already; UnknownSite."""
        deadline_s = trio.current_time() + wait_s
        async with self._turns.take(key, deadline_s):
            known = self._fresh(key)
            if known is not None and known.view.phase is SitePhase.AWAKE:
                return known.view
            return await self._until_settled(key, deadline_s, lambda s: (calls.WAKE, encode(Named(key, s))))

    async def find(self, host: str) -> tuple[SiteView, ...]:
        """Return every site that answers for a host name."""
        found = self._found.get(host)
        if found is None or found.until_s <= trio.current_time():
            async with self._finding, self._turns.take(f"host {host}"):
                found = self._found.get(host)
                if found is None or found.until_s <= trio.current_time():
                    found = await self._find(host)
        views = [known.view for key in sorted(found.keys) if (known := self._known.get(key)) is not None]
        return tuple(views)

    def remembered(self, key: str) -> SitePhase | None:
        """Return the phase of a site by what is remembered here."""
        known = self._known.get(key)
        return known.view.phase if known is not None else None

    def began(self, key: str, keeper: str) -> None:
        """Count a connection or request for a site."""
        used = self._used.setdefault((key, keeper), _Used())
        used.open += 1
        self._note(key, keeper, used)

    def ended(self, key: str, keeper: str) -> None:
        """Count one less."""
        used = self._used.get((key, keeper))
        if used is not None and used.open:
            used.open -= 1
            self._note(key, keeper, used)

    async def unready(self, key: str, keeper: str, why: str) -> SiteView:
        """Tell the keeper that nobody answers at the site's address; return what it is now."""
        self._known.pop(key, None)
        return self._take(await self._ask(keeper, calls.UNREADY, encode(Named(key, 0.0, why)), CALL_TIMEOUT_S))

    # --- what the API asks besides

    async def all_of(self, owner: str) -> tuple[list[SiteView], list[str]]:
        """Return the sites of a user ("": of all) by key, and the nodes that did not say what they keep."""
        answers, silent = await self._ask_all(calls.LIST, encode(owner))
        views = {view.key: view for answer in answers.values() for view in calls.read_views(answer)}
        return [views[key] for key in sorted(views)], silent

    async def show(self, key: str) -> SiteView:
        """Return a site as its keeper sees it now; UnknownSite."""
        return await self._at_keeper(key, lambda: (calls.SHOW, encode(Named(key))))

    async def sleep(self, key: str) -> SiteView:
        """End a site's container; UnknownSite, NotNow."""
        return await self._at_keeper(key, lambda: (calls.SLEEP, encode(Named(key))))

    async def drop(self, key: str) -> SiteView:
        """Remove a site, return what it was; UnknownSite."""
        view = await self._at_keeper(key, lambda: (calls.DROP, encode(Named(key))))
        self._forget(key)
        return view

    async def busy(self, key: str, for_s: float) -> SiteView:
        """Count a site as used for so long; UnknownSite."""
        view = await self.show(key)
        await self._call(view.keeper, calls.USED, encode([Use(key, 0, 0.0, for_s)]), CALL_TIMEOUT_S)
        return view

    # --- members

    def on_gone(self, node: str) -> None:
        """A host is gone, and its containers with it."""
        for key in [key for key, known in self._known.items() if known.view.node == node]:
            self._forget(key)
        self.on_away(node)

    def on_away(self, node: str) -> None:
        """An agent is gone: nobody waits for its answers. Containers go on, so awake sites that it kept answer."""
        for key, known in list(self._known.items()):
            if known.view.keeper == node and known.view.phase is not SitePhase.AWAKE:
                self._forget(key)
        for each in self._found.values():
            each.until_s = 0.0
        for scope in self._asking.pop(node, ()):
            scope.cancel()

    # --- asking keepers

    async def _until_settled(
        self, key: str, deadline_s: float, order: Callable[[float], tuple[str, bytes]]
    ) -> SiteView:
        """Ask the keeper, and who it names, again and again until the site is settled, or time is over."""
        target, hops, located = self._keeper_known(key), 0, False
        while True:
            wait_s = min(max(0.0, deadline_s - trio.current_time()), POLL_S_MAX)
            method, payload = order(wait_s)
            try:
                if target is None:
                    target, located = await self._keeper(key, method), True
                async with self._room_at(target):
                    answer = await self._ask(target, method, payload, wait_s + CALL_TIMEOUT_S)
            except (PeerError, Busy):
                if deadline_s - trio.current_time() <= RETRY_S:
                    raise
                target, hops = None, 0
                await trio.sleep(RETRY_S)
                continue
            if answer.elsewhere and hops < HOPS_MAX:
                target, hops = answer.elsewhere, hops + 1
                continue
            if answer.refusal == calls.UNKNOWN and not located:
                self._forget(key)
                target = None
                continue
            view = self._take(answer)
            if view.settled or trio.current_time() >= deadline_s:
                return view
            target = view.keeper

    async def _keeper(self, key: str, method: str) -> str:
        """Return whom to ask: for a site that may be new the one that should keep it."""
        return keeper_of(key, self._keepers()) if method == calls.WANT else await self._locate(key)

    async def _at_keeper(self, key: str, order: Callable[[], tuple[str, bytes]]) -> SiteView:
        """Ask the keeper of a site, looked for among all if it is not known or no more the one."""
        target = self._keeper_known(key)
        if target is not None:
            try:
                return self._take(await self._ask(target, *order(), CALL_TIMEOUT_S))
            except (UnknownSite, PeerError):
                self._forget(key)
        return self._take(await self._ask(await self._locate(key), *order(), CALL_TIMEOUT_S))

    async def _locate(self, key: str) -> str:
        """Return who keeps a site; UnknownSite, or PeerUnreachable where somebody who might could not be asked."""
        likely = keeper_of(key, self._keepers())
        missing: list[str] = []
        for nodes in ([likely], [node for node in self._keepers() if node != likely]):
            answers, silent = await self._ask_all(calls.SHOW, encode(Named(key)), nodes)
            missing += silent
            for node, answer in sorted(answers.items()):
                if calls.read_answer(answer).view is not None:
                    return node
        if missing:
            raise PeerUnreachable(missing[0], f"it does not say whether it keeps site {key}")
        raise UnknownSite(f"no site {key}")

    async def _find(self, host: str) -> _Found:
        answers, silent = await self._ask_all(calls.FIND, encode(host))
        views = [view for answer in answers.values() for view in calls.read_views(answer)]
        for view in views:
            self._learn(view)
        views += self._orphans(host)
        life_s = FOUND_PARTLY_S if silent else FOUND_S if views else FOUND_NOTHING_S
        found = self._found[host] = _Found({view.key for view in views}, trio.current_time() + life_s)
        self._found.move_to_end(host)
        if len(self._found) > HOSTS_MAX:
            self._found.popitem(last=False)
        return found

    def _orphans(self, host: str) -> list[SiteView]:
        """Return the sites whose keeper is away while their containers go on: they answer, whoever keeps them."""
        found, keepers = self._found.get(host), set(self._keepers())
        views = [self._known[key].view for key in found.keys if key in self._known] if found is not None else []
        return [view for view in views if view.keeper not in keepers and view.phase is SitePhase.AWAKE]

    async def _ask_all(
        self, method: str, payload: bytes, nodes: list[str] | None = None
    ) -> tuple[dict[str, bytes], list[str]]:
        """Ask several keepers (all) at once; return answers by node, and who gave none."""
        nodes = self._keepers() if nodes is None else nodes
        answers: dict[str, bytes] = {}

        async def ask(node: str) -> None:
            try:
                answers[node] = await self._call(node, method, payload, FIND_TIMEOUT_S)
            except NodeError as error:
                log.debug("a keeper does not answer", keeper=node, why=str(error))

        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(ask, node)
        return answers, sorted(set(nodes) - set(answers))

    async def _ask(self, keeper: str, method: str, payload: bytes, timeout_s: float) -> Answer:
        return calls.read_answer(await self._call(keeper, method, payload, timeout_s))

    async def _call(self, node: str, method: str, payload: bytes, timeout_s: float) -> bytes:
        """Call a node; PeerUnreachable also as soon as gossip says that it is away."""
        scope = trio.CancelScope()
        scopes = self._asking[node]
        scopes.add(scope)
        try:
            with scope:
                return await self._peers.call(node, method, payload, timeout_s)
        finally:
            scopes.discard(scope)
        raise PeerUnreachable(node, "it went away meanwhile")

    def _take(self, answer: Answer) -> SiteView:
        if answer.view is None:
            raise calls.raised(answer)
        return self._learn(answer.view)

    def _room_at(self, keeper: str) -> trio.CapacityLimiter:
        """Bound the long polls at one keeper, so that they don't use up what a node may call another with."""
        return self._waiting.setdefault(keeper, trio.CapacityLimiter(WAITING_AT_ONE_KEEPER_MAX))

    # --- what is remembered

    def _fresh(self, key: str) -> _Known | None:
        known = self._known.get(key)
        return known if known is not None and known.until_s > trio.current_time() else None

    def _as_wished(self, site: Site) -> SiteView | None:
        """Return a site that is awake and known to be what a wish says."""
        known = self._fresh(site.key)
        awake = known is not None and known.view.phase is SitePhase.AWAKE and site in known.wishes
        return known.view if known is not None and awake else None

    def _keeper_known(self, key: str) -> str | None:
        known = self._known.get(key)
        return known.view.keeper if known is not None and known.view.keeper in self._keepers() else None

    def _learn(self, view: SiteView, site: Site | None = None) -> SiteView:
        """Remember a site, and return what is known of it by now: an answer may be older than what its keeper told."""
        known, wishes = self._known.get(view.key), (site,) if site is not None else ()
        if known is not None:
            if known.view.keeper == view.keeper and known.view.revision > view.revision and self._fresh(view.key):
                wishes = wishes if view.fingerprint == known.view.fingerprint else ()
                view = known.view
            if view.fingerprint == known.view.fingerprint:  # else somebody wished it to be something else
                wishes = (*(each for each in known.wishes if each not in wishes), *wishes)[-WISHES_MAX:]
            self._unhost(known.view)
        self._known[view.key] = _Known(view, trio.current_time() + KNOWN_S, wishes)
        self._known.move_to_end(view.key)
        for host in view.hosts:
            if host in self._found:
                self._found[host].keys.add(view.key)
        if len(self._known) > VIEWS_MAX:
            self._unhost(self._known.popitem(last=False)[1].view)
        return view

    def _forget(self, key: str) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self._unhost(known.view)

    def _unhost(self, view: SiteView) -> None:
        for host in view.hosts:
            if host in self._found:
                self._found[host].keys.discard(view.key)

    async def _on_changed(self, keeper: str, payload: bytes) -> bytes:
        for change in calls.read_changes(payload):
            self._heed(keeper, change)
        return b""

    def _heed(self, keeper: str, change: Change) -> None:
        """A keeper tells what a site is by now; one that goes to sleep while it is used here is woken again."""
        known = self._known.get(change.key)
        if change.view is None:
            if known is not None and known.view.keeper == keeper:
                self._forget(change.key)
            return
        if known is None and not self._awaited(change.view):
            return
        self._learn(change.view)
        used = self._used.get((change.key, keeper))
        if used is not None and used.open and change.view.phase in (SitePhase.FREEZING, SitePhase.FROZEN):
            self._nursery.start_soon(self._wake_again, change.key)

    def _awaited(self, view: SiteView) -> bool:
        """Whether this door asks, or will answer from memory, for a site it has not known."""
        hosts = any(host in self._found or f"host {host}" in self._turns for host in view.hosts)
        return hosts or view.key in self._turns

    async def _wake_again(self, key: str) -> None:
        try:
            await self.wake(key, CALL_TIMEOUT_S)
        except NodeError as error:
            log.warning("a site sleeps while it is used", site=key, why=str(error))

    # --- use

    def _note(self, key: str, keeper: str, used: _Used) -> None:
        used.used_s = trio.current_time()
        self._unsaid.add((key, keeper))
        self._say.set()

    async def _tell_used(self) -> None:
        """Tell what changed, and what is open once in a while in case its keeper is new."""
        now = trio.current_time()
        anew = [each for each, used in self._used.items() if used.open and now - used.told_s > USED_ANEW_S]
        by_keeper: dict[str, list[str]] = defaultdict(list)
        for key, keeper in self._unsaid | set(anew):
            by_keeper[keeper].append(key)
        self._unsaid.clear()
        async with trio.open_nursery() as nursery:
            for keeper, keys in by_keeper.items():
                for start in range(0, len(keys), calls.ENTRIES_MAX):
                    nursery.start_soon(self._tell_keeper, keeper, keys[start : start + calls.ENTRIES_MAX])

    async def _tell_keeper(self, keeper: str, keys: list[str]) -> None:
        now = trio.current_time()
        uses = []
        for key in keys:
            used = self._used[key, keeper]
            used.told_s = now
            uses.append(Use(key, used.open, 0.0 if used.open else now - used.used_s))
        try:
            await self._call(keeper, calls.USED, encode(uses), CALL_TIMEOUT_S)
        except NodeError as error:
            log.debug("a keeper was not told of use", keeper=keeper, why=str(error))
            if keeper in self._keepers():
                self._unsaid.update((key, keeper) for key in keys)
                self._say.set()
                return
        for key in keys:
            if (key, keeper) not in self._unsaid and not self._used[key, keeper].open:
                del self._used[key, keeper]

    def _reachable(self, site: Site) -> Site:
        """Publish the site's port where its own address would mean nothing to other nodes."""
        networking = site.spec.networking
        if not self._published or any(each.port == site.port for each in networking.publish):
            return site
        networking = msgspec.structs.replace(networking, publish=(*networking.publish, Publish(site.port)))
        return msgspec.structs.replace(site, spec=msgspec.structs.replace(site.spec, networking=networking))
