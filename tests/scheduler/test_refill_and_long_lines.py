"""How fast a line moves: messages until freed space is used again, and what a long line costs an event."""

from __future__ import annotations

import time

import pytest

from scheduler import Scheduler, SchedulerConfig
from scheduler.events import (
    ContainerEnded,
    ContainerStarted,
    Event,
    Measured,
    MemberUp,
    Outcome,
    Put,
    Received,
    Send,
    StartContainer,
    Submit,
    Timer,
)
from scheduler.line import Line, Shape
from scheduler.messages import Fresh, Tell, Told, Wait, decode, encode
from scheduler.model import AllocationId, ArrayRange, JobSpec, Report, Resources, Result
from scheduler.queue import rank
from scheduler.spec.gang import Gang

MIB = 1 << 20
NODE = Resources(1000, 1 << 30)
TASK = Resources(1000, MIB)


class Relay:
    """n1 leads, n2 is a home, the `workers` run a task at a time. Messages travel in rounds, so they can be counted."""

    def __init__(self, workers: tuple[str, ...] = ("n3",)) -> None:
        self.now = 0.0
        self.started: list[AllocationId] = []
        self.at: dict[AllocationId, str] = {}
        self.changes: list[object] = []
        self.mail: list[tuple[str, str, bytes]] = []
        config = SchedulerConfig()
        self.machines = {f"n{n}": Scheduler(config, f"n{n}", n, 1, 0) for n in range(1, 5)}
        for name, machine in self.machines.items():
            self.take(name, machine.restore(0.0, 0.0, {}))
            for other in self.machines:
                if other != name:
                    self.give(name, MemberUp(other, int(other[1:]), 1))
        for name in workers:
            self.give(name, Measured(NODE, NODE, Resources()))
        for _ in range(30):
            self.now += 0.1
            for name in self.machines:
                self.give(name, Timer())
            self.settle()

    def give(self, name: str, event: Event) -> object:
        return self.take(name, self.machines[name].handle(self.now, event)).answer

    def take(self, name: str, outcome: Outcome) -> Outcome:
        self.changes += outcome.changes
        for action in outcome.actions:
            if isinstance(action, Send):
                self.mail.append((name, action.to, action.message))
            elif isinstance(action, StartContainer):
                self.started.append(action.allocation.id)
                self.at[action.allocation.id] = name
        return outcome

    def round(self) -> None:
        """Deliver every message that is on its way; their answers belong to the next round."""
        mail, self.mail = self.mail, []
        for sender, to, message in mail:
            self.give(to, Received(sender, message))

    def settle(self) -> None:
        while self.mail:
            self.round()


def test_freed_space_is_used_again_within_three_messages():
    relay = Relay()
    relay.give("n2", Submit("user", JobSpec("job", ("true",), TASK, array=ArrayRange(0, 9)), 0.0))
    relay.settle()
    (first,) = relay.started
    relay.give("n3", ContainerStarted(first, 0.0))
    relay.settle()
    relay.give("n3", ContainerEnded(first, Result(exit_code=0)))
    rounds = 0
    while len(relay.started) == 1:
        relay.round()
        rounds += 1
        assert rounds <= 3
    assert rounds == 3


def gang_and_two_who_wait(*workers: str) -> tuple[Relay, list[AllocationId]]:
    """A gang runs on both nodes; another waits for both, and behind it a short task that fits where one of them was."""
    relay = Relay(workers)
    for name, nodes, limit_s in (("leaves", 2, 3600.0), ("wide", 2, 3600.0), ("short", 0, 60.0)):
        spec = JobSpec(name, ("true",), TASK, time_limit_s=limit_s, gang=Gang(nodes=nodes) if nodes else None)
        relay.give("n2", Submit("user", spec, 0.0))
        relay.settle()
    members = sorted(relay.started)
    assert len(members) == 2
    for id_ in members:
        relay.give(relay.at[id_], ContainerStarted(id_, 0.0))
    relay.settle()
    relay.started.clear()
    return relay, members


