"""From a fault world that breaks a promise to the few steps that do it, so that one can read what happened.

Owns the search: delta debugging (Zeller and Hildebrandt, TSE 2002) over the plan's faults and wishes, then features,
the links' trouble, nodes and arrays, each as long as the same promise is still broken. The plan is data and a world
draws its chances from its seed alone, so the same plan always shrinks to the same few steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from msgspec.structs import replace as replace_fields

from scheduler.model import ArrayRange
from sim.faults import Fault, Plan, Wish
from sim.network import Link
from sim.world import WorldResult, run_world

RUNS_MAX = 500
TRACE_SHOWN = 160

Step = Fault | Wish
T = TypeVar("T")


@dataclass(frozen=True)
class Shrunk:
    """The least plan found, what came of it, and how many worlds it took."""

    result: WorldResult
    promise: str
    steps_before: int
    runs: int

    @property
    def steps(self) -> int:
        """How many faults and wishes are left."""
        return _steps(self.result.plan)


def shrink(broken: WorldResult, runs_max: int = RUNS_MAX) -> Shrunk:
    """Return the least plan found that breaks the first promise that `broken` broke; raises ValueError if none was."""
    if broken.passed:
        raise ValueError(f"seed {broken.plan.seed} broke no promise: there is nothing to shrink")
    search = _Search(broken, runs_max)
    before = -1
    while search.size() != before:
        before = search.size()
        search.round()
    result = run_world(broken.plan.seed, plan=search.plan, traced=True)
    return Shrunk(result, search.promise, _steps(broken.plan), search.runs)


class _Search:
    """The least plan so far. A candidate replaces it if the same promise is broken there too."""

    def __init__(self, broken: WorldResult, runs_max: int) -> None:
        self.plan = broken.plan
        self.promise = broken.violations[0].promise
        self.runs = 0
        self._runs_max = runs_max

    def size(self) -> int:
        """A measure of what could still be taken away."""
        plan = self.plan
        spans = sum(len(wish.spec.array) if wish.spec and wish.spec.array else 0 for wish in plan.wishes)
        return _steps(plan) + len(plan.nodes) + len(plan.slow) + len(plan.features.names()) + spans

    def round(self) -> None:
        """Try to take away some of everything."""
        self._fewer(lambda plan: plan.faults, lambda plan, kept: replace(plan, faults=tuple(kept)))
        self._fewer(lambda plan: range(len(plan.wishes)), _keep_wishes)
        for candidates in (_calmer, _smaller_arrays, _fewer_nodes):
            self._first_that_breaks(candidates)

    def _broken_by(self, plan: Plan) -> bool:
        if plan == self.plan or self.runs >= self._runs_max:
            return False
        self.runs += 1
        violations = run_world(plan.seed, plan=plan).violations
        if any(violation.promise == self.promise for violation in violations):
            self.plan = plan
            return True
        return False

    def _fewer(self, parts: Callable[[Plan], Sequence[T]], keep: Callable[[Plan, list[T]], Plan]) -> None:
        """Take parts away in ever smaller pieces."""
        piece = max(len(parts(self.plan)), 1)
        while piece:
            at = 0
            while at < len(current := parts(self.plan)):
                if not self._broken_by(keep(self.plan, [*current[:at], *current[at + piece :]])):
                    at += piece
            piece //= 2

    def _first_that_breaks(self, candidates: Callable[[Plan], Iterator[Plan]]) -> None:
        """Take each simpler plan that still breaks the promise, and go on from there."""
        while any(self._broken_by(plan) for plan in candidates(self.plan)):
            pass


def _steps(plan: Plan) -> int:
    return len(plan.faults) + len(plan.wishes)


def _keep_wishes(plan: Plan, kept: list[int]) -> Plan:
    """Leave out wishes, and with them what was to be done to their jobs or waited for them."""
    new_of: dict[int, int] = {}
    wishes: list[Wish] = []
    for old in kept:
        wish = plan.wishes[old]
        if wish.of is None or wish.of in new_of:
            new_of[old] = len(wishes)
            of = None if wish.of is None else new_of[wish.of]
            after = tuple((kind, new_of[each]) for kind, each in wish.after if each in new_of)
            wishes.append(replace(wish, of=of, after=after))
    return replace(plan, wishes=tuple(wishes))


def _calmer(plan: Plan) -> Iterator[Plan]:
    """Yield plans with one kind of trouble less."""
    yield replace(plan, link=Link())
    if plan.slow:
        yield replace(plan, slow=())
    for name in plan.features.names():
        yield replace(plan, features=replace(plan.features, **{name: False}))


def _smaller_arrays(plan: Plan) -> Iterator[Plan]:
    """Yield plans with one array less, or a shorter one."""
    for at, wish in enumerate(plan.wishes):
        spec = wish.spec
        if spec is not None and spec.array is not None:
            shorter = (None, *(ArrayRange(0, last) for last in (1, 3) if last + 1 < len(spec.array)))
            for array in shorter:
                simpler = replace(wish, spec=replace_fields(spec, array=array))
                yield replace(plan, wishes=(*plan.wishes[:at], simpler, *plan.wishes[at + 1 :]))


def _fewer_nodes(plan: Plan) -> Iterator[Plan]:
    """Yield the plan without its last node, if nothing names that."""
    last = plan.nodes[-1]
    named = {name for fault in plan.faults for name in fault.nodes} | {wish.home for wish in plan.wishes}
    if len(plan.nodes) > 1 and last not in named:
        homes = tuple(name for name in plan.homes if name != last)
        slow = tuple(name for name in plan.slow if name != last)
        if homes:
            fewer = replace(plan, nodes=plan.nodes[:-1], homes=homes, slow=slow)
            yield replace(fewer, capacities=plan.capacities[:-1], labels=plan.labels[:-1])


def format_shrunk(shrunk: Shrunk) -> str:
    """Describe the least plan, and what happened, in lines one can read."""
    return "\n".join(_lines(shrunk))


def _lines(shrunk: Shrunk) -> Iterator[str]:
    plan = shrunk.result.plan
    yield f"{shrunk.steps} of {shrunk.steps_before} steps still break '{shrunk.promise}' ({shrunk.runs} worlds tried)"
    yield f"nodes: {', '.join(plan.nodes)}; homes: {', '.join(plan.homes)}; trouble until {plan.trouble_s:g} s"
    yield f"features: {', '.join(plan.features.names()) or 'none'}; links: {plan.link}"
    steps = [(step.at_s, describe_step(step, number)) for number, step in _numbered(plan)]
    yield from (f"{at_s:9.3f}  {text}" for at_s, text in sorted(steps))
    yield "what happened:"
    yield from _excerpt(shrunk.result, shrunk.promise)


def _numbered(plan: Plan) -> Iterator[tuple[int, Step]]:
    yield from enumerate(plan.faults)
    yield from enumerate(plan.wishes)


def describe_step(step: Step, number: int) -> str:
    """Write one step of a plan in a line."""
    if isinstance(step, Fault):
        return f"{step.kind} of {', '.join(step.nodes)} for {step.lasts_s:g} s, at step {step.steps}"
    if step.spec is None:
        return f"{step.act} the job of wish {step.of}"
    spec = step.spec
    facts = [f"wish {number}: submit {spec.name} to {step.home}", f"{spec.request.cpu_milli} mCPU"]
    facts.append(spec.kind.name.lower())
    if spec.array is not None:
        facts.append(f"array of {len(spec.array)}")
    if spec.gang is not None:
        facts.append(f"gang of {spec.gang.nodes}")
    facts += [f"after {kind.name.lower()} of wish {of}" for kind, of in step.after]
    return ", ".join(facts)


def _excerpt(result: WorldResult, promise: str) -> Iterator[str]:
    """The trace up to the first break of the promise, its middle left out if it is long."""
    first = next(each for each in result.violations if each.promise == promise)
    lines = [line for line in result.trace if float(line.split(maxsplit=1)[0]) <= first.at_s]
    left_out = len(lines) - TRACE_SHOWN
    if left_out > 0:
        lines[TRACE_SHOWN // 2 : -TRACE_SHOWN // 2] = [f"           ... {left_out} lines left out ..."]
    yield from lines
    yield f"{first}"
