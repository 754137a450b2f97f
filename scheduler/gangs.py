"""The home's part in gangs: all members get room before any starts, and what happens to one happens to all.

A gang is gathered in two rounds (two-phase commit, with the home as the coordinator, the only one that needs to
remember): each member's attempt is written, then every node is asked to keep room for a moment; when all have agreed,
all are told to start. Who refuses is replaced from this node's own view, twice; after that, or when the moment is
nearly over, everything is given back and the gang waits at the leader again; where nodes are slow the next moment is
longer. So two gangs that each have half of what they need never wait for each other.

When a member fails, the others are stopped. When one is lost, all go back into the line, as long as none has ended.
Owns what is being gathered; the tasks' records are the job's.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from scheduler.abilities import requirements
from scheduler.alarms import Alarms
from scheduler.attempts import Attempts, Terms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.fit import fits, unmet
from scheduler.index import ClusterView
from scheduler.jobs import Job
from scheduler.lifecycle import Phase, Step, phase_of
from scheduler.messages import Declined, Muster
from scheduler.model import AllocationId, Result
from scheduler.outcomes import describe
from scheduler.rooms import PATIENCE_MAX
from scheduler.spec.gang import Gang

TOP_UPS_MAX = 2
GATHER_SHARE = 0.5
"""All have to agree within this share of the nodes' reservations; the rest is for words to start that are lost."""


@dataclass(slots=True)
class _Gathering:
    """A gang on its way: `nodes` by position, `missing` the members that have not agreed (or, then, started) yet."""

    leader: str
    terms: Terms
    nodes: list[str]
    missing: dict[int, None]
    refused_by: dict[str, None] = field(default_factory=dict)
    top_ups: int = 0
    starting: bool = False


@dataclass(frozen=True, slots=True)
class Hands:
    """What the home does to single tasks: ask for the job's next one at a node, take one a step along the lifecycle's
    table, line one up again after a pause, and how long that pause should be after a refusal.
    """

    ask: Callable[[Effects, Job, str, str, Terms], AllocationId]
    step: Callable[..., None]
    wait: Callable[[Effects, Job, int, float], None]
    pause_s: Callable[[Job], float]


