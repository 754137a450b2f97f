"""The queue leader: one order for all waiting jobs of all homes, a role that any node can take.

The live node with the lowest number leads, with an epoch above any seen (unique: a multiple of the number of possible
nodes, plus its own number). Everything here is soft: rebuilt from what homes and nodes say, and safety never rests on
it. Homes tell what waits; nodes push a fresh report at every admission and release. Jobs are served in the order of
their rank; the first that could be served but finds no room gets a reservation, kept on nodes by holds, and those
behind it may start where they don't delay it (plan.py has the rule). What was ordered but not answered is a claim on
the view (orders.py).
"""

from __future__ import annotations

from math import inf

from scheduler.alarms import Alarms
from scheduler.choice import RUNNERS_UP, by_policy, slipping_past
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.events import Publish
from scheduler.holds import HoldsSaid
from scheduler.horizon import Horizon
from scheduler.index import ClusterView, Node
from scheduler.leaving import Leaving
from scheduler.messages import (
    Declined,
    Go,
    HoldNoted,
    Leads,
    Muster,
    Parting,
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
from scheduler.records import put_number
from scheduler.repeat import Repeat
from scheduler.settings import Settings
from scheduler.waitlist import Entry, Waitlist

POSITIONS_TOLD = 100
START_MOVED_S = 2.0
"""Homes are not told anew of an expected start that moved by less."""
LOOKS_PER_TRY = 10
"""A pass may skip so many sizes that fit nowhere for each that it tries."""


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
        self._plan = Plan(view, horizon)
        self.waitlist = Waitlist(view, settings, self._plan.possible)
        self._orders = Orders(config, view, alarms)
        self._holds = HoldsSaid(config, view, alarms, self._orders.numbers)
        self.preemption = Preemption(config, view, alarms, settings, self._plan, self._orders)
        self._grown: dict[str, Node] = {}
        self._gos: Repeat[int] = Repeat("gos", config, alarms, view.alive, self._speak_gos, config.quick_retry_s)
        self._unsynced: dict[str, None] = {}
        self._tells: Repeat[int] = Repeat("tells", config, alarms, view.alive, self._speak_tells)
        self._dirty = False
        self._pass_set = False
        self._leaving = Leaving(config.gather_s)
        self._served = -1
        self._published: tuple[int, int] | None = None
        self.leading = False
        self.epoch = 0
        self.epoch_seen = 0

    @property
    def waiting(self) -> int:
        """How many jobs wait in line; those set aside are not counted, for they hold nobody up."""
        return self.waitlist.waiting

    def position(self, job_id: int) -> int:
        """Return a job's place in the line (0: next), or -1 when it is in none."""
        return self.waitlist.line.position(job_id)

    def _start_s(self, job_id: int) -> float:
        return next((each.window()[0] for each in self._plan.reservations if each.wish.job == job_id), inf)

    def starts_s(self) -> dict[int, float]:
        """Return when each job with a reservation is expected to start; the others can't be told."""
        planned = ((each.wish.job, each.window()[0]) for each in self._plan.reservations)
        return {job_id: due_s for job_id, due_s in planned if due_s < inf}

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
        for job_id in self.waitlist.of_home(home):
            self._remove(job_id)
        self.waitlist.forget_clocks(home)

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
        self._pass_set = False
        self._leaving.clear()
        self._orders.clear()
        self.waitlist.clear()
        self.preemption.clear()
        self._plan.clear()
        self._grown.clear()
        self._holds.clear()
        self._unsynced.clear()
        for node in self._view.nodes():
            self._tells.forget(node.name)
            self._gos.forget(node.name)

    # --- what homes and nodes say

    def on_wait(self, fx: Effects, home: str, wait: Wait) -> None:
        """A home's word on one of its jobs; older words than the one known are not believed."""
        if not self.leading or not self._view.alive(home):
            return
        entry = self.waitlist.entries.get(wait.job)
        if entry is None or (wait.boot_epoch, wait.version) >= (entry.wait.boot_epoch, entry.wait.version):
            if wait.wanted > 0:
                for go in self.waitlist.enter(fx.now, home, wait, self.epoch):
                    self._gos.answered(home, go)
            else:
                self._remove(wait.job)
            self._dirty = True
        self._say_heard(fx, home, wait)

    def _remove(self, job_id: int) -> None:
        entry = self.waitlist.remove(job_id)
        if entry is not None:
            for go in entry.orders:
                self._gos.answered(entry.home, go)
            self.preemption.forget(job_id)

    def _say_heard(self, fx: Effects, home: str, wait: Wait) -> None:
        position, quota = self.position(wait.job), self.waitlist.quota_of(wait.job)
        room, start_s = self.preemption.nodes(wait.job), self._start_s(wait.job)
        in_s = max(0.0, start_s - fx.now) if start_s < inf else -1.0
        fx.say(home, WaitHeard(wait.job, wait.boot_epoch, wait.version, position, self.waiting, quota, room, in_s))

    def on_forgotten(self, home: str) -> None:
        """A home is gone for good, and with it what its jobs drew of limits."""
        self.waitlist.quotas.on_forgotten(home)
        self._dirty = True

    def on_tally(self, fx: Effects, home: str, tally: Tally) -> None:
        """A home's word on what its attempts draw on a quota."""
        if self.leading and self._view.alive(home):
            self.waitlist.quotas.on_tally(home, tally)
            fx.say(home, TallyHeard(tally.quota, tally.version))
            self._dirty = True

    def on_settings(self) -> None:
        """The cluster's settings changed: limits, and how ranks weigh."""
        self.waitlist.quotas.version += 1
        self.waitlist.shares.on_settings()
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

    def on_parting(self, fx: Effects, parting: Parting) -> None:
        """A gang is leaving: until all its members have said so, what came free is only a part."""
        if not self.leading or not self.waitlist.line:
            return
        self._leaving.hear(fx.now, parting)
        if self._pass_set and not self._leaving.waits(fx.now):
            self._alarms.cancel(("pass", None))
            self.ring_pass()

    def ring_order(self, fx: Effects, go: int) -> None:
        """An order had no effect for too long; its tasks and its space are offered again."""
        order = self._orders.drop(go)
        if order is None:
            return
        self._gos.answered(order.home, go)
        entry = self.waitlist.entries.get(order.job)
        if entry is not None and entry.orders.pop(go, None) is not None:
            self.waitlist.relist(order.job, entry)
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
        self._dirty = self.waitlist.rank_some_anew() or self._dirty
        if not self._unsynced and not self._pass_set:
            self._serve_or_wait(fx)
        if self.waitlist.shares.stale and not self._pass_set:
            self._set_pass(fx.now)
        self._holds.flush(fx)
        self.preemption.flush(fx)
        self._gos.flush(fx)
        self._tells.flush(fx)
        self._publish(fx)

    def _serve_or_wait(self, fx: Effects) -> None:
        """Serve if anything changed; while a gang is leaving, wait a moment until all its room is known."""
        changed = self._served != self._view.version
        if changed and self.waitlist.line and self._leaving.waits(fx.now):
            self._set_pass(self._leaving.until_s)
        elif changed or self._dirty:
            self._dirty = False
            self._serve(fx)
            self._served = self._view.version

    def _set_pass(self, at_s: float) -> None:
        self._pass_set = True
        self._alarms.set(("pass", None), at_s)

    def on_spent(self, home: str, spent: Spent) -> None:
        """A home's word on what was used of late: those whose factor moved get a new rank."""
        if not self.leading or not self._view.alive(home):
            return
        self.waitlist.shares.on_spent(home, spent.charges)

    # --- one pass

    def _cap(self, fx: Effects, entry: Entry) -> bool:
        """Take a job whose quotas have no room out of the line, and say so; return whether it has none."""
        capped = self.waitlist.cap(entry)
        if capped:
            self._say_heard(fx, entry.home, entry.wait)
        return capped

    def _serve(self, fx: Effects) -> None:
        """Give orders in rank order until the first job that finds no room; reserve for it; let others slip past."""
        changed, self._view.changed = self._view.changed, {}
        self._grown.update((node.name, node) for node in self._plan.refresh(changed))
        self.waitlist.reconsider()
        more = self._serve_front(fx)
        if self._config.queue_policy != "fcfs" and not more:
            loosened = self._plan.reserve(fx.now, self._to_reserve())
            if self._make_room(fx):
                loosened = self._plan.reserve(fx.now, self._to_reserve()) or loosened
            grown, self._grown = self._grown, {}
            self.waitlist.line.heat_what_fits(self._plan.room() if loosened else [node.free for node in grown.values()])
            self._holds.update(fx, self._plan.holds, self._owner_of)
            more = self._backfill(fx)
        if more:
            self._set_pass(fx.now)

    def _serve_front(self, fx: Effects) -> bool:
        """Serve the line in order as far as there is room; return whether the pass has to end before that."""
        budget = self._config.order_batch
        while self.waitlist.line and budget > 0:
            entry = self.waitlist.first()
            if self._cap(fx, entry):
                continue
            reservations = self._plan.reservations
            if reservations and reservations[0].wish == entry.wish and not reservations[0].ready:
                return False
            count = min(entry.remaining, budget, self.waitlist.quotas.room(entry.wait.draws))
            placed = self._place(fx, entry, self._front_places(fx, entry.wish, count))
            budget -= max(placed, 1)
            if placed < count and not placed and not self._plan.possible(entry.wish.shape):
                self.waitlist.set_aside(entry.wish.job)
            elif placed < count:
                return False
        return bool(self.waitlist.line)

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
        entry = self.waitlist.entries[first.wish.job]
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
        return [self.waitlist.entries[job_id].wish for job_id in self.waitlist.line.first(depth)]

    def _backfill(self, fx: Effects) -> bool:
        """Try what is worth a try, best rank first; return whether more is left for the next pass."""
        if not self._plan.has_room:
            return False
        room = self._plan.largest_room()
        self.waitlist.line.begin_pass(LOOKS_PER_TRY * self._config.tries_per_pass)
        for _ in range(self._config.tries_per_pass):
            job_id = self.waitlist.line.next_hot(room)
            if job_id is None:
                break
            entry = self.waitlist.entries[job_id]
            if self._cap(fx, entry):
                self.waitlist.line.reheat(entry.wish.shape)
                continue
            count = min(entry.remaining, self._config.order_batch, self.waitlist.quotas.room(entry.wait.draws))
            places = self._plan.places(entry.wish, count, fx.now)
            if places:
                self._place(fx, entry, places)
                self.waitlist.line.reheat(entry.wish.shape)
                room = self._plan.largest_room()
        return self.waitlist.line.hot

    def _owner_of(self, job_id: int) -> tuple[str, int]:
        entry = self.waitlist.entries[job_id]
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
        self.waitlist.relist(entry.wish.job, entry)
        return placed

    def _why(self, entry: Entry, places: dict[str, int]) -> str:
        """Say what spoke for these nodes, as the job leaves the line."""
        job, _, shape, images = entry.wish
        if entry.wait.wanted != 1:
            return ""
        first = self.waitlist.line.first(1)[0]
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
        self._dirty = True
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
        for position, job_id in enumerate(self.waitlist.line.first(POSITIONS_TOLD)):
            entry = self.waitlist.entries[job_id]
            start_s = self._start_s(job_id) if position < len(self._plan.reservations) else inf
            moved = start_s != entry.start_told_s and not abs(start_s - entry.start_told_s) < START_MOVED_S
            if entry.position_told != position or moved:
                entry.position_told, entry.start_told_s = position, start_s
                self._say_heard(fx, entry.home, entry.wait)
