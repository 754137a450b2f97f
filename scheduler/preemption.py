"""The leader's part in preemption: for the first in line, which nodes are to have tasks of lower tiers give way.

As Slurm's preemption by partition priority: only a strictly higher tier takes, so nobody takes back what was taken. The
space is held before anybody is asked to leave: the plan's reservation is pinned to the chosen nodes, and nodes obey
only while they hold room for that job. Which tasks leave is the node's choice, whether they may be taken is their
home's. What is under way is soft: it ends with the job's start, a refusal, a new leader, or time; and what was begun
is seen by whoever plans next, for a task that is being stopped is a release that comes soon.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.fit import fits, unmet
from scheduler.index import ClusterView, Node
from scheduler.messages import Preempt, Preempting
from scheduler.orders import Orders
from scheduler.plan import Plan, Wish
from scheduler.repeat import Repeat
from scheduler.settings import PreemptMode, Settings

ANSWER_S = 10.0
"""A node has so long to answer, and tasks have so long to be gone after their grace."""
PAUSE_S = 2.0
"""A node that could not make room is not asked again before this, nor are nodes looked for where none were found."""
NODES_MAX = 16
"""An array takes at most so many nodes at a time."""


@dataclass(slots=True)
class _Taking:
    """Room being made for one job: on `nodes` (True: asked there), numbered like an order, given up at `until_s`."""

    wish: Wish
    number: int
    nodes: dict[str, bool]
    since_s: float
    until_s: float


class Preemption:
    """What is being taken for whom. Costs nothing while it is off, or the first in line is of the lowest tier."""

    def __init__(
        self,
        config: SchedulerConfig,
        view: ClusterView,
        alarms: Alarms,
        settings: Settings,
        plan: Plan,
        orders: Orders,
    ) -> None:
        self._view = view
        self._alarms = alarms
        self._settings = settings
        self._plan = plan
        self._orders = orders
        self._takings: dict[int, _Taking] = {}
        self._barred: dict[str, float] = {}
        self._in_vain: tuple[int, float] = 0, 0.0
        self._asks: Repeat[int] = Repeat("preempts", config, alarms, view.alive, self._speak, config.quick_retry_s)

    def nodes(self, job: int) -> int:
        """Return on how many nodes room is being made for a job."""
        taking = self._takings.get(job)
        return sum(taking.nodes.values()) if taking is not None else 0

    def consider(self, fx: Effects, wish: Wish, count: int, due_s: float) -> bool:
        """Begin to make room for the first in line, if that is allowed, needed and possible; return whether it began.

        `due_s`: when it could start without. `count`: how many of its tasks (or gangs) wait.
        """
        self._expire(fx.now)
        tier = -int(wish.rank.order)
        if self._settings.preemption.mode is PreemptMode.OFF or tier <= 0:
            return False
        self._alarms.set_if_unset(("preempt", None), fx.now + PAUSE_S)
        patience_s = self._settings.preemption.patience_s
        soon = fx.now - patience_s < due_s <= fx.now + patience_s
        job, until_s = self._in_vain
        if wish.job in self._takings or due_s == -inf or soon or (job == wish.job and fx.now < until_s):
            return False
        nodes = self._choose(wish, tier, count, fx.now)
        if not any(nodes.values()):
            self._in_vain = wish.job, fx.now + PAUSE_S
            return False
        number = next(self._orders.numbers)
        self._takings[wish.job] = _Taking(wish, number, nodes, fx.now, fx.now + ANSWER_S)
        self._plan.pin(wish.job, tuple(nodes), fx.now)
        for node in [node for node, asked in nodes.items() if asked]:
            self._asks.say(node, wish.job)
        return True

    def ordered(self, job: int, node: str) -> None:
        """A task of the job was ordered there: it has its room."""
        taking = self._takings.get(job)
        if taking is not None and node in taking.nodes:
            self._leave(taking, node)

    def forget(self, job: int) -> None:
        """The job does not wait any more."""
        taking = self._takings.pop(job, None)
        if taking is not None:
            self._plan.pin(job, (), 0.0)
            for node in taking.nodes:
                self._asks.answered(node, job)

    def clear(self) -> None:
        """The role is given up, or taken anew."""
        for job in list(self._takings):
            self.forget(job)
        self._barred.clear()
        self._alarms.cancel(("preempt", None))

    def on_preempting(self, fx: Effects, node: str, answer: Preempting) -> None:
        """A node makes room, or can't."""
        taking = self._takings.get(answer.job)
        if taking is None or node not in taking.nodes or answer.go != taking.number:
            return
        self._asks.answered(node, answer.job)
        if answer.enough:
            taking.until_s = max(taking.until_s, fx.now + answer.within_s + ANSWER_S)
            return
        self._barred[node] = fx.now + max(answer.within_s, PAUSE_S)
        if taking.wish.shape.nodes:
            self.forget(answer.job)
        else:
            self._leave(taking, node)

    def ring(self, fx: Effects, node: str) -> None:
        """Ask a node again that did not answer."""
        self._asks.ring(fx, node)

    def flush(self, fx: Effects) -> None:
        """At the end of an event, after the holds were said: say what is fresh."""
        self._asks.flush(fx)

    # --- inside

    def _expire(self, now: float) -> None:
        for job in [job for job, taking in self._takings.items() if taking.until_s <= now]:
            for node in self._takings[job].nodes:
                self._barred[node] = now + PAUSE_S
            self.forget(job)
        self._barred = {node: until_s for node, until_s in self._barred.items() if until_s > now}

    def _leave(self, taking: _Taking, node: str) -> None:
        del taking.nodes[node]
        self._asks.answered(node, taking.wish.job)
        if any(taking.nodes.values()):
            self._plan.pin(taking.wish.job, tuple(taking.nodes), taking.since_s)
        else:
            self.forget(taking.wish.job)

    def _choose(self, wish: Wish, tier: int, count: int, now: float) -> dict[str, bool]:
        """Return nodes for one share each (True: tasks have to leave), those first that lose least; none if too few."""
        found: list[tuple[tuple[int, int, int], str]] = []
        for node in self._view.nodes():
            cost = self._cost(wish, tier, node)
            if cost is not None and node.name not in self._barred:
                found.append(((*cost, node.number), node.name))
        needed = wish.shape.nodes or 1
        if len(found) < needed:
            return {}
        most = needed if wish.shape.nodes else min(count, NODES_MAX)
        return {name: key[0] >= 0 for key, name in sorted(found)[:most]}

    def _cost(self, wish: Wish, tier: int, node: Node) -> tuple[int, int] | None:
        """Return (highest tier that has to leave, CPU that is short); a tier of -1: it fits. None: not there."""
        shape = wish.shape
        if not node.usable or node.report is None or unmet(shape.constraints, node.labels) is not None:
            return None
        if fits(shape.amount, node.free):
            return -1, 0
        for each in node.report.tiers:
            if each.tier < tier and fits(shape.amount, each.free - node.claimed):
                return each.tier, max(0, shape.amount.cpu_milli - node.free.cpu_milli)
        return None

    def _speak(self, fx: Effects, node: str, jobs: list[int]) -> None:
        for job in jobs:
            taking = self._takings.get(job)
            if taking is None:
                self._asks.answered(node, job)
                continue
            wish = taking.wish
            tier = -int(wish.rank.order)
            fx.say(node, Preempt(self._orders.epoch, taking.number, job, tier, wish.shape.amount))