@pytest.mark.parametrize("workers", [("n3", "n4"), ("n1", "n3"), ("n1", "n2")])
def test_nobody_slips_past_while_a_gang_is_leaving(workers: tuple[str, str]):
    relay, members = gang_and_two_who_wait(*workers)
    members.sort(key=lambda id_: relay.at[id_])  # the leader's own first: it sees that room without being told
    relay.give(relay.at[members[0]], ContainerEnded(members[0], Result(exit_code=0)))
    relay.settle()
    assert relay.started == []
    relay.give(relay.at[members[1]], ContainerEnded(members[1], Result(exit_code=0)))
    relay.settle()
    assert [id_.job for id_ in relay.started] == [2002, 2002]


def test_who_leaves_a_gang_alone_is_not_waited_for_long():
    relay, members = gang_and_two_who_wait("n3", "n4")
    relay.give(relay.at[members[0]], ContainerEnded(members[0], Result(exit_code=0)))
    relay.settle()
    relay.now += SchedulerConfig().gather_s
    relay.give("n1", Timer())
    relay.settle()
    assert [id_.job for id_ in relay.started] == [3002]


def test_an_array_of_100_000_is_one_record_until_its_tasks_start():
    relay = Relay()
    before = len(relay.changes)
    relay.give("n2", Submit("user", JobSpec("job", ("true",), TASK, array=ArrayRange(0, 99_999)), 0.0))
    relay.settle()
    rows = [change.table for change in relay.changes[before:] if isinstance(change, Put)]
    assert rows.count("jobs") == 1
    assert rows.count("tasks") <= 2, "one task started: its attempt, and what became of it"
    assert len(relay.machines["n1"].waiting()) == 1


def test_a_line_tries_only_what_room_that_came_could_take():
    line = Line()
    for job in range(1000):
        line.add(job, rank(0, float(job), job), Shape(Resources(100 * (1 + job % 10), MIB), (), 0, 60.0))
    line.begin_pass(1000)
    while line.next_hot(NODE) is not None:
        pass
    line.heat_what_fits([Resources(250, MIB)])
    assert [line.next_hot(NODE) for _ in range(3)] == [0, 1, None]


def leader_with_line(jobs: int, sizes: int) -> tuple[Scheduler, list[Report]]:
    """A leader of 100 full nodes and a line of so many jobs of so many sizes."""
    leader = Scheduler(SchedulerConfig(gather_s=0), "n1", 1, 1, 0)
    leader.restore(0.0, 0.0, {})
    reports = []
    for number in range(2, 102):
        name = f"n{number}"
        leader.handle(0.0, MemberUp(name, number, 1))
        room = Resources(64_000, 1 << 38)
        reports.append(Report(name, number, 1, 1, room, room, room))
        leader.handle(0.0, Received(name, b"".join(encode([Fresh(reports[-1])], 1 << 20))))
    outcome = leader.handle(1.0, Timer())
    sends = [action for action in outcome.actions if isinstance(action, Send)]
    epoch = next(item.epoch for send in sends for item in decode(send.message, 1 << 20) if isinstance(item, Tell))
    for number in range(1, 102):
        leader.handle(1.0, Received(f"n{number}", b"".join(encode([Told(epoch)], 1 << 20))))
    batch: list[Wait] = []
    for job in range(jobs):
        request = Resources(1000 + job % sizes, (1 + job % 7) << 30)
        batch.append(Wait(2 + 1000 * (job + 1), 1, 1, 1, 0, 0, 0, 1.0, 1.0, request, estimate_s=60.0 * (1 + job % 9)))
        if len(batch) == 1000:
            leader.handle(1.0, Received("n2", b"".join(encode(batch, 1 << 22))))
            batch = []
    while (due := leader.next_timer()) is not None and due <= 1.0:
        leader.handle(1.0, Timer())
    return leader, reports


def test_a_pass_over_a_hundred_thousand_waiting_jobs_keeps_the_agent_responsive():
    leader, reports = leader_with_line(100_000, 500)
    assert len(leader.waiting()) == 100_000
    old = reports[0]
    half = Resources(32_000, 1 << 37)
    fresh = Report(old.node, old.number, 1, 2, old.capacity, old.allocatable, half)
    message = b"".join(encode([Fresh(fresh)], 1 << 20))
    began = time.process_time()
    outcome = leader.handle(2.0, Received(old.node, message))
    took_s = time.process_time() - began
    assert any(isinstance(action, Send) for action in outcome.actions)
    # Far above what it takes (20 to 40 ms), for machines that are slow or busy.
    assert took_s < 0.25, f"{took_s * 1000:.0f} ms"
