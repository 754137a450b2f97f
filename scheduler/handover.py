"""Services that leave a drained node without a gap: the old attempt runs on until the next one is up elsewhere.

The next attempt is made as ever, and is the one that counts from then on; the old one is outdated, like one whose node
was away, only that its home has it stopped a little later. So nothing of this is in the ledger, and nothing else has
to know of two attempts: a home that restarts meanwhile has the old one stopped, which costs a gap and nothing more.

Not for jobs marked single, of which no two attempts may ever run, nor for those with licences, which there may be only
one of, nor for gangs, which start anew together; nor where no other node has room: these are stopped first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from scheduler.alarms import Alarms
from scheduler.attempts import Attempts
from scheduler.condition import ORDINARY, HealthState
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.images import wanted
from scheduler.index import ClusterView
from scheduler.jobs import Job
from scheduler.lifecycle import Phase, Step, phase_of
from scheduler.model import AllocationId, JobKind, OnLost
from scheduler.rules import Rules

Key = tuple[int, int]


class Turn(NamedTuple):
    """What the home does for it: a step of a task, waiting anew, and asking a node at once if nobody waits."""

    step: Callable[..., None]
    wait: Callable[[Effects, Job, int, float], None]
    place_at: Callable[[Effects, Job, str], None]


class Handovers:
    """Of one home: the outdated attempts that may run on, by task."""

    def __init__(
        self,
        config: SchedulerConfig,
        view: ClusterView,
        alarms: Alarms,
        jobs: Mapping[int, Job],
        attempts: Attempts,
        rules: Rules,
        turn: Turn,
    ) -> None:
        self._config = config
        self._view = view
        self._alarms = alarms
        self._jobs = jobs
        self._attempts = attempts
        self._rules = rules
        self._turn = turn
        self._old: dict[Key, tuple[str, AllocationId]] = {}

    def begin(self, fx: Effects, job: Job, index: int, within_s: float) -> bool:
        """Make the next attempt of a task before its present one is stopped, if that may be; return whether it may."""
        record, within_s = job.tasks[index], min(within_s, self._config.handover_s)
        if within_s <= 0 or (job.id, index) in self._old or not self._may(job, index):
            return False
        elsewhere = self._elsewhere(fx, job, record.node)
        if not elsewhere:
            return False
        node, id_, reach = record.node, AllocationId(job.id, index, record.attempt), job.reach.get(index)
        why = f"{node} is drained; attempt {record.attempt} runs on there until the next one does"
        # Said to be leaving, for it is no try.
        job.put(index, msgspec.structs.replace(record, leaving=why))
        self._old[job.id, index] = node, id_
        self._alarms.set(("handover", (job.id, index)), fx.now + within_s)
        self._turn.step(fx, job, index, Step.RETRY, reason=why)
        self._turn.wait(fx, job, index, 0.0)
        if reach is not None:
            job.reach[index] = reach
        # Not where our own view finds best: it may not know yet that the node takes nothing more.
        self._turn.place_at(fx, job, elsewhere[0])
        return True

    def keeps(self, node: str, id_: AllocationId) -> bool:
        """Whether an outdated attempt may run on for now."""
        return self._old.get((id_.job, id_.index)) == (node, id_)

    def changed(self, job: Job, index: int) -> None:
        """A task's newest attempt runs, has ended, or is well: the old one may not be needed any more."""
        if (job.id, index) not in self._old:
            return
        record = job.task(index)
        checked = job.spec.life.health is not None
        well = not checked or job.conditions.get(index, ORDINARY).health is HealthState.HEALTHY
        if record.state.final or (phase_of(record) is Phase.RUNNING and well):
            self.end((job.id, index))

    def end(self, key: Key) -> None:
        """Have the old attempt stopped."""
        old = self._old.pop(key, None)
        if old is not None:
            self._alarms.cancel(("handover", key))
            self._attempts.stop(*old)

    def end_all(self, job: Job) -> None:
        """Its owner wants nothing of it to run on."""
        for key in [key for key in self._old if key[0] == job.id]:
            self.end(key)

    def over(self, node: str, id_: AllocationId) -> None:
        """An old attempt has ended by itself."""
        if self.keeps(node, id_):
            self.end((id_.job, id_.index))

    def ring(self, fx: Effects, key: Key) -> None:
        """It took too long: what waits then has no address any more."""
        job = self._jobs.get(key[0])
        if job is not None and phase_of(job.task(key[1])) is not Phase.RUNNING:
            job.reach.pop(key[1], None)
            fx.job_changed(job.id)
        self.end(key)

    @staticmethod
    def _may(job: Job, index: int) -> bool:
        record, spec = job.tasks[index], job.spec
        alone = spec.kind is JobKind.SERVICE and spec.on_lost is not OnLost.SINGLE and spec.gang is None
        alone = alone and not spec.queueing.licences
        return alone and not job.blocks and not record.leaving and phase_of(record) is Phase.RUNNING

    def _elsewhere(self, fx: Effects, job: Job, node: str) -> list[str]:
        required, images = self._rules.constraints(job.spec, fx.now), wanted(job.spec.image_digest)
        return self._view.best(job.spec.request, required, job.id, images, count=1, avoid=frozenset({node}))
