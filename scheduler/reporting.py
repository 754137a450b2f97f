"""What this node says of itself: one report in versions, sent with answers, pushed to the leader, and gossiped.

Owns the measured capacity and use, what is committed, and whether the node takes anything. A report goes where it
matters at once (to the home with its answer, to the leader at every admission and release); gossip is the backstop,
told on a change of some size or at an interval.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Collection, Hashable
from typing import NamedTuple

import msgspec

from scheduler.alarms import Alarms
from scheduler.company import Company
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.errors import InvalidSpec
from scheduler.events import Measured, Publish
from scheduler.index import ClusterView
from scheduler.messages import REPORT_BYTES_MAX, REPORT_KEY, Fresh, encode_gossip
from scheduler.model import End, Report, Resources, Tier
from scheduler.pushing import Pushing

WHOLE_NODE = "whole-node"
"""An extra resource that every node has one of while nothing runs there: who asks for it has the node for itself."""
WHOLE = Resources(0, 0, ((WHOLE_NODE, 1),))
_End = tuple[float, Resources]
ENDS_MAX = 16
"""Most times at which a report tells that something ends; it has to stay small enough to be gossiped."""


class Owed(NamedTuple):
    """One that stands still: the CPU it waits for, how long it runs from then on, and what it has then in all."""

    cpu_milli: int
    left_s: float
    amount: Resources


class Reporting:
    """This node's own report. `epoch` is the highest leader's epoch this node has seen."""

    def __init__(
        self, config: SchedulerConfig, view: ClusterView, alarms: Alarms, number: int, boot_epoch: int
    ) -> None:
        self._config = config
        self._view = view
        self._alarms = alarms
        self._number = number
        self.boot_epoch = boot_epoch
        self._sequence = 0
        self._dirty = False
        self._published: Report | None = None
        self._judged: Report | None = None
        self._pushing_now = False
        self.pushing = Pushing(config, view, alarms, self._say_pushed)
        self._told: dict[str, int] = {}
        self._permitted = Resources()
        self._committed = Resources()
        self._containers = 0
        self.company = Company()
        self._ends: dict[Hashable, tuple[float, Resources]] = {}
        self._report: Report | None = None
        self.measured: Measured | None = None
        self._exclusive = 0
        self.accepting = True
        self.draining = False
        self.tiers: tuple[Tier, ...] = ()
        self.epoch = 0
        self.before_telling: Callable[[Effects], None] = lambda _fx: None
        """What may change what is free has to do it before anybody hears of it."""
        self.owed: Callable[[], list[Owed]] = list
        """Those that stand still, in the order in which they go on: they take their CPU back as it comes free."""

    @property
    def free(self) -> Resources:
        """What can still be committed, by what is booked now."""
        if self._exclusive:
            return self._permitted - self._permitted
        return self._permitted - (self._committed + WHOLE if self._containers else self._committed)

    def free_without(self, keys: Collection[Hashable], still: Collection[Hashable] = ()) -> Resources:
        """Return what could be committed if these live allocations were gone, and those stood `still`."""
        gone = [self._ends[key][1] for key in keys]
        if self._exclusive > sum(each.get(WHOLE_NODE) for each in gone):
            return Resources()
        committed = self._committed - sum(gone, Resources(sum(self._ends[key][1].cpu_milli for key in still)))
        return self._permitted - (committed + WHOLE if self._containers > len(gone) else committed)

    @property
    def version(self) -> int:
        """Another number after every change."""
        return self._sequence + self._dirty

    def report(self) -> Report:
        """Return the newest report; of nothing before the first measurement."""
        if self._dirty or self._report is None:
            return self._build()
        return self._report

    def _build(self) -> Report:
        measured = self.measured or Measured(Resources(), Resources(), Resources())
        report = Report(
            node=self._view.me,
            number=self._number,
            boot_epoch=self.boot_epoch,
            sequence=self._sequence,
            capacity=measured.capacity,
            allocatable=measured.allocatable + WHOLE if self.measured is not None else measured.allocatable,
            committed=self._committed + WHOLE if self._containers and not self._exclusive else self._committed,
            used=measured.used,
            cpu_ratio_permille=self._config.cpu_ratio_permille,
            memory_ratio_permille=self._config.memory_ratio_permille,
            containers=self._containers,
            accepting=self.accepting and measured.room,
            labels=measured.labels,
            draining=self.draining,
            ends=self._coarse_ends(),
            runs=self.company.told(),
            tiers=self.tiers,
        )
        # Beside a task that has the node for itself nothing fits, however little it asked for.
        return msgspec.structs.replace(report, committed=report.permitted) if self._exclusive else report

    def _coarse_ends(self) -> tuple[End, ...]:
        """When what is committed comes free; of many, neighbours are joined at the later time, so nothing is early."""
        ends = sorted((end for end in self._ends.values() if end[0] < math.inf), key=lambda end: end[0])
        if owed := self.owed():
            ends = _after_those_owed(ends, owed)
        size = -(-len(ends) // ENDS_MAX) or 1
        found = []
        for start in range(0, len(ends), size):
            group = ends[start : start + size]
            amount = group[0][1] if size == 1 else sum((amount for _, amount in group), Resources())
            found.append(End(math.ceil(group[-1][0] * 1000), amount))
        if found and len(ends) == len(self._ends) and not self._exclusive:
            found[-1] = End(found[-1].at_ms, found[-1].amount + WHOLE)
        return tuple(found)

    # --- what changes it

    def book(self, key: Hashable, request: Resources, end_s: float) -> None:
        """Count a live allocation in, which ends by then (infinity: who knows)."""
        self._committed = self._committed + request
        self._containers += 1
        self._exclusive += request.get(WHOLE_NODE)
        self._ends[key] = (end_s, request)
        self._dirty = True

    def unbook(self, key: Hashable) -> None:
        """Count a live allocation out."""
        _, request = self._ends.pop(key)
        self._committed = self._committed - request
        self._containers -= 1
        self._exclusive -= request.get(WHOLE_NODE)
        self._dirty = True

    def rebook(self, key: Hashable, request: Resources) -> None:
        """A live allocation takes another amount from now on."""
        end_s, old = self._ends[key]
        self._committed = self._committed - old + request
        self._ends[key] = (end_s, request)
        self._dirty = True

    def booked(self, key: Hashable) -> Resources:
        """Return what is counted for a live allocation now."""
        return self._ends[key][1]

    def ends(self, key: Hashable, end_s: float) -> None:
        """A live allocation will end by then."""
        self._ends[key] = (end_s, self._ends[key][1])
        self._dirty = True

    def end_of(self, key: Hashable) -> float:
        """Return by when a live allocation ends, by its estimate; infinity: who knows."""
        return self._ends[key][0]

    def ends_by(self, key: Hashable, end_s: float) -> None:
        """A live allocation ends by then, unless it would before."""
        self.ends(key, min(end_s, self._ends[key][0]))

    def set_tiers(self, tiers: tuple[Tier, ...]) -> None:
        """What could give way has changed."""
        self.tiers = tiers
        self._dirty = True
        self.push()

    def touch(self) -> None:
        """Something else that is worth a new version."""
        self._dirty = True

    def measure(self, measured: Measured) -> None:
        """Take the shell's newest figures; raises InvalidSpec when they would make a report too large to gossip."""
        old, self.measured = self.measured, measured
        built = self._build()
        bare = msgspec.structs.replace(built, ends=(), runs="", tiers=())
        if len(encode_gossip(bare)) > REPORT_BYTES_MAX:
            self.measured = old
            raise InvalidSpec("labels", len(measured.labels), f"a report must stay within {REPORT_BYTES_MAX} bytes")
        self._permitted = built.permitted
        self._dirty = True
        if old is None or (old.allocatable, old.labels) != (measured.allocatable, measured.labels):
            self.push()

    def set_accepting(self, accepting: bool, *, draining: bool = False) -> None:
        """Cordon, uncordon or drain this node."""
        self.accepting, self.draining = accepting, draining
        self._dirty = True
        self.push()

    # --- telling it

    def push(self) -> None:
        """The leader is to know at once."""
        self._pushing_now = True

    def tell(self, fx: Effects, to: str) -> None:
        """Send the newest report, once an event; our own home and leader see it in the view we share."""
        if self.measured is None:
            return
        self.before_telling(fx)
        self._refresh()
        if to == self._view.me or self._told.get(to) == self._sequence:
            return
        self._told[to] = self._sequence
        if to == self._view.leader:
            self.pushing.report()
            self.pushing.flush(fx)
        else:
            fx.say(to, Fresh(self._said_now(fx), self.epoch))

    def ring(self, fx: Effects) -> None:
        """Gossip at the interval."""
        if self.measured is not None:
            self._publish(fx)

    def flush(self, fx: Effects) -> None:
        """At the end of an event: refresh, push and gossip, as far as it matters."""
        if self.measured is not None:
            self._refresh()
            if self._pushing_now:
                self.tell(fx, self._view.leader)
            self.pushing.flush(fx)
            if self._judged is not self._report:
                self._judged = self._report
                if self._published is None or self._moved(self._published):
                    self._publish(fx)
        self._pushing_now = False
        self._told.clear()

    # --- inside

    def _refresh(self) -> None:
        """Make a new version if anything changed."""
        if self._dirty or self._report is None:
            self._dirty = False
            self._sequence += 1
            self._report = self._build()
            self._view.hear(self._report)

    def _say_pushed(self, fx: Effects, leader: str) -> int:
        fx.say(leader, Fresh(self._said_now(fx), self.epoch, push=True))
        return self._sequence

    def _said_now(self, fx: Effects) -> Report:
        """The newest report with this moment's clock: whoever hears it learns how our clock lies to theirs."""
        return msgspec.structs.replace(self.report(), clock_ms=math.floor(fx.now * 1000))

    def _moved(self, published: Report) -> bool:
        """Whether what others believe is wrong enough to tell them now."""
        now = self.report()
        if _policy(now) != _policy(published):
            return True
        for dimension, most in now.allocatable.items():
            threshold = most * self._config.report_change_permille // 1000
            for new, old in ((now.committed, published.committed), (now.used, published.used)):
                if abs(new.get(dimension) - old.get(dimension)) > threshold:
                    return True
        return False

    def _publish(self, fx: Effects) -> None:
        former, self._published = self._published, self.report()
        load = former is not None and _policy(former) == _policy(self._published)
        said = self._said_now(fx)
        value = encode_gossip(said)
        if len(value) > REPORT_BYTES_MAX:
            # What ends when is a help for plans, and the leader hears it besides; what is free must get through.
            said = msgspec.structs.replace(said, ends=(), tiers=())
            value = encode_gossip(said)
        if len(value) > REPORT_BYTES_MAX:
            value = encode_gossip(msgspec.structs.replace(said, runs=""))
        fx.act(Publish(REPORT_KEY, value, load))
        self._alarms.set(("report", None), fx.now + self._config.report_interval_s)


def _after_those_owed(ends: list[_End], owed: list[Owed]) -> list[_End]:
    """What comes free for others: not what is taken back, but all that those have once they have run to their end."""
    found, numbers = [], itertools.count()
    coming = [(at_s, next(numbers), amount) for at_s, amount in ends]
    heapq.heapify(coming)
    left = iter(owed)
    first = next(left, None)
    while coming:
        at_s, _, amount = heapq.heappop(coming)
        while first is not None and amount.cpu_milli:
            taken = min(first.cpu_milli, amount.cpu_milli)
            amount, first = amount - Resources(taken), first._replace(cpu_milli=first.cpu_milli - taken)
            if not first.cpu_milli:
                heapq.heappush(coming, (at_s + first.left_s, next(numbers), first.amount))
                first = next(left, None)
        found.append((at_s, amount))
    return found


def _policy(report: Report) -> tuple[object, ...]:
    return report.permitted, report.labels, report.accepting, report.draining
