"""Tasks on nodes that promise more than they have, and nodes that fail: what overcommit costs, and what it saves.

Tasks arrive and leave at the trace's times and are placed by what they ask for, against each node's allocatable times
its permitted ratio, as the agents' admission does. What they use is another matter (sim/usage.py):

    memory  when a node's tasks together use more than it has, the kernel kills: here the task that is furthest above
            what it asked for (if none is, the largest); it is started again where it fits, a little later
            each time
    CPU     when they want more than there is, all run slower; the core seconds wanted and not had are the shortage

A node that fails loses its tasks; after `notice_s` they are started again elsewhere. What fits nowhere is refused and
does not wait. Owns these rules and the measures; which node, the fleet decides. Same seed, same run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import NamedTuple

from sim.errors import BadValue
from sim.fleet import Place, make_fleet
from sim.nodes import Demand, NodeSpec
from sim.outages import Outage
from sim.placement import Visit
from sim.usage import Everything, Step, Usage

WATCH_EVERY = 512
RATIO_MAX = 100.0
POINTS = 800
RESTART_S, RESTART_DOUBLINGS_MAX = 10.0, 6
"""As the agents' homes do: what is killed again and again comes back more and more slowly."""

Watch = Callable[[int, float], bool]


class Ratios(NamedTuple):
    """How far each resource may be promised beyond what there is."""

    cpu: float = 1.0
    memory: float = 1.0


ONCE = Ratios()


class Point(NamedTuple):
    """At a time: shares of the cluster's CPU and memory that are promised, and that are used."""

    time_s: float
    cpu_committed: float
    cpu_used: float
    memory_committed: float
    memory_used: float


class NodeUse(NamedTuple):
    """A node over the run: shares of what it has, means over time; tasks killed for its memory."""

    name: str
    cpu_committed: float
    cpu_used: float
    memory_committed: float
    memory_used: float
    oom_kills: int


class Result(NamedTuple):
    """How a run went; shares from 0 to 1 (committed ones above 1 where more is promised than there is)."""

    policy: str
    ratios: Ratios
    tasks: int
    refused: int
    oom_kills: int
    outages: int
    lost: int
    restarted: int
    cpu_committed: float
    cpu_used: float
    cpu_short: float
    memory_committed: float
    memory_used: float
    memory_committed_peak: float
    nodes_used: int
    complete: bool
    curve: list[Point]
    nodes: list[NodeUse]


def overcommit(
    specs: Sequence[NodeSpec],
    visits: Sequence[Visit],
    policy: str,
    ratios: Ratios = ONCE,
    usage: Usage | None = None,
    outages: Sequence[Outage] = (),
    notice_s: float = 30.0,
    seed: int = 0,
    watch: Watch | None = None,
) -> Result:
    """Play visits, in order of arrival; raises BadValue for an unknown policy or a ratio out of bounds."""
    for name, ratio in zip(ratios._fields, ratios, strict=True):
        if not 0 < ratio <= RATIO_MAX:
            raise BadValue(f"{name} ratio", ratio, f"above 0, at most {RATIO_MAX:g}")
    run = _Run(specs, visits, policy, ratios, usage or Everything(), seed)
    complete = run.play(visits, outages, notice_s, watch or (lambda _done, _now: True))
    return run.result(complete)


class _Task:
    """A task that is placed: where, what it uses now, and how that goes on."""

    __slots__ = ("cpu", "demand", "kills", "leave_s", "memory", "next", "number", "place", "starts", "steps")

    def __init__(self, number: int, demand: Demand, leave_s: float) -> None:
        self.number, self.demand, self.leave_s = number, demand, leave_s
        self.place: Place | None = None
        self.cpu = self.memory = 0.0
        self.steps: Iterator[Step] = iter(())
        self.next: Step | None = None
        self.starts = self.kills = 0


class _Meter:
    """A sum over time of something that changes in jumps."""

    __slots__ = ("area", "now_s", "value")

    def __init__(self, now_s: float) -> None:
        self.area, self.now_s, self.value = 0.0, now_s, 0.0

    def set(self, now_s: float, value: float) -> None:
        self.area += (now_s - self.now_s) * self.value
        self.now_s, self.value = now_s, value


class _NodeMeter:
    """What a node's tasks were promised and used: (CPU promised, used, memory promised, used), summed over time."""

    __slots__ = ("areas", "kills", "now_s", "values")

    def __init__(self, now_s: float) -> None:
        self.areas, self.values = [0.0] * 4, [0.0] * 4
        self.now_s, self.kills = now_s, 0

    def pass_to(self, now_s: float) -> None:
        passed_s = now_s - self.now_s
        if passed_s:
            self.areas = [area + passed_s * value for area, value in zip(self.areas, self.values, strict=True)]
            self.now_s = now_s


