"""One host of a fault world: a real scheduling machine, with a disk, containers and a clock that are virtual.

Does what an agent's shell does, in the same order: outcomes are committed in groups, then their actions are carried out
one by one. A crash may fall on any of these steps; it takes all that was not committed, and every action not yet
carried out. Containers survive their agent and die with their host, and some of what was not synced with them. Clocks:
each host's monotonic clock has its own zero, its wall clock its own error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from scheduler import Scheduler
from scheduler.errors import SchedulerError
from scheduler.events import (
    Action,
    AmendContainer,
    Change,
    ContainerChanged,
    ContainerEnded,
    ContainerFrozen,
    ContainerStarted,
    ContainerThawed,
    Event,
    FreezeContainer,
    Measured,
    Outcome,
    Publish,
    Received,
    RemoveContainer,
    RenewLease,
    Send,
    StartContainer,
    StopContainer,
    ThawContainer,
    Timer,
)
from scheduler.leases import is_single
from scheduler.model import Allocation, AllocationId, Resources, Result
from scheduler.records import ALLOCATIONS, TABLES, HeldRecord, read_table
from sim.faults import UNIX_ZERO_S
from sim.kernel import Handle
from sim.world_disk import CommitLog

if TYPE_CHECKING:
    from sim.world import World

STEP_S = 1e-6


@dataclass(slots=True)
class Container:
    """A virtual container: starting, running, or ended with a result that outlives its agent.

    `run_out` ends it with what it did when it has run for long enough; one that is `frozen` has `left_s` of that before
    it. `stopping`: the kernel has been asked to end it.
    """

    allocation: Allocation
    since_s: float
    running: bool = False
    frozen: bool = False
    stopping: bool = False
    left_s: float = 0.0
    due_s: float = 0.0
    outcome: Result | None = None
    result: Result | None = None
    timer: Handle | None = None
    lease: Handle | None = None


@dataclass(slots=True)
class _Queued:
    outcome: Outcome
    answer: Callable[[object], object] | None = None


@dataclass(eq=False)
class Host:
    """A host, its agent when one runs, its disk and its containers."""

    world: World
    name: str
    number: int
    capacity: Resources
    labels: tuple[tuple[str, str], ...]
    skew_s: float
    slow: bool
    up: bool = True
    left: bool = False
    lost: bool = False
    agent: Scheduler | None = None
    boot_epoch: int = 0
    disk: dict[str, dict[str, bytes]] = field(default_factory=lambda: {table: {} for table in TABLES})
    containers: dict[AllocationId, Container] = field(default_factory=dict)
    published: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    accepting: bool = True
    crash_steps: int | None = None
    commits: CommitLog = field(default_factory=CommitLog)
    _life: int = 0
    _queue: list[_Queued] = field(default_factory=list)
    _busy: bool = False
    _timer: Handle | None = None
    _latest_s: float = 0.0

    # --- clocks

    def clock(self) -> float:
        """This host's monotonic clock; never falls, also not by rounding."""
        self._latest_s = max(self._latest_s, self.world.kernel.now + self.skew_s)
        return self._latest_s

    def unix(self) -> float:
        """This host's wall clock, wrong by its skew."""
        return UNIX_ZERO_S + self.world.kernel.now + self.skew_s

    # --- the agent's life

    def start(self) -> None:
        """Start the agent: restore from disk, then tell it what the runtime found."""
        if self.agent is not None or not self.up:
            return
        self.left = False
        self.boot_epoch += 1
        self.crash_steps = None
        self.world.note(self.name, f"agent starts, boot {self.boot_epoch}")
        self.agent = Scheduler(self.world.config, self.name, self.number, self.boot_epoch, self.world.plan.seed)
        rows = {table: dict(entries) for table, entries in self.disk.items()}
        self._enqueue(self.agent.restore(self.clock(), self.unix(), rows))
        self.world.network.attach(self.name, on_datagram=self._on_datagram)
        self.post(Measured(self.capacity, self.capacity, Resources(), self.labels))
        self._recover()
        self.world.members.started(self)
        self._arm()

    def _recover(self) -> None:
        known = [each for each in read_table(self.disk, ALLOCATIONS, HeldRecord).values() if each.result is None]
        for record in known:
            waits_for_lease = is_single(record.allocation) and not self.world.checks.has_started(record.allocation.id)
            if record.allocation.id not in self.containers and not waits_for_lease:
                self.post(ContainerEnded(record.allocation.id, Result(error="the container is gone")))
        for id_, container in list(self.containers.items()):
            if container.result is not None:
                self.post(ContainerEnded(id_, container.result))
            elif container.running:
                self.post(ContainerStarted(id_, self.unix()))

    def crash(self) -> None:
        """The agent dies as by SIGKILL: what was not committed or carried out is gone."""
        if self.agent is None:
            return
        self.world.note(self.name, "agent dies")
        self.agent = None
        self.world.members.stopped(self)
        self.crash_steps = None
        self._life += 1
        self._queue.clear()
        self._busy = False
        self.world.network.detach(self.name)

    def lose_power(self) -> None:
        """The host dies: agent and containers with it; the disk stays, but for some of what was not synced."""
        self.crash()
        lost = self.commits.lose_power(self.disk, self.world.kernel.random("power", self.name, self.boot_epoch))
        if lost:
            self.world.note(self.name, f"{lost} commits that were not synced are lost")
        self.up = False
        self.world.note(self.name, "host dies")
        self.world.set_host(self.name, up=False)
        for id_, container in list(self.containers.items()):
            if container.result is None:
                for timer in (container.timer, container.lease):
                    if timer is not None:
                        timer.cancel()
                self.world.checks.container_over(self.name, id_, None)
                del self.containers[id_]

    def lose_disk(self) -> None:
        """The ledger and what ended containers left behind are gone."""
        self.world.note(self.name, "disk is lost")
        for table in self.disk.values():
            table.clear()
        self.commits.clear()
        self.containers.clear()

    def get_power(self) -> None:
        """The host boots, unless it is lost for good; its agent starts."""
        if self.lost:
            return
        self.up = True
        self.world.set_host(self.name, up=True)
        self.start()

    # --- events in, outcomes through the disk, actions out

    def post(self, event: Event) -> None:
        """Give the agent an event that comes from no user."""
        if self.agent is not None:
            self._enqueue(self._handle(self.agent, self.clock(), event))

    def ask(self, event: Event, answer: Callable[[object], object]) -> None:
        """Give the agent a user's event; `answer` is called when what it decided is durable. Refusals are dropped."""
        if self.agent is None:
            return
        try:
            outcome = self._handle(self.agent, self.clock(), event)
        except SchedulerError as error:
            self.world.note(self.name, f"refuses: {error}")
            return
        self._enqueue(outcome, answer)

    def _handle(self, agent: Scheduler, now: float, event: Event) -> Outcome:
        outcome = agent.handle(now, event)
        self._arm()
        return outcome

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self.agent.next_timer() if self.agent is not None else None
        if due is not None:
            self._timer = self.world.kernel.at(due - self.skew_s, self._ring, self._life, due)

    def _ring(self, life: int, due: float) -> None:
        if life == self._life and self.agent is not None:
            self._latest_s = max(self._latest_s, due)
            self.post(Timer())

    def _enqueue(self, outcome: Outcome, answer: Callable[[object], object] | None = None) -> None:
        self._queue.append(_Queued(outcome, answer))
        if not self._busy:
            self._busy = True
            self.world.kernel.after(0.05 if self.slow else 0.0005, self._commit, self._life)

    def _commit(self, life: int) -> None:
        if life != self._life or self._crashes_here():
            return
        batch, self._queue = self._queue, []
        changes = [change for queued in batch for change in queued.outcome.changes]
        self.commits.commit(self.disk, changes, self._about_to)
        steps: list[Callable[[], object]] = []
        for queued in batch:
            if queued.answer is not None:
                steps.append(partial(queued.answer, queued.outcome.answer))
            steps += [partial(self._carry_out, action) for action in queued.outcome.actions]
        self._walk(life, steps, 0)

    def _about_to(self, change: Change) -> None:
        self.world.checks.committing(self.name, change, self.disk)

    def _walk(self, life: int, steps: list[Callable[[], object]], position: int) -> None:
        """Carry out the steps one by one; a crash may fall between any two."""
        while position < len(steps):
            if life != self._life or self._crashes_here():
                return
            steps[position]()
            position += 1
        if life != self._life:
            return
        self._busy = False
        if self._queue:
            self._busy = True
            self.world.kernel.after(STEP_S, self._commit, life)

    def _crashes_here(self) -> bool:
        if self.crash_steps is None:
            return False
        self.crash_steps -= 1
        if self.crash_steps > 0:
            return False
        self.crash()
        return True

    def _on_datagram(self, source: object, payload: bytes) -> None:
        event = Received(str(source), payload)
        if self.slow:
            self.world.kernel.after(0.3, self._deliver, self._life, event)
        else:
            self.post(event)

    def _deliver(self, life: int, event: Event) -> None:
        if life == self._life:
            self.post(event)

    # --- actions

    def _carry_out(self, action: Action) -> None:
        kernel = self.world.kernel
        match action:
            case Send(to, message):
                self.world.checks.sending(self.name, message, self.disk)
                self.world.note_message(self.name, to, message)
                if to == self.name:
                    kernel.after(STEP_S, self._deliver, self._life, Received(self.name, message))
                else:
                    self.world.network.send(self.name, to, message)
            case Publish(key, value):
                self.world.members.published(self, key, value)
                self.world.checks.published(self.name, self.boot_epoch, key, value)
            case _:
                self._to_container(action)

    # --- containers

    def _to_container(self, action: Action) -> None:
        match action:
            case StartContainer(allocation, lease_until_s):
                if lease_until_s is None or lease_until_s > self.clock():
                    self._start_container(allocation)
                    self._lease(allocation.id, lease_until_s)
            case RenewLease(id_, until_s):
                self._lease(id_, until_s)
            case AmendContainer(allocation, revision):
                self._amend_container(allocation, revision)
            case FreezeContainer():
                self._ask_to_stand(action)
            case ThawContainer(id_):
                self._thaw_container(id_)
            case StopContainer(id_, grace_s, why):
                self._stop_container(id_, grace_s, why)
            case RemoveContainer(id_):
                container = self.containers.get(id_)
                if container is not None:
                    self.world.checks.removing(self.name, id_, container.result)
                    del self.containers[id_]

    def _start_container(self, allocation: Allocation) -> None:
        if allocation.id in self.containers:
            return
        self.world.note(self.name, f"container {allocation.id} starts")
        self.world.checks.starting(self.name, allocation)
        container = self.containers[allocation.id] = Container(allocation, self.world.kernel.now)
        rng = self.world.kernel.random("container", str(allocation.id))
        delay_s = rng.uniform(0.01, 0.2)
        if self.world.plan.features.failing_starts and rng.random() < 0.1:
            result = Result(error="the image is not to be had")
            container.timer = self.world.kernel.after(delay_s, self._end_container, allocation.id, result)
        else:
            container.timer = self.world.kernel.after(delay_s, self._run_container, allocation.id)

    def _lease(self, id_: AllocationId, until_s: float | None) -> None:
        """The supervisor stops the container when its lease has passed, whether there is an agent or not."""
        container = self.containers.get(id_)
        if container is None or container.result is not None or until_s is None:
            return
        if container.lease is not None:
            container.lease.cancel()
        grace_s = container.allocation.spec.stop_grace_s
        at_s = max(self.world.kernel.now, until_s - self.skew_s) + grace_s
        container.lease = self.world.kernel.at(at_s, self._end_container, id_, Result(error="its lease has passed"))

    def _run_container(self, id_: AllocationId) -> None:
        container = self.containers[id_]
        container.running = True
        rng = self.world.kernel.random("run", str(id_))
        run_s = rng.expovariate(1 / self.world.plan.run_mean_s)
        code = rng.choice((1, 137)) if self.world.plan.features.failing_exits and rng.random() < 0.2 else 0
        limit_s = container.allocation.spec.time_limit_s
        result = Result(exit_code=code, ended_unix_s=self.unix() + run_s)
        if limit_s is not None and run_s > limit_s:
            run_s, result = limit_s, Result(signal=15, timed_out=True, ended_unix_s=self.unix() + limit_s)
        container.outcome = result
        self._run_on(container, run_s)
        self.post(ContainerStarted(id_, self.unix()))

    def _run_on(self, container: Container, left_s: float) -> None:
        container.due_s = self.world.kernel.now + left_s
        id_ = container.allocation.id
        container.timer = self.world.kernel.after(left_s, self._end_container, id_, container.outcome)

    def _ask_to_stand(self, action: FreezeContainer) -> None:
        rng = self.world.kernel.random("freeze", str(action.id), self.world.count())
        fails = self.world.plan.features.failing_starts and rng.random() < 0.2
        self.world.kernel.after(rng.uniform(0.001, 0.1), self._freeze_container, self._life, action, fails)

    def _freeze_container(self, life: int, action: FreezeContainer, fails: bool) -> None:
        """The kernel stops it, whether the agent that asked lives on or not; one that is asked to end does not stop."""
        container, why = self.containers.get(action.id), ""
        if container is None or not container.running or container.stopping:
            why = "it does not run"
        elif not container.frozen and fails:
            why = "it does not stop"
        elif not container.frozen:
            self.world.note(self.name, f"container {action.id} stands still for job {action.job}")
            assert container.timer is not None
            container.timer.cancel()
            container.frozen, container.left_s = True, container.due_s - self.world.kernel.now
            self.world.checks.frozen(self.name, container.allocation, action.job)
        self._deliver(life, ContainerFrozen(action.id, why))

    def _thaw_container(self, id_: AllocationId) -> None:
        container = self.containers.get(id_)
        if container is not None:
            self._go_on(container)
        self.world.kernel.after(STEP_S, self._deliver, self._life, ContainerThawed(id_))

    def _go_on(self, container: Container) -> None:
        if container.frozen:
            self.world.note(self.name, f"container {container.allocation.id} goes on")
            container.frozen = False
            self._run_on(container, container.left_s)
            self.world.checks.thawed(self.name, container.allocation)

    def _amend_container(self, allocation: Allocation, revision: int) -> None:
        """Memory below a quarter of what it had is taken to be in use."""
        container = self.containers.get(allocation.id)
        why = ""
        if container is None or container.result is not None:
            why = "it does not run"
        elif 4 * allocation.spec.request.memory_bytes < container.allocation.spec.request.memory_bytes:
            why = "its memory is in use"
        else:
            container.allocation = allocation
            self.world.checks.amended(self.name, allocation)
        self.world.kernel.after(STEP_S, self._deliver, self._life, ContainerChanged(allocation.id, revision, why))

    def _stop_container(self, id_: AllocationId, grace_s: float, why: str) -> None:
        self.world.note(self.name, f"container {id_} is to stop: {why}")
        container = self.containers.get(id_)
        if container is None:
            result = Result(error="there is no such container")
            self.world.kernel.after(STEP_S, self._deliver, self._life, ContainerEnded(id_, result))
        elif container.result is None:
            container.stopping = True
            if grace_s:
                self._go_on(container)
            self.world.kernel.after(grace_s, self._end_container, id_, Result(signal=15, ended_unix_s=self.unix()))

    def _end_container(self, id_: AllocationId, result: Result) -> None:
        container = self.containers.get(id_)
        if container is None or container.result is not None:
            return
        for timer in (container.timer, container.lease):
            if timer is not None:
                timer.cancel()
        container.running = container.frozen = False
        container.result = result
        self.world.note(self.name, f"container {id_} ended: {result.error or result.exit_code or result.signal or 0}")
        self.world.checks.container_over(self.name, id_, result)
        self.post(ContainerEnded(id_, result))
