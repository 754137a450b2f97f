"""The queue leader: one order for all waiting jobs of all homes, a role that any node can take.

The live node with the lowest number leads, with an epoch above any seen (unique: a multiple of the number of possible
nodes, plus its own number). Everything here is soft: rebuilt from what homes and nodes say, and safety never rests on
it. Homes tell what waits; nodes push a fresh report at every admission and release. Jobs are served in the order of
their rank; the first that could be served but finds no room blocks those behind it. A job that no node could take even
when empty is set aside, so that it blocks nobody. What was ordered but not answered is a claim on the view.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sortedcontainers import SortedDict

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.events import Publish
from scheduler.index import ClusterView
from scheduler.messages import Declined, Go, Leads, Settled, Tell, Wait, WaitHeard, encode_gossip
from scheduler.model import JOB_ID_STRIDE, Resources
from scheduler.queue import Rank, rank
from scheduler.records import put_number
from scheduler.repeat import Repeat

POSITIONS_TOLD = 100


@dataclass(slots=True)
class Entry:
    """A waiting job. `wanted` reflects the orders up to `go_seen`; `orders` are the newer ones: {go: count}."""

    home: str
    wait: Wait
    rank: Rank
    orders: dict[int, int] = field(default_factory=dict)

    @property
    def remaining(self) -> int:
        """How many tasks have neither a place nor an order on its way."""
        return self.wait.wanted - sum(self.orders.values())


@dataclass(slots=True)
class Order:
    """A go on its way: `count` tasks are not answered for by the node yet."""

    job: int
    node: str
    count: int
    request: Resources


class Leader:
    """The machine of the role; does nothing while another node leads."""

    def __init__(self, config: SchedulerConfig, view: ClusterView, alarms: Alarms, number: int) -> None:
        self._config = config
        self._view = view
        self._alarms = alarms
        self._number = number
        self._entries: dict[int, Entry] = {}
        self._line: SortedDict[Rank, int] = SortedDict()
        self._aside: dict[int, None] = {}
        self._orders: dict[int, Order] = {}
        self._go = 0
        self._clocks: dict[tuple[str, int], float] = {}
        self._unsynced: dict[str, None] = {}
        self._tells: Repeat[int] = Repeat("tells", config, alarms, view.alive, self._speak_tells)
        self._settled = False
        self._dirty = False
        self._shape = self._served = -1
        self._published: tuple[int, int] | None = None
        self.leading = False
        self.epoch = 0
        self.epoch_seen = 0

    @property
    def waiting(self) -> int:
        """How many jobs wait in line; those set aside are not counted, for they hold nobody up."""
        return len(self._entries) - len(self._aside)

    def position(self, job_id: int) -> int:
        """Return a job's place in the line (0: next), or -1 when it is in none."""
        entry = self._entries.get(job_id)
        if entry is None or entry.rank not in self._line:
            return -1
        return int(self._line.index(entry.rank))

    def entries(self) -> list[tuple[int, Entry]]:
        """Return the waiting jobs in order, those set aside last."""
        line = [(job_id, self._entries[job_id]) for job_id in self._line.values()]
        in_line = {job_id for job_id, _ in line}
        return line + [pair for pair in self._entries.items() if pair[0] not in in_line]

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
        self.epoch_seen = self.epoch
        put_number(fx, "epoch", self.epoch)
        self._unsynced = {node.name: None for node in self._view.nodes() if node.alive}
        for home in self._unsynced:
            self._tells.say(home, self.epoch)
        self._alarms.set(("settle", None), fx.now + self._config.settle_s)
        self._published = None

    def _step_down(self) -> None:
        self.leading = False
        self._clear()
        for kind in ("settle", "publish", "pass"):
            self._alarms.cancel((kind, None))

    def _clear(self) -> None:
        for go in list(self._orders):
            self._drop_order(go)
        self._entries.clear()
        self._line.clear()
        self._aside.clear()
        self._clocks.clear()
        self._unsynced.clear()
        for node in self._view.nodes():
            self._tells.forget(node.name)

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
        fx.say(home, WaitHeard(wait.job, wait.boot_epoch, wait.version, self.position(wait.job), self.waiting))

    def on_told(self, home: str, epoch: int) -> None:
        """A home has told all that waits there."""
        self._tells.answered(home, epoch)
        if self.leading and epoch == self.epoch:
            self._unsynced.pop(home, None)
            self._dirty = True

    def on_declined(self, declined: Declined) -> None:
        """A home had no use for part of an order."""
        if self.leading and declined.epoch == self.epoch:
            self._answer(declined.go, declined.count)

    def on_settled(self, settled: Settled) -> None:
        """A node answered for part of an order; its report, heard just before, covers what it took."""
        if self.leading and settled.epoch == self.epoch:
            self._answer(settled.go, settled.count)

    def ring_order(self, fx: Effects, go: int) -> None:
        """An order had no effect for too long; its tasks and its space are offered again."""
        order = self._orders.get(go)
        if order is None:
            return
        entry = self._entries.get(order.job)
        if entry is not None:
            entry.orders.pop(go, None)
            self._relist(order.job, entry)
        self._drop_order(go)
        self._dirty = True

    def flush(self, fx: Effects) -> None:
        """At the end of an event: serve the line as far as it goes, and publish how long it is."""
        if not self.leading:
            return
        if (self._dirty or self._served != self._view.version) and not self._unsynced:
            self._dirty = False
            self._serve(fx)
            self._served = self._view.version
        self._tells.flush(fx)
        self._publish(fx)

    # --- the line

    def _enter(self, fx: Effects, home: str, wait: Wait, entry: Entry | None) -> None:
        # The first word of a home fixes how its clock lies to ours, so that its jobs keep their order among themselves.
        offset_s = self._clocks.setdefault((home, wait.boot_epoch), fx.now - wait.clock_s)
        place = rank(wait.priority, wait.since_s + offset_s, wait.job)
        if entry is None:
            entry = self._entries[wait.job] = Entry(home, wait, place)
        else:
            self._line.pop(entry.rank, None)
            entry.wait, entry.rank = wait, place
        if wait.epoch == self.epoch:
            entry.orders = {go: count for go, count in entry.orders.items() if go > wait.go_seen}
        self._relist(wait.job, entry)

    def _relist(self, job_id: int, entry: Entry) -> None:
        """Put a job in line while some of its tasks have no order; one set aside stays aside."""
        if entry.remaining <= 0:
            self._line.pop(entry.rank, None)
        elif job_id not in self._aside:
            self._line[entry.rank] = job_id

    def _remove(self, job_id: int) -> None:
        entry = self._entries.pop(job_id, None)
        if entry is not None:
            self._line.pop(entry.rank, None)
            self._aside.pop(job_id, None)

    def _serve(self, fx: Effects) -> None:
        """Give orders in rank order until the first job that finds no room."""
        self._reconsider_aside()
        budget = self._config.order_batch
        while self._line and budget > 0:
            job_id = self._line.peekitem(0)[1]
            entry = self._entries[job_id]
            count = min(entry.remaining, budget)
            places = self._view.place(entry.wait.request, entry.wait.constraints, count, job_id)
            for node, times in places.items():
                self._order(fx, job_id, entry, node, times)
            budget -= sum(places.values())
            self._relist(job_id, entry)
            if sum(places.values()) < count:
                if places or self._view.possible(entry.wait.request, entry.wait.constraints):
                    break
                self._set_aside(job_id, entry)
        if budget <= 0:
            self._alarms.set(("pass", None), fx.now)

    def _set_aside(self, job_id: int, entry: Entry) -> None:
        self._aside[job_id] = None
        self._line.pop(entry.rank, None)

    def _reconsider_aside(self) -> None:
        """What the cluster could take has changed: so may have what no node could."""
        if self._shape == self._view.shape:
            return
        self._shape = self._view.shape
        for job_id in list(self._aside):
            entry = self._entries[job_id]
            if self._view.possible(entry.wait.request, entry.wait.constraints):
                del self._aside[job_id]
                self._relist(job_id, entry)

    # --- orders

    def _order(self, fx: Effects, job_id: int, entry: Entry, node: str, count: int) -> None:
        self._go += 1
        entry.orders[self._go] = count
        self._orders[self._go] = Order(job_id, node, count, entry.wait.request)
        self._view.claim(("go", self.epoch, self._go), node, entry.wait.request * count)
        self._alarms.set(("order", self._go), fx.now + self._config.go_timeout_s)
        fx.say(entry.home, Go(self.epoch, self._go, job_id, node, count))

    def _answer(self, go: int, count: int) -> None:
        """So many tasks of an order need its claim no more: the node's report or another order speaks for them."""
        order = self._orders.get(go)
        if order is None:
            return
        order.count -= count
        if order.count > 0:
            self._view.shrink(("go", self.epoch, go), order.request * order.count)
        else:
            self._view.release(("go", self.epoch, go))
        self._dirty = True

    def _drop_order(self, go: int) -> None:
        del self._orders[go]
        self._view.release(("go", self.epoch, go))
        self._alarms.cancel(("order", go))

    # --- publishing

    def ring_tells(self, fx: Effects, home: str) -> None:
        """Ask a home again that has not told yet."""
        self._tells.ring(fx, home)

    @staticmethod
    def _speak_tells(fx: Effects, home: str, epochs: list[int]) -> None:
        fx.say(home, Tell(max(epochs)))

    def ring_pass(self) -> None:
        """Go on with a line that was too long for one pass."""
        self._dirty = True

    def ring_publish(self, fx: Effects) -> None:
        """Gossip the number waiting, and tell the first in line where they stand."""
        self._tell_positions(fx)
        if self._published != (self.epoch, self.waiting):
            self._say_waiting(fx)

    def _publish(self, fx: Effects) -> None:
        """Whether anybody waits is news at once, for it closes or opens the fast path; how many can wait a moment."""
        old, new = self._published, (self.epoch, self.waiting)
        if old is None or old[0] != new[0] or bool(old[1]) != bool(new[1]):
            self._say_waiting(fx)
        if self.waiting:
            self._alarms.set_if_unset(("publish", None), fx.now + self._config.leader_publish_s)

    def _say_waiting(self, fx: Effects) -> None:
        self._published = (self.epoch, self.waiting)
        fx.act(Publish("leader", encode_gossip(Leads(self.epoch, self.waiting))))

    def _tell_positions(self, fx: Effects) -> None:
        for position, job_id in enumerate(self._line.values()[:POSITIONS_TOLD]):
            entry = self._entries[job_id]
            wait = entry.wait
            fx.say(entry.home, WaitHeard(job_id, wait.boot_epoch, wait.version, position, self.waiting))
