"""The queue leader: one order for all waiting jobs of all homes, a role that any node can take.

The live node with the lowest number leads, with an epoch above any seen (unique: a multiple of the number of possible
nodes, plus its own number). Everything here is soft: rebuilt from what homes and nodes say, and safety never rests on
it. Homes tell what waits; nodes push a fresh report at every admission and release. Jobs are served in the order of
their rank; the first that could be served but finds no room gets a reservation, kept on nodes by holds, and those
behind it may start where they don't delay it (plan.py has the rule). A job that no node could take even when empty is
set aside, so that it blocks nobody. What was ordered but not answered is a claim on the view (orders.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from scheduler.alarms import Alarms
from scheduler.choice import RUNNERS_UP, by_policy, slipping_past
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.events import Publish
from scheduler.holds import HoldsSaid
from scheduler.horizon import Horizon
from scheduler.index import ClusterView, Node
from scheduler.line import Line, shape_of
from scheduler.messages import (
    Declined,
    Go,
    HoldNoted,
    Leads,
    Muster,
    Preempting,
    Settled,
    Spent,
    Tally,
    TallyHeard,
    Tell,
    Wait,
    WaitHeard,
    encode_gossip,
)
from scheduler.model import JOB_ID_STRIDE
from scheduler.orders import Orders
from scheduler.plan import Plan, Wish
from scheduler.preemption import Preemption
from scheduler.queue import Rank, rank
from scheduler.quotas import QuotasKept
from scheduler.records import put_number
from scheduler.repeat import Repeat
from scheduler.settings import Settings
from scheduler.shares import NOTABLE, Shares

POSITIONS_TOLD = 100
START_MOVED_S = 2.0
"""Homes are not told anew of an expected start that moved by less."""
LOOKS_PER_TRY = 10
"""A pass may skip so many sizes that fit nowhere for each that it tries."""


@dataclass(slots=True)
class Entry:
    """A waiting job. `wanted` reflects the orders up to `go_seen`; `orders` are the newer ones: {go: count}."""

    home: str
    wait: Wait
    wish: Wish
    orders: dict[int, int] = field(default_factory=dict)
    position_told: int = -1
    start_told_s: float = inf

    @property
    def remaining(self) -> int:
        """How many tasks (a gang is one) have neither a place nor an order on its way."""
        return self.wait.wanted - sum(self.orders.values())


class Leader:
    """The machine of the role; does nothing while another node leads."""

    def __init__(
        self,
        config: SchedulerConfig,
        view: ClusterView,
        horizon: Horizon,
        alarms: Alarms,
        number: int,
        settings: Settings,
    ) -> None:
        self._config = config
        self._view = view
        self._alarms = alarms
        self._number = number
        self._entries: dict[int, Entry] = {}
        self._line = Line()
        self._plan = Plan(view, horizon)
        self._aside: dict[int, None] = {}
        self._settings = settings
        self.quotas = QuotasKept(settings)
        self._shares = Shares(settings)
        self._capped: dict[int, str] = {}
        self._quotas_seen = 0
        self._orders = Orders(config, view, alarms)
        self._holds = HoldsSaid(config, view, alarms, self._orders.numbers)
        self.preemption = Preemption(config, view, alarms, settings, self._plan, self._orders)
        self._grown: dict[str, Node] = {}
        self._gos: Repeat[int] = Repeat("gos", config, alarms, view.alive, self._speak_gos, config.quick_retry_s)
        self._clocks: dict[tuple[str, int], float] = {}
        self._unsynced: dict[str, None] = {}
        self._tells: Repeat[int] = Repeat("tells", config, alarms, view.alive, self._speak_tells)
        self._dirty = False
        self._pass_set = self._pass_due = False
        self._shape = self._served = -1
        self._published: tuple[int, int] | None = None
        self.leading = False
        self.epoch = 0
        self.epoch_seen = 0

    @property
    def waiting(self) -> int:
        """How many jobs wait in line; those set aside are not counted, for they hold nobody up."""
        return len(self._entries) - len(self._aside) - len(self._capped)

    def quota_of(self, job_id: int) -> str:
        """Return the quota that has no room for a job, "" if none."""
        return self._capped.get(job_id, "")

    def position(self, job_id: int) -> int:
        """Return a job's place in the line (0: next), or -1 when it is in none."""
        return self._line.position(job_id)

    def _start_s(self, job_id: int) -> float:
        return next((each.window()[0] for each in self._plan.reservations if each.wish.job == job_id), inf)

    def starts_s(self) -> dict[int, float]:
        """Return when each job with a reservation is expected to start; the others can't be told."""
        planned = ((each.wish.job, each.window()[0]) for each in self._plan.reservations)
        return {job_id: due_s for job_id, due_s in planned if due_s < inf}

    def entries(self) -> list[tuple[int, Entry]]:
        """Return the waiting jobs in order, those set aside last."""
        line = [(job_id, self._entries[job_id]) for job_id in self._line.jobs()]
        return line + [pair for pair in self._entries.items() if pair[0] not in self._line]

    # --- taking and giving up the role

    def start(self, fx: Effects) -> None:
        """Called once when the machine starts."""
        self._alarms.set(("elect", None), fx.now + self._config.election_delay_s)

    def on_members(self, fx: Effects) -> None:
        """Membership changed: is the role still (or now) ours?"""
        if self._view.leader != self._view.me:
            self._alarms.cancel(("elect", None))
            if self.leading:
                self._step_down()
        elif not self.leading:
            self._alarms.set_if_unset(("elect", None), fx.now + self._config.election_delay_s)
        self._dirty = True

    def on_home_up(self, fx: Effects, home: str) -> None:
        """A home is (back) in reach: it tells what waits there."""
        if self.leading:
            self._tells.say(home, self.epoch)

    def on_home_away(self, fx: Effects, home: str) -> None:
        """A home is out of reach: its jobs can't be served, so they hold nobody up."""
        self._unsynced.pop(home, None)
        self._gos.forget(home)
        self._tells.forget(home)
        for job_id in [job_id for job_id, entry in self._entries.items() if entry.home == home]:
            self._remove(job_id)
        for key in [key for key in self._clocks if key[0] == home]:
            del self._clocks[key]

    def on_epoch(self, fx: Effects, epoch: int) -> None:
        """An epoch was heard of; while we lead, ours is the highest."""
        self.epoch_seen = max(self.epoch_seen, epoch)
        if self.leading and self.epoch_seen > self.epoch:
            self._reign(fx)

    def ring_elect(self, fx: Effects) -> None:
        """We were the lowest for long enough."""
        if self._view.leader == self._view.me and not self.leading:
            self.leading = True
            self._reign(fx)

    def ring_settle(self, fx: Effects) -> None:
        """Homes that have not told by now are not waited for."""
        self._unsynced.clear()
        self._dirty = True

    def _reign(self, fx: Effects) -> None:
        """Begin (anew) with an epoch above any seen and an empty queue; ask everyone what waits."""
        self._clear()
        self.epoch = (self.epoch_seen // JOB_ID_STRIDE + 1) * JOB_ID_STRIDE + self._number
        self.epoch_seen = self._orders.epoch = self._holds.epoch = self.epoch
        put_number(fx, "epoch", self.epoch)
        self._unsynced = {node.name: None for node in self._view.nodes() if node.alive}
        for home in self._unsynced:
            self._tells.say(home, self.epoch)
        self._alarms.set(("settle", None), fx.now + self._config.settle_s)
        self._published = None

    def _step_down(self) -> None:
        self.leading = False
        self._clear()
        for kind in ("settle", "publish", "holds"):
            self._alarms.cancel((kind, None))

    def _clear(self) -> None:
        self._alarms.cancel(("pass", None))
        self._pass_set = self._pass_due = False
        self._orders.clear()
        self._entries.clear()
        self._line = Line()
        self.preemption.clear()
        self._plan.clear()
        self._grown.clear()
        self._holds.clear()
        self._aside.clear()
        self._capped.clear()
        self.quotas.clear()
        self._shares.clear()
        self._clocks.clear()
        self._unsynced.clear()
        for node in self._view.nodes():
            self._tells.forget(node.name)
            self._gos.forget(node.name)

    # --- what homes and nodes say

    def on_wait(self, fx: Effects, home: str, wait: Wait) -> None:
        """A home's word on one of its jobs; older words than the one known are not believed."""
        if not self.leading or not self._view.alive(home):
            return
        entry = self._entries.get(wait.job)
        if entry is None or (wait.boot_epoch, wait.version) >= (entry.wait.boot_epoch, entry.wait.version):
            if wait.wanted > 0:
                self._enter(fx, home, wait, entry)
            else:
                self._remove(wait.job)
            self._dirty = True
        self._say_heard(fx, home, wait)

    def _say_heard(self, fx: Effects, home: str, wait: Wait) -> None:
        position, quota = self.position(wait.job), self._capped.get(wait.job, "")
        room, start_s = self.preemption.nodes(wait.job), self._start_s(wait.job)
        in_s = max(0.0, start_s - fx.now) if start_s < inf else -1.0
        fx.say(home, WaitHeard(wait.job, wait.boot_epoch, wait.version, position, self.waiting, quota, room, in_s))

    def on_forgotten(self, home: str) -> None:
        """A home is gone for good, and with it what its jobs drew of limits."""
        self.quotas.on_forgotten(home)
        self._dirty = True

    def on_tally(self, fx: Effects, home: str, tally: Tally) -> None:
        """A home's word on what its attempts draw on a quota."""
        if self.leading and self._view.alive(home):
            self.quotas.on_tally(home, tally)
            fx.say(home, TallyHeard(tally.quota, tally.version))
            self._dirty = True

    def on_settings(self) -> None:
        """The cluster's settings changed: limits, and how ranks weigh."""
        self.quotas.version += 1
        self._shares.on_settings()
        self._dirty = True

    def on_told(self, home: str, epoch: int) -> None:
        """A home has told all that waits there."""
        self._tells.answered(home, epoch)
        if self.leading and epoch == self.epoch:
            self._unsynced.pop(home, None)
            self._dirty = True

    def on_declined(self, declined: Declined) -> None:
        """A home had no use for part of an order."""
        if self.leading and declined.epoch == self.epoch:
            self._orders.declined(declined.go, declined.count)
            self._dirty = True

    def on_settled(self, node: str, settled: Settled) -> None:
        """A node answered for part of an order; its report, heard just before, covers what it took."""
        if self.leading and settled.epoch == self.epoch:
            self._orders.answered(settled.go, node, settled.count)
            self._dirty = True

    def ring_order(self, fx: Effects, go: int) -> None:
        """An order had no effect for too long; its tasks and its space are offered again."""
        order = self._orders.drop(go)
        if order is None:
            return
        self._gos.answered(order.home, go)
        entry = self._entries.get(order.job)
        if entry is not None and entry.orders.pop(go, None) is not None:
            self._relist(order.job, entry)
        self._dirty = True

    def on_hold_noted(self, node: str, noted: HoldNoted) -> None:
        """A node knows what it is to hold."""
        self._holds.on_noted(node, noted)

    def ring_holdings(self, fx: Effects, node: str) -> None:
        """Repeat what a node is to hold."""
        self._holds.ring(fx, node)

    def ring_holds(self, fx: Effects) -> None:
        """Holds end unless they are renewed."""
        if self.leading:
            self._holds.renew(fx, self._plan.holds)

    def flush(self, fx: Effects) -> None:
        """At the end of an event: serve the line as far as it goes, and publish how long it is."""
        if not self.leading:
            return
        self._rank_some_anew()
        if not self._unsynced and not self._pass_set:
            self._serve_or_wait(fx)
        if self._shares.stale and not self._pass_set:
            self._set_pass(fx.now)
        self._holds.flush(fx)
        self.preemption.flush(fx)
        self._gos.flush(fx)
        self._tells.flush(fx)
        self._publish(fx)

    def _serve_or_wait(self, fx: Effects) -> None:
        """Serve if anything changed; room that came is waited with for a moment, until all of it is known."""
        changed = self._served != self._view.version
        if changed and self._line and self._config.gather_s > 0 and not self._pass_due:
            self._set_pass(fx.now + self._config.gather_s)
        elif changed or self._dirty:
            self._dirty = False
            self._serve(fx)
            self._served = self._view.version
        self._pass_due = False

    def _set_pass(self, at_s: float) -> None:
        self._pass_set = True
        self._alarms.set(("pass", None), at_s)

    # --- the line

    def _enter(self, fx: Effects, home: str, wait: Wait, entry: Entry | None) -> None:
        # The first word of a home fixes how its clock lies to ours, so that its jobs keep their order among themselves.
        offset_s = self._clocks.setdefault((home, wait.boot_epoch), fx.now - wait.clock_s)
        wish = Wish(wait.job, self._rank(wait, wait.since_s + offset_s), shape_of(wait), wait.images)
        if entry is None:
            entry = self._entries[wait.job] = Entry(home, wait, wish)
        else:
            if entry.wish.shape != wish.shape:  # the job was changed: what was hopeless may not be any more
                self._aside.pop(wait.job, None)
            entry.wait, entry.wish = wait, wish
        if wait.epoch == self.epoch:
            self._seen(entry, wait.go_seen)
            entry.orders = {go: count for go, count in entry.orders.items() if go > wait.go_seen}
        self._shares.enter(wait.account, wait.owner, wait.job)
        self._relist(wait.job, entry)

    def _rank(self, wait: Wait, since_s: float) -> Rank:
        factor = self._shares.factor(wait.account, wait.owner)
        return rank(wait.priority, since_s, wait.job, factor, self._settings.ranking, wait.tier)

    def on_spent(self, home: str, spent: Spent) -> None:
        """A home's word on what was used of late: those whose factor moved get a new rank."""
        if not self.leading or not self._view.alive(home):
            return
        self._shares.on_spent(home, spent.charges)

    def _rank_some_anew(self) -> None:
        notable_s = NOTABLE * self._settings.ranking.share_s
        for job_id in self._shares.take():
            entry = self._entries[job_id]
            old = entry.wish.rank
            new = self._rank(entry.wait, old.since_s)
            if abs(new.score - old.score) > notable_s:
                entry.wish = entry.wish._replace(rank=new)
                self._relist(job_id, entry)
                self._dirty = True

    def _seen(self, entry: Entry, go_seen: int) -> None:
        for go in entry.orders:
            if go <= go_seen:
                self._gos.answered(entry.home, go)

    def _relist(self, job_id: int, entry: Entry) -> None:
        """Put a job in line while some of its tasks have no order; one set aside stays aside, and one capped capped."""
        self.quotas.flight(job_id, entry.wait.draws, sum(entry.orders.values()))
        if entry.remaining <= 0:
            self._line.remove(job_id)
            self._capped.pop(job_id, None)
        elif job_id not in self._aside and job_id not in self._capped:
            self._line.add(job_id, entry.wish.rank, entry.wish.shape)

    def _remove(self, job_id: int) -> None:
        entry = self._entries.pop(job_id, None)
        if entry is not None:
            for go in entry.orders:
                self._gos.answered(entry.home, go)
            self._line.remove(job_id)
            self._shares.leave(entry.wait.account, entry.wait.owner, job_id)
            self._aside.pop(job_id, None)
            self._capped.pop(job_id, None)
            self.preemption.forget(job_id)
            self.quotas.flight(job_id, (), 0)

    def _cap(self, fx: Effects, entry: Entry) -> bool:
        """Take a job whose quotas have no room out of the line, lest it hold others up; return whether it has none."""
        job_id = entry.wish.job
        if not entry.wait.draws or self.quotas.room(entry.wait.draws) > 0:
            return False
        self._capped[job_id] = self.quotas.blocking(entry.wait.draws)
        self._line.remove(job_id)
        self._say_heard(fx, entry.home, entry.wait)
        return True

    def _reconsider_capped(self) -> None:
        """Something was given back, or a limit changed."""
        if self._quotas_seen == self.quotas.version:
            return
        self._quotas_seen = self.quotas.version
        for job_id in list(self._capped):
            entry = self._entries[job_id]
            if self.quotas.room(entry.wait.draws) > 0:
                del self._capped[job_id]
                self._relist(job_id, entry)

    def _set_aside(self, job_id: int) -> None:
        self._aside[job_id] = None
        self._line.remove(job_id)

    def _reconsider_aside(self) -> None:
        """What the cluster could take has changed: so may have what no node could."""
        if self._shape == self._view.shape:
            return
        self._shape = self._view.shape
        for job_id in list(self._aside):
            entry = self._entries[job_id]
            if self._plan.possible(entry.wish.shape):
                del self._aside[job_id]
                self._relist(job_id, entry)

    # --- one pass

    def _serve(self, fx: Effects) -> None:
        """Give orders in rank order until the first job that finds no room; reserve for it; let others slip past."""
        changed, self._view.changed = self._view.changed, {}
        self._grown.update((node.name, node) for node in self._plan.refresh(changed))
        self._reconsider_aside()
        self._reconsider_capped()
        more = self._serve_front(fx)
        if self._config.queue_policy != "fcfs" and not more:
            loosened = self._plan.reserve(fx.now, self._to_reserve())
            if self._make_room(fx):
                loosened = self._plan.reserve(fx.now, self._to_reserve()) or loosened
            grown, self._grown = self._grown, {}
            self._line.heat_what_fits(self._plan.room() if loosened else [node.free for node in grown.values()])
            self._holds.update(fx, self._plan.holds, self._owner_of)
            more = self._backfill(fx)
        if more:
            self._set_pass(fx.now)

    def _serve_front(self, fx: Effects) -> bool:
        """Serve the line in order as far as there is room; return whether the pass has to end before that."""
        budget = self._config.order_batch
        while self._line and budget > 0:
            entry = self._entries[self._line.first(1)[0]]
            if self._cap(fx, entry):
                continue
            reservations = self._plan.reservations
            if reservations and reservations[0].wish == entry.wish and not reservations[0].ready:
                return False
            count = min(entry.remaining, budget, self.quotas.room(entry.wait.draws))
            placed = self._place(fx, entry, self._front_places(fx, entry.wish, count))
            budget -= max(placed, 1)
            if placed < count and not placed and not self._plan.possible(entry.wish.shape):
                self._set_aside(entry.wish.job)
            elif placed < count:
                return False
        return bool(self._line)

    def _front_places(self, fx: Effects, wish: Wish, count: int) -> dict[str, int]:
        """Where the first in line can go: nobody's hold is in its way."""
        if wish.shape.nodes:
            return self._plan.places(wish, 1, fx.now)
        return self._view.place(wish.shape.amount, wish.shape.constraints, count, wish.job, wish.images)

    def _make_room(self, fx: Effects) -> bool:
        """Have lower tiers give way to the first in line; return whether that begins."""
        if not self._plan.reservations:
            return False
        first = self._plan.reservations[0]
        entry = self._entries[first.wish.job]
        begun = self.preemption.consider(fx, first.wish, entry.remaining, first.due_s)
        if begun:
            self._say_heard(fx, entry.home, entry.wait)
        return begun

    def on_preempting(self, fx: Effects, node: str, answer: Preempting) -> None:
        """A node makes room, or can't: then others may."""
        if self.leading and answer.epoch == self.epoch:
            self.preemption.on_preempting(fx, node, answer)
            self._dirty = self._dirty or not answer.enough

    def _to_reserve(self) -> list[Wish]:
        depth = 1 if self._config.queue_policy == "easy" else self._config.reservations_max
        return [self._entries[job_id].wish for job_id in self._line.first(depth)]

    def _backfill(self, fx: Effects) -> bool:
        """Try what is worth a try, best rank first; return whether more is left for the next pass."""
        if not self._plan.has_room:
            return False
        room = self._plan.largest_room()
        self._line.begin_pass(LOOKS_PER_TRY * self._config.tries_per_pass)
        for _ in range(self._config.tries_per_pass):
            job_id = self._line.next_hot(room)
            if job_id is None:
                break
            entry = self._entries[job_id]
            if self._cap(fx, entry):
                self._line.reheat(entry.wish.shape)
                continue
            count = min(entry.remaining, self._config.order_batch, self.quotas.room(entry.wait.draws))
            places = self._plan.places(entry.wish, count, fx.now)
            if places:
                self._place(fx, entry, places)
                self._line.reheat(entry.wish.shape)
                room = self._plan.largest_room()
        return self._line.hot

    def _owner_of(self, job_id: int) -> tuple[str, int]:
        entry = self._entries[job_id]
        return entry.home, entry.wait.attempt

    # --- orders

    def _place(self, fx: Effects, entry: Entry, places: dict[str, int]) -> int:
        """Order these places; return how many of what the job waits for (a gang waits as one) that is."""
        if not places:
            return 0
        why = self._why(entry, places)
        if entry.wish.shape.nodes:
            self._order_gang(fx, entry, places, why)
            placed = 1
        else:
            for node, count in places.items():
                self._order(fx, entry, node, count, why)
            placed = sum(places.values())
        self._plan.started(entry.wish.job)
        self._relist(entry.wish.job, entry)
        return placed

    def _why(self, entry: Entry, places: dict[str, int]) -> str:
        """Say what spoke for these nodes, as the job leaves the line."""
        job, _, shape, images = entry.wish
        if entry.wait.wanted != 1:
            return ""
        first = self._line.first(1)[0]
        if first != job or shape.nodes:
            others = [name for name in self._plan.considered if name not in places]
            return slipping_past(first, others) if first != job else by_policy(self._config.policy, others)
        best = self._view.best(shape.amount, shape.constraints, job, images, count=RUNNERS_UP, avoid=places)
        return by_policy(self._config.policy, best)

    def _order(self, fx: Effects, entry: Entry, node: str, count: int, why: str) -> None:
        job, place, shape, _ = entry.wish
        go = self._orders.give(fx, job, count, shape.amount, {node: count}, shape.estimate_s)
        entry.orders[go] = count
        self._holds.started(job, node)
        self.preemption.ordered(job, node)
        self._say_go(entry.home, go, Go(self.epoch, go, job, node, count, tuple(place), why))

    def _order_gang(self, fx: Effects, entry: Entry, places: dict[str, int], why: str) -> None:
        job, place, shape, _ = entry.wish
        tasks = dict.fromkeys(places, entry.wait.per_node)
        go = self._orders.give(fx, job, 1, entry.wait.request, tasks, shape.estimate_s)
        entry.orders[go] = 1
        for node in places:
            self._holds.started(job, node)
            self.preemption.ordered(job, node)
        self._say_go(entry.home, go, Muster(self.epoch, go, job, tuple(places), tuple(place), why))

    def _say_go(self, home: str, go: int, order: Go | Muster) -> None:
        """Orders are said at the end of the event, after the holds that they count on."""
        self._orders.remember(go, home, order)
        self._gos.say(home, go)

    def _speak_gos(self, fx: Effects, home: str, gos: list[int]) -> None:
        for go in gos:
            said = self._orders.said(go)
            if said is not None:
                fx.say(home, said)
            else:
                self._gos.answered(home, go)

    def ring_gos(self, fx: Effects, home: str) -> None:
        """Repeat orders whose home has not shown that it has them."""
        self._gos.ring(fx, home)

    # --- publishing

    def ring_tells(self, fx: Effects, home: str) -> None:
        """Ask a home again that has not told yet."""
        self._tells.ring(fx, home)

    @staticmethod
    def _speak_tells(fx: Effects, home: str, epochs: list[int]) -> None:
        fx.say(home, Tell(max(epochs)))

    def ring_pass(self) -> None:
        """Go on with a line that was too long for one pass, or that waited for more room."""
        self._dirty = self._pass_due = True
        self._pass_set = False

    def ring_preempt(self) -> None:
        """A job of a higher tier still waits: look again whether room can be made."""
        self._dirty = True

    def ring_publish(self, fx: Effects) -> None:
        """Gossip the number waiting, and tell the first in line where they stand."""
        self._tell_positions(fx)
        if self._published != (self.epoch, self.waiting):
            self._say_waiting(fx)

    def _publish(self, fx: Effects) -> None:
        """Whether anybody waits is news at once, for it closes or opens the fast path; how many can wait a moment.

        A leader that does not know yet what waits says nothing: nobody waits would be a lie.
        """
        if self._unsynced:
            return
        old, new = self._published, (self.epoch, self.waiting)
        if old is None or old[0] != new[0] or bool(old[1]) != bool(new[1]):
            self._say_waiting(fx)
        if self.waiting:
            self._alarms.set_if_unset(("publish", None), fx.now + self._config.leader_publish_s)

    def _say_waiting(self, fx: Effects) -> None:
        self._published = (self.epoch, self.waiting)
        fx.act(Publish("leader", encode_gossip(Leads(self.epoch, self.waiting))))

    def _tell_positions(self, fx: Effects) -> None:
        for position, job_id in enumerate(self._line.first(POSITIONS_TOLD)):
            entry = self._entries[job_id]
            start_s = self._start_s(job_id) if position < len(self._plan.reservations) else inf
            moved = start_s != entry.start_told_s and not abs(start_s - entry.start_told_s) < START_MOVED_S
            if entry.position_told != position or moved:
                entry.position_told, entry.start_told_s = position, start_s
                self._say_heard(fx, entry.home, entry.wait)
