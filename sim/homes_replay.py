"""A batch trace through whole agents with several homes, as a replay like any other.

Where `sim.replay` asks one planner that knows everything, here every processor is a node with the agents' own machine,
jobs are submitted to several homes in turn, messages take time and may be lost, and what is gossiped is heard later.
Owns the translation: a setting and a workload in, a Schedule out, so that results and reports are the same.
"""

from __future__ import annotations

from dataclasses import replace

from scheduler.model import NODE_NUMBER_MAX
from sim.errors import BadValue
from sim.many_homes import BEGINS_S, ManyHomes, Setting
from sim.replay import Ran, Schedule, Watch
from sim.workload import Workload

FASTER_MAX = 1_000_000
POLICIES = ("easy", "fcfs", "conservative")


class Interrupted(Exception):
    """The watcher had enough."""


class _Watched(ManyHomes):
    """Tells a watcher of every job that is submitted, and of every hour after the last."""

    def __init__(self, workload: Workload, setting: Setting, watch: Watch) -> None:
        super().__init__(workload, setting)
        self._watch = watch

    def _submit_one(self, job: int) -> None:
        if not self._watch(job, self.kernel.now):
            raise Interrupted
        super()._submit_one(job)

    def _submitted_all(self) -> None:
        if not self._watch(len(self.workload), self.kernel.now):
            raise Interrupted


def replay_homes(workload: Workload, processors: int, setting: Setting, watch: Watch | None = None) -> Schedule:
    """Play the workload on so many one-processor nodes; raises BadValue for what no such cluster can be.

    With `setting.faster` the agents see the trace compressed; the times that come out are the trace's again.
    """
    if not 1 <= processors <= NODE_NUMBER_MAX:
        raise BadValue(
            "processors", processors, f"with homes every processor is a node, so from 1 to {NODE_NUMBER_MAX}"
        )
    if not 1 <= setting.homes <= processors:
        raise BadValue("homes", setting.homes, f"from 1 to the {processors} processors")
    if not 0 < setting.faster <= FASTER_MAX:
        raise BadValue("faster", setting.faster, f"above 0, at most {FASTER_MAX:,}")
    if setting.queue_policy not in POLICIES:
        raise BadValue("policy", setting.queue_policy, f"the agents' queue has {', '.join(POLICIES)}")
    if workload.needs and max(workload.needs) > processors:
        raise BadValue("processors", processors, f"a job asks for {max(workload.needs)}")
    first = min(setting.home_first, processors - setting.homes + 1)
    run = _Watched(workload, replace(setting, nodes=processors, home_first=first), watch or (lambda _done, _now: True))
    complete = True
    try:
        starts = run.run().starts_s
    except Interrupted:
        starts, complete = [None if at_s is None else at_s - BEGINS_S for at_s in run.starts], False
    faster = setting.faster
    until_s = (run.kernel.now - BEGINS_S) * faster
    name = f"{setting.queue_policy}, {setting.homes} homes{', real gossip' if setting.real_gossip else ''}"
    if setting.outages:
        name += f", {run.figures['failed']} failure{'s'[: run.figures['failed'] != 1]}"
    exact = [
        None if at_s is None else max(at_s * faster, submit_s)
        for at_s, submit_s in zip(starts, workload.submit_s, strict=True)
    ]
    ran = [Ran(each.start_s * faster, each.end_s * faster, each.node) for each in run.ran]
    return Schedule(workload, processors, name, False, exact, until_s, complete, run.figures["events"], ran)
