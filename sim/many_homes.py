"""One queue over several homes: a batch trace played through whole agents' scheduling machines, not through a planner.

Every node has a real machine; jobs are submitted to a few of them in turn, gangs and all. Messages take a millisecond
and may be lost; what is gossiped is heard some time later; the leader may be killed again and again, and hosts may fail
with what runs there. Containers are virtual, disks never fail, and nothing but the network is modelled. What comes out
are the starts, to be compared with those of one central planner that knows everything at once (`sim.replay`). A job
that a failed host took with it starts again: the last start counts.

Leaner than a fault world (`sim.world`), for a year of a cluster is a million messages: no checkers, no torn commits.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import inf

from scheduler import SchedulerConfig
from scheduler.events import Event, MemberDown, MemberFailed, MemberUp, Submit
from scheduler.messages import decode
from scheduler.model import AllocationId, JobSpec, Resources, Result
from scheduler.spec.gang import Gang
from sim.homes_gossip import HomesGossip
from sim.machines import Host, Links, Machines
from sim.outages import Outage
from sim.replay import Ran
from sim.workload import Workload

TASK = Resources(1000, 1 << 20)
ATTEMPTS_MAX = 100
"""No job of a trace is given up because hosts failed."""
BEGINS_S = 10.0
"""The agents find each other before the trace begins."""
QUIET_S = 3600.0


@dataclass(frozen=True, slots=True)
class Setting:
    """What is tried. Times of the trace are divided by `faster`; the machines' own times are not.

    `homes`: how many nodes take jobs, the first one being number `home_first`. `kill_every`: after so many submissions
    the leader's agent dies; its death is known after `notice_s`, and it is started again after `down_s`. `outages`, in
    the trace's time: which host is lost when, and back when; that is known after `notice_s`, too. With `real_gossip`
    all nodes gossip as agents do, and neither `gossip_s` nor `notice_s` counts.
    """

    nodes: int = 100
    homes: int = 5
    home_first: int = 11
    faster: float = 1.0
    latency_s: float = 0.001
    gossip_s: float = 1.0
    loss: float = 0.0
    kill_every: int = 0
    notice_s: float = 1.0
    down_s: float = 6.0
    queue_policy: str = "easy"
    seed: int = 1
    outages: tuple[Outage, ...] = ()
    real_gossip: bool = False


@dataclass(slots=True)
class Starts:
    """What came out: when the last task of each job started (None: never), and what it took."""

    starts_s: list[float | None]
    figures: Counter[str]


class ManyHomes(Machines):
    """The cluster, its network and its clients."""

    def __init__(self, workload: Workload, setting: Setting) -> None:
        self.workload = workload
        self.setting = setting
        self.starts: list[float | None] = [None] * len(workload)
        self.ran: list[Ran] = []
        self._begun_s: dict[AllocationId, float] = {}
        config = _config(setting)
        hosts = [Host(f"n{number}", number, TASK, config=config) for number in range(1, setting.nodes + 1)]
        first = setting.home_first
        homes = [f"n{number}" for number in range(first, first + setting.homes)]
        # Those that take jobs or may come to lead hear gossip.
        listeners = dict.fromkeys([*homes, *(host.name for host in hosts[:3])])
        links = Links(setting.latency_s, setting.gossip_s, setting.loss, setting.seed)
        super().__init__(hosts, list(listeners), links)
        self._real = HomesGossip(self) if setting.real_gossip else None
        self._homes = [self.hosts[name] for name in homes]
        self._waits_for: dict[int, int] = {}
        self._numbers: dict[int, int] = {}

    def run(self) -> Starts:
        """Play the whole workload, and then until everything has started and ended."""
        self.start_all()
        self.kernel.at(BEGINS_S, self._submit, 0)
        nodes = list(self.hosts.values())
        for outage in self.setting.outages:
            down_s, up_s = (BEGINS_S + each / self.setting.faster for each in outage[1:])
            self.kernel.at(down_s, self._fail, nodes[outage.node])
            if up_s < inf:
                self.kernel.at(up_s, self._restart, nodes[outage.node])
        end_s = BEGINS_S + self.workload.submit_s[-1] / self.setting.faster
        self.kernel.run_until(end_s)
        left = 0
        last_s = max([BEGINS_S + each.down_s / self.setting.faster for each in self.setting.outages], default=0.0)
        while (None in self.starts or self.kernel.now <= last_s) and left < 10_000:
            self._submitted_all()
            self.kernel.run_until(self.kernel.now + 3600 / self.setting.faster + 1)
            left += 1
        return Starts([None if at_s is None else at_s - BEGINS_S for at_s in self.starts], self.figures)

    def _submitted_all(self) -> None:
        """An hour begins in which nothing is submitted any more."""

    # --- clients

    def _submit(self, job: int) -> None:
        work, faster = self.workload, self.setting.faster
        while True:
            self._submit_one(job)
            if self.setting.kill_every and (job + 1) % self.setting.kill_every == 0:
                self._kill_leader()
            job += 1
            if job == len(work):
                return
            due_s = BEGINS_S + work.submit_s[job] / faster
            if due_s > self.kernel.now:
                self.kernel.at(due_s, self._submit, job)
                return

    def _submit_one(self, job: int) -> None:
        work, faster = self.workload, self.setting.faster
        home = next((home for home in self._turn(job) if home.agent is not None), None)
        if home is None:
            self.kernel.after(self.setting.notice_s, self._submit_one, job)
            return
        need = work.needs[job]
        spec = JobSpec(
            name=f"j{job}",
            argv=("run",),
            request=TASK,
            time_limit_s=work.estimate_s[job] / faster,
            gang=Gang(nodes=need) if need > 1 else None,
            attempts_max=ATTEMPTS_MAX,
        )
        self._waits_for[job] = need
        self.give(home, Submit("user", spec, self.kernel.now))

    def _turn(self, job: int) -> list[Host]:
        place = job % len(self._homes)
        return self._homes[place:] + self._homes[:place]

    # --- agents and hosts that die

    def _kill_leader(self) -> None:
        leader = next(host for host in self.hosts.values() if host.agent is not None)
        self.stop_agent(leader)
        self.figures["killed"] += 1
        self._notice(leader, MemberDown(leader.name))
        self.kernel.after(self.setting.down_s, self._restart, leader)

    def _fail(self, host: Host) -> None:
        for job in {self._numbers[id_.job] for id_ in host.running}:
            self._waits_for[job], self.starts[job] = self.workload.needs[job], None
        for id_ in host.running:
            self._note_ran(host, id_)
        self.lose(host)
        self.figures["failed"] += 1
        if self._real is not None:
            self._real.lost(host)
        self._notice(host, MemberFailed(host.name))

    def _restart(self, host: Host) -> None:
        if host.agent is not None:
            return
        self.start(host)
        if self._real is None:
            self.tell(host)
        self._notice(host, MemberUp(host.name, host.number, host.boot_epoch))

    # --- gossip

    def _notice(self, host: Host, event: Event) -> None:
        """All others come to know of a host's coming or going; real gossip finds out by itself."""
        if self._real is None:
            self.kernel.after(self.setting.notice_s, self.tell_all, host, event)

    def start(self, host: Host) -> None:
        """Start an agent, and its gossip."""
        host.published.clear()
        super().start(host)
        if self._real is not None:
            self._real.started(host)

    def stop_agent(self, host: Host) -> None:
        """End an agent, and its gossip."""
        super().stop_agent(host)
        if self._real is not None:
            self._real.stopped(host)

    def meet_all(self) -> None:
        """Let the agents know each other."""
        if self._real is not None:
            self._real.meet_all()
        else:
            super().meet_all()

    def publish(self, host: Host, key: str, value: bytes) -> None:
        """Let others hear of it, by gossip."""
        if self._real is not None:
            self._real.published(host, key, value)
        else:
            super().publish(host, key, value)

    # --- containers

    def begun(self, host: Host, id_: AllocationId, spec: JobSpec) -> float:
        """Note when the last task of a job began."""
        self._begun_s[id_] = self.kernel.now
        job = self._numbers[id_.job] = int(spec.name[1:])
        self._waits_for[job] -= 1
        if self._waits_for[job] <= 0:
            self.starts[job] = self.kernel.now
        return self.workload.run_s[job] / self.setting.faster

    def over(self, host: Host, id_: AllocationId, result: Result) -> None:
        """Note where it ran."""
        self._note_ran(host, id_)

    def _note_ran(self, host: Host, id_: AllocationId) -> None:
        begun_s = self._begun_s.pop(id_) - BEGINS_S
        self.ran.append(Ran(begun_s, self.kernel.now - BEGINS_S, host.number - 1))


def _config(setting: Setting) -> SchedulerConfig:
    """What is told again and again only as a backstop is told seldom: a trace of a year has millions of seconds."""
    quiet_s = QUIET_S if setting.faster < 100 else QUIET_S / 10
    return SchedulerConfig(
        queue_policy=setting.queue_policy,
        report_interval_s=quiet_s,
        holding_interval_s=quiet_s,
        census_interval_s=quiet_s,
        settings_interval_s=quiet_s,
        follow_interval_s=quiet_s,
        usage_interval_s=quiet_s,
        leader_publish_s=60.0,
        hold_ttl_s=10 * quiet_s if setting.faster < 100 else 60.0,
        history_jobs=100,
    )


def count_items(message: bytes) -> Counter[str]:
    """Return what a message says, by kind, for those who look for waste."""
    return Counter(type(item).__name__ for item in decode(message, len(message)))