class Gangs:
    """The gangs among one home's jobs."""

    def __init__(
        self,
        config: SchedulerConfig,
        view: ClusterView,
        alarms: Alarms,
        jobs: Mapping[int, Job],
        attempts: Attempts,
        hands: Hands,
    ) -> None:
        self._config = config
        self._view = view
        self._alarms = alarms
        self._jobs = jobs
        self._attempts = attempts
        self._hands = hands
        self._gathering: dict[int, _Gathering] = {}
        self._too_slow: dict[int, int] = {}

    # --- beginning

    def place_now(self, fx: Effects, job: Job) -> None:
        """The fast path: nobody waits, so gather by our own view."""
        gang = _gang(job)
        nodes = self._choose(job, gang.nodes, ())
        if len(nodes) == gang.nodes:
            self._begin(fx, job, nodes, "by its home", "", Terms())

    def muster(self, fx: Effects, job: Job, leader: str, order: Muster) -> None:
        """Gather as the leader ordered."""
        if len(set(order.nodes)) != _gang(job).nodes:
            fx.say(leader, Declined(order.epoch, order.go, 1))
            return
        terms = Terms(order.epoch, order.go, order.rank)
        self._begin(fx, job, list(order.nodes), f"by the leader, {leader}{order.why}", leader, terms)

    def _begin(self, fx: Effects, job: Job, nodes: list[str], whom: str, leader: str, terms: Terms) -> None:
        gang = _gang(job)
        reserve_s = self._config.reserve_s * min(2 ** self._too_slow.get(job.id, 0), PATIENCE_MAX)
        terms = terms._replace(reserve_s=reserve_s)
        self._gathering[job.id] = _Gathering(leader, terms, nodes, dict.fromkeys(range(gang.size)))
        self._alarms.set(("gather", job.id), fx.now + GATHER_SHARE * reserve_s)
        for node in nodes:
            for _ in range(gang.tasks_per_node):
                self._hands.ask(fx, job, node, f"placed on {node} {whom}", terms)

    # --- what nodes answer

    def reserved(self, fx: Effects, job: Job, id_: AllocationId, node: str) -> None:
        """A node keeps room for a member; when all do, all start."""
        state = self._gathering.get(job.id)
        if state is None or state.starting:
            # A late answer to the first question: it must not silence the second.
            return
        self._attempts.answered(node, id_)
        state.missing.pop(id_.index, None)
        if not state.missing:
            self._start(fx, job, state)

    def admitted(self, job: Job, index: int) -> None:
        """A node took a member for good."""
        state = self._gathering.get(job.id)
        if state is not None and state.starting:
            state.missing.pop(index, None)
            if not state.missing:
                self.forget(job)
                self._too_slow.pop(job.id, None)

    def refused(self, fx: Effects, job: Job, indices: Sequence[int], why: str) -> None:
        """A node did not take members: find it a substitute, or give all back."""
        state = self._gathering.get(job.id)
        gang = _gang(job)
        if state is None or state.starting:
            # Others may have started, and even ended, already.
            self.lost(fx, job, indices[0], why, may_retry=True)
            return
        positions = sorted({index // gang.tasks_per_node for index in indices})
        substitutes: list[str] = []
        state.refused_by.update(dict.fromkeys(state.nodes[position] for position in positions))
        if state.top_ups < TOP_UPS_MAX and not job.blocks:  # It may have been held meanwhile.
            substitutes = self._choose(job, len(positions), (*state.nodes, *state.refused_by))
        if len(substitutes) < len(positions):
            self._give_back(fx, job, why)
            return
        state.top_ups += 1
        for position, node in zip(positions, substitutes, strict=True):
            self._replace(fx, job, state, position, node, why)

    def _replace(self, fx: Effects, job: Job, state: _Gathering, position: int, node: str, why: str) -> None:
        size = _gang(job).tasks_per_node
        for index in range(position * size, (position + 1) * size):
            self._stop(job, index)
            self._hands.step(fx, job, index, Step.REFUSE, reason=why)
            job.wait_again(index)
        state.nodes[position] = node
        for _ in range(size):
            id_ = self._hands.ask(fx, job, node, f"placed on {node} by its home; {why}", state.terms)
            state.missing[id_.index] = None

    def _start(self, fx: Effects, job: Job, state: _Gathering) -> None:
        state.starting = True
        self._alarms.cancel(("gather", job.id))
        terms = state.terms._replace(reserve_s=0.0, gang_nodes=tuple(state.nodes))
        for index in job.live:
            state.missing[index] = None
            record = job.tasks[index]
            self._attempts.ask_again(AllocationId(job.id, index, record.attempt), record.node, terms)

    def ring_gather(self, fx: Effects, job_id: int) -> None:
        """The nodes' reservations are nearly over, and not all have agreed."""
        state, job = self._gathering.get(job_id), self._jobs.get(job_id)
        if state is not None and job is not None and not state.starting:
            self._too_slow[job.id] = min(self._too_slow.get(job.id, 0) + 1, PATIENCE_MAX)
            silent = sorted({job.tasks[index].node for index in state.missing})
            self._give_back(fx, job, f"no answer in time from {', '.join(silent[:3])}")

    def _give_back(self, fx: Effects, job: Job, why: str) -> None:
        """Release all, and wait at the leader again."""
        job.refusals += 1
        self._all_back(fx, job, why, self._hands.pause_s(job))

    # --- ends

    def ended(self, fx: Effects, job: Job, index: int, result: Result, may_retry: bool) -> None:
        """A member's newest attempt ended by itself, or could not be run."""
        if result.success:
            self._hands.step(fx, job, index, Step.SUCCEED, result=result)
        elif result.error is not None and result.exit_code is None and may_retry and not job.ended_any:
            pause_s = min(self._config.restart_s * 2 ** min(job.tasks[index].tries, 30), self._config.restart_max_s)
            self._all_back(fx, job, describe(result), pause_s)
        else:
            self._hands.step(fx, job, index, Step.FAIL, reason=describe(result), result=result)
            self._end_others(fx, job, f"rank {index} failed: {describe(result)}")

    def lost(self, fx: Effects, job: Job, index: int, why: str, may_retry: bool) -> None:
        """A member is lost with its node, or had to leave it; an end that is known to all can't be taken back."""
        if index not in job.live:
            return  # Another member of the same node was lost just before, and took this one along.
        if may_retry and not job.ended_any:
            self._all_back(fx, job, why, 0.0)
        else:
            self._hands.step(fx, job, index, Step.LOSE, reason=why)
            self._end_others(fx, job, f"rank {index} is lost: {why}")

    def forget(self, job: Job) -> None:
        """Nothing is gathered for this job any more."""
        if self._gathering.pop(job.id, None) is not None:
            self._alarms.cancel(("gather", job.id))

    def _all_back(self, fx: Effects, job: Job, why: str, pause_s: float) -> None:
        """Stop every live member; all wait for the next attempt together."""
        state = self._gathering.get(job.id)
        if state is not None and state.terms.epoch and state.leader:
            fx.say(state.leader, Declined(state.terms.epoch, state.terms.go, 1))
        self.forget(job)
        for index in list(job.live):
            self._stop(job, index)
            asked = phase_of(job.tasks[index]) is Phase.ASKED
            self._hands.step(fx, job, index, Step.REFUSE if asked else Step.RETRY, reason=why)
            self._hands.wait(fx, job, index, pause_s)

    def _end_others(self, fx: Effects, job: Job, why: str) -> None:
        self.forget(job)
        for index in list(job.live):
            self._stop(job, index)
            self._hands.step(fx, job, index, Step.CANCEL, reason=why)
        for index in job.clear_waiting():
            self._alarms.cancel(("again", (job.id, index)))
            self._hands.step(fx, job, index, Step.CANCEL, reason=why)

    # --- inside

    def _stop(self, job: Job, index: int) -> None:
        record = job.tasks[index]
        self._attempts.stop(record.node, AllocationId(job.id, index, record.attempt))

    def _choose(self, job: Job, count: int, without: Iterable[str]) -> list[str]:
        """Choose so many nodes for a share of the gang each, by our own view; fewer when there are no more."""
        amount = job.spec.request * _gang(job).tasks_per_node
        constraints, taken = requirements(job.spec), frozenset(without)
        found = [
            (self._view.grade(amount, node, job.id), node.name)
            for node in self._view.nodes()
            if node.usable
            and fits(amount, node.free)
            and node.name not in taken
            and unmet(constraints, node.labels) is None
        ]
        return [name for _, name in heapq.nsmallest(count, found)]


def _gang(job: Job) -> Gang:
    gang = job.spec.gang
    assert gang is not None
    return gang