class _Run:
    def __init__(
        self, specs: Sequence[NodeSpec], visits: Sequence[Visit], policy: str, ratios: Ratios, usage: Usage, seed: int
    ) -> None:
        self.specs, self.policy, self.ratios, self.usage = specs, policy, ratios, usage
        promised = [
            spec._replace(cpu_milli=int(spec.cpu_milli * ratios.cpu), memory_mib=int(spec.memory_mib * ratios.memory))
            for spec in specs
        ]
        self.fleet = make_fleet(promised, [visit.demand for visit in visits], policy, seed)
        self.began_s = self.now_s = visits[0].arrive_s if visits else 0.0
        self.on_node: list[dict[int, _Task]] = [{} for _ in specs]
        self.cpu_used, self.memory_used = [0.0] * len(specs), [0.0] * len(specs)
        self.committed, self.used = [0, 0], [0.0, 0.0]
        self.meters = {name: _Meter(self.began_s) for name in ("cpu_c", "cpu_u", "memory_c", "memory_u", "short")}
        self.node_meters = [_NodeMeter(self.began_s) for _ in specs]
        self.short = [0.0] * len(specs)
        self.short_now = 0.0
        self.tasks = self.refused = self.oom_kills = self.outages = self.lost = self.restarted = 0
        self.memory_peak = 0
        self.ever_used: set[int] = set()
        self.curve: list[Point] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._closed = [0] * len(specs)
        self._cpu = sum(spec.cpu_milli for spec in specs) or 1
        self._memory = sum(spec.memory_mib for spec in specs) or 1

    # --- the loop

    def play(self, visits: Sequence[Visit], outages: Sequence[Outage], notice_s: float, watch: Watch) -> bool:
        for outage in outages:
            self._at(outage.down_s, partial(self._down, outage, notice_s))
        last_s = visits[-1].arrive_s if visits else 0.0
        every_s = (last_s - self.began_s) / POINTS
        for number, visit in enumerate(visits):
            self._pass_to(visit.arrive_s)
            task = _Task(number, visit.demand, visit.leave_s)
            self.tasks += 1
            if not self._begin(task):
                self.refused += 1
            if not self.curve or visit.arrive_s - self.curve[-1].time_s >= every_s:
                self.curve.append(self._point())
            if number % WATCH_EVERY == 0 and not watch(number, self.now_s):
                return False
        return True

    def _pass_to(self, now_s: float) -> None:
        events = self._events
        while events and events[0][0] <= now_s:
            self.now_s, _, happen = heappop(events)
            happen()
        self.now_s = now_s

    def _at(self, when_s: float, happen: Callable[[], None]) -> None:
        if when_s < inf:
            heappush(self._events, (max(when_s, self.now_s), next(self._order), happen))

    # --- a task

    def _begin(self, task: _Task) -> bool:
        place = self.fleet.place(task.demand)
        if place is None:
            return False
        task.place = place
        task.starts += 1
        self.on_node[place[0]][task.number] = task
        self.ever_used.add(place[0])
        self._commit(place[0], task.demand, 1)
        task.steps = self.usage.of(task.number, self.now_s)
        task.next = next(task.steps)
        self._at(task.leave_s, partial(self._leave, task, task.starts))
        self._step(task, task.starts, self.now_s)
        return True

    def _leave(self, task: _Task, start: int) -> None:
        if task.place is not None and task.starts == start:
            self._take_off(task)

    def _take_off(self, task: _Task) -> None:
        assert task.place is not None
        node = task.place[0]
        self._use(task, node, 0.0, 0.0)
        del self.on_node[node][task.number]
        self.fleet.leave(task.demand, task.place)
        self._commit(node, task.demand, -1)
        task.place = None

    def _again(self, task: _Task) -> None:
        """Start again what was killed or lost, unless it would have left by now."""
        if self.now_s >= task.leave_s:
            return
        if self._begin(task):
            self.restarted += 1
        else:
            self.refused += 1

    def _step(self, task: _Task, start: int, begun_s: float) -> None:
        """Use what the task's series says from now on."""
        if task.place is None or task.starts != start or task.next is None:
            return
        step, task.next = task.next, next(task.steps, None)
        node = task.place[0]
        self._use(task, node, step.cpu * task.demand.cpu_milli, step.memory * task.demand.memory_mib)
        if task.next is not None:
            self._at(begun_s + task.next.age_s, partial(self._step, task, start, begun_s))
        self._relieve(node)

    def _use(self, task: _Task, node: int, cpu: float, memory: float) -> None:
        self.cpu_used[node] += cpu - task.cpu
        self.memory_used[node] += memory - task.memory
        self.used[0] += cpu - task.cpu
        self.used[1] += memory - task.memory
        task.cpu, task.memory = cpu, memory
        meter = self.node_meters[node]
        meter.pass_to(self.now_s)
        meter.values[1] = min(self.cpu_used[node], self.specs[node].cpu_milli)
        meter.values[3] = self.memory_used[node]
        short = max(0.0, self.cpu_used[node] - self.specs[node].cpu_milli)
        self.short_now += short - self.short[node]
        self.short[node] = short
        self.meters["cpu_u"].set(self.now_s, self.used[0])
        self.meters["memory_u"].set(self.now_s, self.used[1])
        self.meters["short"].set(self.now_s, self.short_now)

    def _relieve(self, node: int) -> None:
        """The kernel kills until the node's memory is enough."""
        while self.memory_used[node] > self.specs[node].memory_mib and self.on_node[node]:
            victim = max(
                self.on_node[node].values(),
                key=lambda task: (max(0.0, task.memory - task.demand.memory_mib), task.memory, task.number),
            )
            self.oom_kills += 1
            self.node_meters[node].kills += 1
            self._take_off(victim)
            victim.kills += 1
            pause_s = RESTART_S * 2.0 ** min(victim.kills - 1, RESTART_DOUBLINGS_MAX)
            self._at(self.now_s + pause_s, partial(self._again, victim))

    def _commit(self, node: int, demand: Demand, sign: int) -> None:
        meter = self.node_meters[node]
        meter.pass_to(self.now_s)
        meter.values[0] += sign * demand.cpu_milli
        meter.values[2] += sign * demand.memory_mib
        self.committed[0] += sign * demand.cpu_milli
        self.committed[1] += sign * demand.memory_mib
        self.memory_peak = max(self.memory_peak, self.committed[1])
        self.meters["cpu_c"].set(self.now_s, self.committed[0])
        self.meters["memory_c"].set(self.now_s, self.committed[1])

    # --- a node

    def _down(self, outage: Outage, notice_s: float) -> None:
        self.outages += 1
        gone = list(self.on_node[outage.node].values())
        self.lost += len(gone)
        for task in gone:
            self._take_off(task)
            self._at(self.now_s + notice_s, partial(self._again, task))
        self._closed[outage.node] += 1
        if self._closed[outage.node] == 1:
            self.fleet.close(outage.node)
        self._at(outage.up_s, partial(self._up, outage.node))

    def _up(self, node: int) -> None:
        self._closed[node] -= 1
        if not self._closed[node]:
            self.fleet.open(node)

    # --- what came of it

    def _point(self) -> Point:
        return Point(
            self.now_s,
            self.committed[0] / self._cpu,
            (self.used[0] - self.short_now) / self._cpu,
            self.committed[1] / self._memory,
            self.used[1] / self._memory,
        )

    def result(self, complete: bool) -> Result:
        for meter in self.meters.values():
            meter.set(self.now_s, meter.value)
        span_s = self.now_s - self.began_s
        area = {name: meter.area for name, meter in self.meters.items()}

        def mean(name: str, whole: int) -> float:
            return area[name] / span_s / whole if span_s else 0.0

        return Result(
            policy=self.policy,
            ratios=self.ratios,
            tasks=self.tasks,
            refused=self.refused,
            oom_kills=self.oom_kills,
            outages=self.outages,
            lost=self.lost,
            restarted=self.restarted,
            cpu_committed=mean("cpu_c", self._cpu),
            cpu_used=mean("cpu_u", self._cpu) - mean("short", self._cpu),
            cpu_short=area["short"] / area["cpu_u"] if area["cpu_u"] else 0.0,
            memory_committed=mean("memory_c", self._memory),
            memory_used=mean("memory_u", self._memory),
            memory_committed_peak=self.memory_peak / self._memory,
            nodes_used=len(self.ever_used),
            complete=complete,
            curve=self.curve,
            nodes=[self._node_use(number, span_s) for number in range(len(self.specs))],
        )

    def _node_use(self, number: int, span_s: float) -> NodeUse:
        spec, meter = self.specs[number], self.node_meters[number]
        meter.pass_to(self.now_s)
        wholes = (spec.cpu_milli, spec.cpu_milli, spec.memory_mib, spec.memory_mib)
        shares = [
            area / span_s / whole if span_s and whole else 0.0 for area, whole in zip(meter.areas, wholes, strict=True)
        ]
        return NodeUse(spec.name, shares[0], shares[1], shares[2], shares[3], meter.kills)
