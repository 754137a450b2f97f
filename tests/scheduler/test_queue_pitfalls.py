"""The queue's leader: rank order, in-flight orders, epochs, holds; each pitfall that the protocol's models met."""

from __future__ import annotations

import pytest

from scheduler import Scheduler, SchedulerConfig
from scheduler.events import (
    Heard,
    Measured,
    MemberDown,
    MemberFailed,
    MemberUp,
    Outcome,
    Publish,
    Received,
    Send,
    StartContainer,
    Timer,
)
from scheduler.messages import (
    Admit,
    Admitted,
    AnyItem,
    Declined,
    Fresh,
    Go,
    HoldNoted,
    HoldRoom,
    Leads,
    Muster,
    Noted,
    Refused,
    Reserved,
    Settled,
    Stop,
    Tell,
    Told,
    Wait,
    WaitHeard,
    decode,
    decode_leads,
    encode,
    encode_gossip,
)
from scheduler.model import AllocationId, Constraint, End, JobSpec, Report, Resources
from scheduler.reporting import WHOLE

CAPACITY = Resources(1000, 1 << 30)
MIB = 1 << 20


class Lead:
    """The machine of n1, which leads; n2 and n3 are homes and nodes in the test's hands. n1 itself takes nothing."""

    def __init__(self, number: int = 1, nodes: tuple[str, ...] = ("n2", "n3"), **config: object) -> None:
        self.machine = Scheduler(SchedulerConfig(**{"gather_s": 0, **config}), f"n{number}", number, 1, 0)
        self.now = 0.0
        self.said: list[tuple[str, AnyItem]] = []
        self.published: list[Leads] = []
        self.nodes = nodes
        self.sequences: dict[str, int] = {}
        self.versions: dict[int, int] = {}
        self.take(self.machine.restore(0.0, 0.0, {}))
        for name in nodes:
            self.give(MemberUp(name, int(name[1:]), 1))
            self.report(name)

    def begin(self) -> Lead:
        """Let n1 take the role and both homes tell that nothing waits."""
        self.wait(0.6)
        epoch = self.epoch
        for name in self.nodes:
            self.hear(name, Told(epoch))
        self.hear("n1", Told(epoch))
        return self

    @property
    def epoch(self) -> int:
        return [item.epoch for _, item in self.said if isinstance(item, Tell)][-1]

    def give(self, event: object) -> list[tuple[str, AnyItem]]:
        return self.take(self.machine.handle(self.now, event))

    def take(self, outcome: Outcome) -> list[tuple[str, AnyItem]]:
        before = len(self.said)
        for action in outcome.actions:
            if isinstance(action, Send):
                self.said += [(action.to, item) for item in decode(action.message, 1 << 20)]
            elif isinstance(action, Publish) and action.key == "leader":
                self.published.append(decode_leads(action.value))
        return self.said[before:]

    def hear(self, sender: str, *items: AnyItem) -> list[tuple[str, AnyItem]]:
        (message,) = encode(items, 1 << 20)
        return self.give(Received(sender, message))

    def wait(self, seconds: float) -> list[tuple[str, AnyItem]]:
        self.now += seconds
        return self.give(Timer())

    def report(self, name: str, cpu: int = 0, **facts: object) -> list[tuple[str, AnyItem]]:
        """The node pushes its report, with so much CPU committed."""
        self.sequences[name] = self.sequences.get(name, 0) + 1
        clock_ms = round(self.now * 1000)
        values = {"capacity": CAPACITY, "allocatable": CAPACITY, "committed": Resources(cpu, 0), "clock_ms": clock_ms}
        values.update(facts)
        return self.hear(name, Fresh(Report(name, int(name[1:]), 1, self.sequences[name], **values)))

    def waits(self, home: str, job: int, wanted: int = 1, cpu: int = 1000, **facts: object) -> list[Go]:
        """A home tells what waits; the orders that follow are returned."""
        self.versions[job] = self.versions.get(job, 0) + 1
        values = {
            "boot_epoch": 1,
            "version": self.versions[job],
            "wanted": wanted,
            "epoch": 0,
            "go_seen": 0,
            "priority": 0,
            "since_s": self.now,
            "clock_s": self.now,
            "request": Resources(cpu, MIB),
            **facts,
        }
        return orders(self.hear(home, Wait(job, **values)))


def orders(said: list[tuple[str, AnyItem]]) -> list[Go]:
    """The orders among what was said."""
    return [item for _, item in said if isinstance(item, Go)]


def full(**config: object) -> Lead:
    """A leader that knows both nodes to be full."""
    lead = Lead(**config).begin()
    lead.report("n2", 1000)
    lead.report("n3", 1000)
    return lead


def test_waiting_jobs_are_served_by_priority_and_then_by_age_whatever_their_home():
    lead = full()
    lead.waits("n2", 1002, since_s=5.0, clock_s=10.0)
    lead.waits("n3", 1003, since_s=105.0, clock_s=120.0)
    lead.waits("n2", 2002, since_s=9.0, clock_s=10.0, priority=1)
    served = []
    for _ in range(3):
        lead.now += 3
        (go,) = lead_go = orders(lead.report("n2", 0)) + orders(lead.report("n2", 1000))
        served.append(go.job)
        lead.waits("n3" if go.job == 1003 else "n2", go.job, wanted=0)
        assert len(lead_go) == 1
    assert served == [2002, 1003, 1002]


def test_the_first_that_finds_no_room_holds_up_those_behind_it_without_backfilling():
    lead = full(queue_policy="fcfs")
    lead.waits("n2", 1002, cpu=1000)
    lead.waits("n3", 1003, cpu=100)
    assert orders(lead.report("n2", 500)) == []
    assert [go.job for go in orders(lead.report("n2", 0))] == [1002]


def test_a_job_that_no_node_could_take_holds_up_nobody():
    lead = Lead().begin()
    assert lead.waits("n2", 1002, cpu=5000) == []
    assert lead.waits("n2", 2002, constraints=(Constraint("gpu"),)) == []
    assert [go.job for go in lead.waits("n3", 1003)] == [1003]
    assert lead.published[-1].waiting == 1
    assert [view.position for view in lead.machine.waiting() if view.job in (1002, 2002)] == [-1, -1]


def test_a_job_set_aside_is_served_when_the_cluster_can_take_it():
    lead = Lead().begin()
    lead.waits("n2", 1002, constraints=(Constraint("gpu"),))
    assert [go.job for go in orders(lead.report("n3", 0, labels=(("gpu", "a"),)))] == [1002]


def test_space_that_was_ordered_but_is_in_no_report_yet_is_not_ordered_twice():
    lead = full()
    lead.waits("n2", 1002)
    lead.waits("n2", 2002)
    assert [go.job for go in orders(lead.report("n2", 0))] == [1002]
    assert orders(lead.report("n2", 0)) == []


def test_a_node_that_answered_speaks_for_itself_from_then_on():
    lead = Lead().begin()
    (go,) = lead.waits("n2", 1002)
    lead.report(go.node, 0)
    lead.hear(go.node, Settled(go.epoch, go.go, 1))
    lead.waits("n2", 1002, wanted=0, epoch=go.epoch, go_seen=go.go)
    assert len(lead.waits("n3", 1003, wanted=2)) == 2


def test_an_order_without_any_effect_is_given_up_and_its_space_offered_again():
    lead = full()
    lead.waits("n2", 1002)
    (lost,) = orders(lead.report("n2", 0))
    assert {go.go for go in orders(lead.wait(0.1)) + orders(lead.wait(0.1))} == {lost.go}
    again = orders(lead.wait(2.0))[-1]
    assert (again.job, again.node) == (1002, "n2")
    assert again.go > lost.go


def test_a_word_that_was_said_before_an_order_does_not_order_again():
    lead = Lead().begin()
    assert len(lead.waits("n2", 1002, wanted=1, cpu=10)) == 1
    assert lead.waits("n2", 1002, wanted=1, cpu=10) == []
    seen = lead.machine.waiting()[0]
    assert seen.wanted == 1


def test_a_refused_task_is_ordered_anew():
    lead = Lead().begin()
    (go,) = lead.waits("n2", 1002, cpu=10)
    (again,) = lead.waits("n2", 1002, cpu=10, epoch=go.epoch, go_seen=go.go)
    assert again.go > go.go


def test_an_old_word_of_a_home_is_not_believed():
    lead = full()
    lead.waits("n2", 1002, version=7, wanted=0)
    lead.waits("n2", 1002, version=8, wanted=1)
    lead.waits("n2", 1002, version=6, wanted=0)
    assert [view.job for view in lead.machine.waiting()] == [1002]
    lead.waits("n2", 1002, boot_epoch=2, version=1, wanted=0)
    assert lead.machine.waiting() == []


def test_every_word_of_a_home_is_answered_with_its_version_and_place():
    lead = full()
    lead.waits("n2", 1002)
    said = lead.hear("n3", Wait(1003, 1, 5, 1, 0, 0, 0, 0.0, 0.0, Resources(1000, MIB)))
    assert ("n3", WaitHeard(1003, 1, 5, 1, 2)) in said


def test_a_declined_order_frees_its_space_at_once():
    lead = Lead().begin()
    (go,) = lead.waits("n2", 1002)
    (other,) = lead.waits("n2", 2002)
    assert lead.waits("n3", 1003) == []
    lead.hear("n2", Declined(go.epoch, go.go, 1))
    lead.waits("n2", 1002, wanted=0)
    assert {view.job for view in lead.machine.waiting()} == {2002, 1003}
    assert [item.node for item in orders(lead.report(go.node, 0))] in ([go.node], [])
    assert other.node != go.node


def test_a_new_leader_asks_everyone_and_waits_for_their_answers_before_it_orders():
    lead = Lead()
    lead.wait(0.6)
    assert {to for to, item in lead.said if isinstance(item, Tell)} == {"n1", "n2", "n3"}
    assert lead.waits("n2", 1002) == []
    lead.hear("n1", Told(lead.epoch))
    lead.hear("n2", Told(lead.epoch))
    assert [go.job for go in orders(lead.hear("n3", Told(lead.epoch)))] == [1002]


def test_a_new_leader_does_not_wait_for_ever():
    lead = Lead(settle_s=1.0)
    lead.wait(0.6)
    lead.waits("n2", 1002)
    assert [go.job for go in orders(lead.wait(1.1))] == [1002]


def test_a_leader_that_hears_of_a_higher_epoch_begins_anew_above_it():
    lead = Lead().begin()
    lead.waits("n2", 1002)
    lead.give(Heard("n3", "leader", encode_gossip(Leads(7003, 4))))
    assert lead.epoch == 8001
    assert lead.machine.waiting() == []
    assert {to for to, item in lead.said[-6:] if isinstance(item, Tell)} == {"n1", "n2", "n3"}


def test_a_leader_steps_down_when_a_lower_node_is_alive_and_takes_over_when_it_is_not():
    second = Lead(number=4)
    assert second.machine.leader == "n2"
    second.wait(5)
    assert not second.published
    for name in ("n2", "n3"):
        second.give(MemberFailed(name))
    second.wait(0.6)
    second.wait(1.1)
    first_epoch = second.published[-1].epoch
    assert first_epoch == 1004
    second.give(MemberUp("n2", 2, 1))
    second.wait(5)
    assert second.machine.leader == "n2"
    assert second.waits("n3", 1003) == []
    second.give(MemberDown("n2"))
    second.wait(0.6)
    second.wait(1.1)
    assert second.published[-1].epoch > first_epoch


def test_jobs_of_a_home_out_of_reach_hold_up_nobody():
    lead = full()
    lead.waits("n2", 1002)
    lead.waits("n3", 1003)
    lead.give(MemberFailed("n2"))
    assert [go.job for go in orders(lead.report("n3", 0))] == [1003]


def test_whether_anybody_waits_is_gossiped_at_once():
    lead = full()
    assert lead.published[-1].waiting == 0
    lead.waits("n2", 1002)
    assert lead.published[-1].waiting == 1
    lead.waits("n2", 1002, wanted=0)
    assert lead.published[-1].waiting == 0


def test_a_long_line_is_served_in_passes_of_bounded_length():
    lead = Lead(order_batch=10).begin()
    given = lead.waits("n2", 1002, wanted=500, cpu=1)
    assert sum(go.count for go in given) == 10
    assert lead.machine.next_timer() == lead.now
    for _ in range(3):
        given += orders(lead.wait(0.0))
    assert sum(go.count for go in given) == 40


def test_a_node_that_measured_itself_anew_is_pushed_to_its_leader():
    lead = Lead(number=4)
    said = lead.give(Measured(CAPACITY, CAPACITY, Resources()))
    assert [to for to, item in said if isinstance(item, Fresh)] == ["n2"]


# --- reservations, and holds on nodes


def holds(said: list[tuple[str, AnyItem]]) -> dict[tuple[str, int], HoldRoom]:
    """The holds among what was said, by node and job; the last word on each."""
    return {(to, item.job): item for to, item in said if isinstance(item, HoldRoom)}


def musters(said: list[tuple[str, AnyItem]]) -> list[Muster]:
    """The orders of gangs among what was said."""
    return [item for _, item in said if isinstance(item, Muster)]


def test_in_flight_placements_count_in_what_comes_free_so_that_a_wide_head_has_a_reservation():
    lead = Lead().begin()
    assert len(lead.waits("n2", 1002, estimate_s=100.0)) + len(lead.waits("n2", 2002, estimate_s=50.0)) == 2
    lead.waits("n3", 1003, nodes=2)
    found = holds(lead.said)
    assert set(found) == {("n2", 1003), ("n3", 1003)}
    assert {hold.shadow_in_s for hold in found.values()} == {100.0}


def test_a_started_jobs_holds_don_t_keep_others_back_in_the_same_pass():
    lead = full()
    lead.waits("n2", 1002, cpu=500, nodes=2)
    lead.report("n2", 1000, ends=(End(50_000, Resources(1000, 0)),))
    lead.report("n3", 1000, ends=(End(60_000, Resources(1000, 0)),))
    assert set(holds(lead.said)) == {("n2", 1002), ("n3", 1002)}
    lead.waits("n3", 1003, cpu=500, estimate_s=1e6)
    lead.report("n2", 1000)
    before = len(lead.said)
    lead.report("n2", 500)
    lead.report("n3", 0)
    said = lead.said[before:]
    assert [muster.job for muster in musters(said)] == [1002]
    assert [go.job for go in orders(said)] == [1003]


def test_an_aborted_reservation_is_no_start_and_the_others_defer_again():
    lead = Lead().begin()
    lead.waits("n2", 1002, nodes=2, attempt=1)
    (muster,) = musters(lead.said)
    for name in ("n2", "n3"):
        lead.report(name, 1000, ends=(End(100_000, Resources(1000, 0)),))
        lead.hear(name, Settled(muster.epoch, muster.go, 1))
    lead.waits("n2", 1002, wanted=0, epoch=muster.epoch, go_seen=muster.go)
    lead.report("n2", 0)
    lead.waits("n2", 1002, nodes=2, epoch=muster.epoch, go_seen=muster.go, attempt=2)
    assert {hold.attempt for (_, job), hold in holds(lead.said).items() if job == 1002} == {2}
    assert lead.waits("n3", 1003, estimate_s=1000.0) == []
    assert [go.node for go in lead.waits("n3", 2003, estimate_s=50.0)] == ["n2"]


def test_holds_go_on_the_nodes_that_free_latest_and_long_jobs_take_the_others():
    lead = Lead(nodes=("n2", "n3", "n4", "n5")).begin()
    for name in ("n4", "n5"):
        lead.report(name, 1000, ends=(End(50_000, Resources(1000, 0)),))
    lead.waits("n2", 1002, nodes=3)
    held = {node for node, _ in holds(lead.said)}
    assert len(held) == 3
    assert held > {"n4", "n5"}
    assert [go.node for go in lead.waits("n3", 1003, estimate_s=1e6)] == list({"n2", "n3"} - held)
    assert lead.waits("n3", 2003, estimate_s=1e6) == []


def test_who_waits_with_a_reservation_is_told_when_it_begins_and_the_others_are_told_nothing():
    lead = Lead().begin()
    lead.report("n2", 1000, ends=(End(50_000, Resources(1000, 0)),))
    lead.report("n3", 1000)
    lead.waits("n2", 1002)
    lead.waits("n3", 1003)
    told = {view.job: view.start_in_s for view in lead.machine.waiting(lead.now + 10)}
    assert told == {1002: pytest.approx(50 - lead.now - 10), 1003: None}


def test_short_jobs_take_held_nodes_first():
    lead = Lead(nodes=("n2", "n3", "n4", "n5")).begin()
    for name in ("n4", "n5"):
        lead.report(name, 1000, ends=(End(50_000, Resources(1000, 0)),))
    lead.waits("n2", 1002, nodes=3)
    held = {node for node, _ in holds(lead.said)}
    (go,) = lead.waits("n3", 1003, estimate_s=40.0)
    assert go.node in held


def test_changed_holds_are_said_before_the_orders_that_count_on_them():
    lead = Lead(nodes=("n2", "n3", "n4")).begin()
    lead.report("n2", 1000)
    lead.waits("n2", 1002, wanted=0)
    lead.report("n4", 1000, ends=(End(50_000, Resources(1000, 0)),))
    lead.waits("n3", 1003, estimate_s=40.0, wanted=1, cpu=2000)
    before = len(lead.said)
    lead.waits("n2", 2002, nodes=2, priority=1)
    lead.waits("n3", 2003, estimate_s=40.0)
    kinds = [type(item) for _, item in lead.said[before:] if isinstance(item, HoldRoom | Go)]
    assert kinds == [HoldRoom, HoldRoom, Go]


def test_a_head_that_would_never_get_room_by_the_estimates_holds_nothing_and_nobody_up():
    lead = Lead().begin()
    lead.report("n2", 1000)
    lead.waits("n2", 1002, nodes=2)
    assert holds(lead.said) == {}
    assert [go.node for go in lead.waits("n3", 1003, estimate_s=1e6)] == ["n3"]


def test_a_gang_larger_than_the_cluster_is_set_aside_until_it_is_not():
    lead = Lead().begin()
    lead.waits("n2", 1002, nodes=3)
    assert lead.published[-1].waiting == 0
    lead.give(MemberUp("n4", 4, 1))
    lead.report("n4")
    assert [muster.job for muster in musters(lead.said)] == [1002]


def test_the_line_counts_the_tasks_of_a_gang():
    lead = Lead().begin()
    lead.waits("n2", 1002, nodes=3, per_node=2)
    assert [view.wanted for view in lead.machine.waiting()] == [6]


def test_holds_are_withdrawn_when_their_job_no_longer_waits():
    lead = Lead().begin()
    lead.report("n2", 1000, ends=(End(50_000, Resources(1000, 0)),))
    lead.waits("n2", 1002, nodes=2)
    lead.waits("n2", 1002, wanted=0)
    assert {hold.amount for hold in holds(lead.said).values()} == {Resources()}


def test_holds_are_renewed_while_their_job_waits():
    lead = Lead(hold_ttl_s=9.0).begin()
    lead.report("n2", 1000, ends=(End(500_000, Resources(1000, 0)),))
    lead.waits("n2", 1002, nodes=2)
    first = holds(lead.said)
    again = holds(lead.wait(3.0))
    assert set(again) == set(first)
    assert all(again[key].sequence > first[key].sequence for key in first)


def test_conservative_gives_the_first_of_the_line_a_reservation_each():
    easy, conservative = (Lead(queue_policy=policy).begin() for policy in ("easy", "conservative"))
    for lead in (easy, conservative):
        lead.report("n2", 1000, ends=(End(100_000, Resources(1000, 0)),))
        lead.report("n3", 500, ends=(End(200_000, Resources(500, 0)),))
        lead.waits("n2", 1002, cpu=1000, estimate_s=1000.0)
        lead.waits("n2", 2002, cpu=1000, estimate_s=1000.0)
    assert {(node, job) for node, job in holds(easy.said)} == {("n2", 1002)}
    assert {(node, job) for node, job in holds(conservative.said)} == {("n2", 1002), ("n3", 2002)}
    assert [go.job for go in easy.waits("n3", 3003, cpu=500, estimate_s=1e6)] == [3003]
    assert conservative.waits("n3", 3003, cpu=500, estimate_s=1e6) == []


class Worker:
    """The machine of n3 as an executing node; homes and the leader (n1) are in the test's hands."""

    def __init__(self, **config: object) -> None:
        self.machine = Scheduler(SchedulerConfig(**config), "n3", 3, 1, 0)
        self.now = 0.0
        self.started: list[AllocationId] = []
        self.take(self.machine.restore(0.0, 0.0, {}))
        self.give(Measured(CAPACITY, CAPACITY, Resources()))
        for number in (1, 2, 4):
            self.give(MemberUp(f"n{number}", number, 1))

    def give(self, event: object) -> list[AnyItem]:
        return self.take(self.machine.handle(self.now, event))

    def take(self, outcome: Outcome) -> list[AnyItem]:
        self.started += [action.allocation.id for action in outcome.actions if isinstance(action, StartContainer)]
        sends = [action for action in outcome.actions if isinstance(action, Send)]
        return [item for send in sends for item in decode(send.message, 1 << 20)]

    def hear(self, sender: str, *items: AnyItem) -> list[AnyItem]:
        (message,) = encode(items, 1 << 20)
        return self.give(Received(sender, message))

    def wait(self, seconds: float) -> list[AnyItem]:
        self.now += seconds
        return self.give(Timer())

    def admit(self, home: str, job: int, attempt: int = 1, limit_s: float = 100.0, cpu: int = 1000, **facts: object):
        """Ask for task 0; return the answer."""
        spec = JobSpec("job", ("true",), Resources(cpu, MIB), time_limit_s=limit_s)
        said = self.hear(home, Admit(job, "user", spec, ((0, attempt),), 1, **facts))
        return next(item for item in said if isinstance(item, Admitted | Reserved | Refused))

    def hold(self, job: int, shadow_in_s: float = 50.0, sequence: int = 1, **facts: object) -> None:
        """The leader holds the whole node for a job of n4."""
        values = {"epoch": 1001, "owner": "n4", "attempt": 1, "rank": (0.0, 1.0), "amount": CAPACITY, **facts}
        self.hear("n1", HoldRoom(sequence=sequence, job=job, shadow_in_s=shadow_in_s, **values))

    @property
    def committed(self) -> int:
        report = next(node.report for node in self.machine.nodes() if node.name == "n3")
        assert report is not None
        return report.committed.cpu_milli


def test_a_late_release_of_an_older_attempt_does_not_free_the_newer_ones_room():
    worker = Worker()
    assert isinstance(worker.admit("n2", 1002, 1, reserve_s=1.0), Reserved)
    assert isinstance(worker.admit("n2", 1002, 2, reserve_s=1.0), Reserved)
    assert worker.committed == 1000
    worker.hear("n2", Stop(AllocationId(1002, 0, 1), "released"))
    assert worker.committed == 1000
    assert isinstance(worker.admit("n2", 1002, 2), Admitted)
    assert worker.started == [AllocationId(1002, 0, 2)]


def test_a_hold_is_enforced_against_others_and_never_against_its_owner_or_its_own_job():
    assert worker_with_hold().admit("n2", 1002).cause == "held for job 1004"
    assert isinstance(worker_with_hold().admit("n4", 2004), Admitted)
    assert isinstance(worker_with_hold().admit("n2", 1004), Admitted)


def test_a_hold_binds_neither_the_better_ranked_nor_those_who_end_in_time_with_five_milliseconds_of_slack():
    assert isinstance(worker_with_hold().admit("n2", 1002, rank=(-1.0, 9.0), epoch=1001), Admitted)
    assert isinstance(worker_with_hold().admit("n2", 1002, limit_s=50.004), Admitted)
    assert isinstance(worker_with_hold().admit("n2", 1002, limit_s=50.006), Refused)


def test_who_fits_beside_a_hold_is_admitted():
    worker = Worker()
    worker.hold(1004, amount=Resources(600, 0))
    assert isinstance(worker.admit("n2", 1002, cpu=400), Admitted)
    assert isinstance(worker.admit("n2", 2002, cpu=100), Refused)


def test_a_late_word_on_a_hold_leaves_no_orphan():
    worker = Worker()
    worker.hold(1004, sequence=7, amount=Resources())
    worker.hold(1004, sequence=6)
    assert isinstance(worker.admit("n2", 1002), Admitted)


def test_a_hold_that_is_not_renewed_ends():
    worker = Worker(hold_ttl_s=10.0)
    worker.hold(1004)
    worker.now += 9.9
    assert isinstance(worker.admit("n2", 1002), Refused)
    worker.now += 0.2
    assert isinstance(worker.admit("n2", 1002, 2), Admitted)


def test_a_hold_ends_with_its_jobs_start_and_a_word_from_before_it_comes_too_late():
    worker = worker_with_hold()
    assert isinstance(worker.admit("n4", 1004, 1, cpu=500), Admitted)
    worker.hold(1004, sequence=2)
    assert isinstance(worker.admit("n2", 1002, cpu=500), Admitted)


def test_a_hold_ends_with_its_owners_death():
    worker = worker_with_hold()
    worker.give(MemberFailed("n4"))
    assert isinstance(worker.admit("n2", 1002), Admitted)


def test_a_hold_of_an_older_leader_is_not_taken_and_those_taken_end_soon_after_a_new_one_begins():
    worker = worker_with_hold()
    worker.hear("n1", Tell(2001))
    worker.hold(2004, sequence=9, epoch=1001)
    worker.now += 1.1
    assert isinstance(worker.admit("n2", 1002), Admitted)


def test_a_gangs_room_is_kept_for_a_moment_only():
    worker = Worker(reserve_s=1.0)
    worker.admit("n2", 1002, reserve_s=1.0)
    assert isinstance(worker.admit("n4", 1004), Refused)
    worker.wait(1.1)
    assert worker.committed == 0
    assert isinstance(worker.admit("n4", 1004, 2), Admitted)
    assert worker.started == [AllocationId(1004, 0, 2)]


def worker_with_hold() -> Worker:
    """A node that is held whole for job 1004, from 50 s on."""
    worker = Worker()
    worker.hold(1004)
    return worker


def test_the_new_leader_hears_from_every_node_what_ends_when():
    worker = Worker()
    worker.admit("n2", 1002, limit_s=100.0)
    worker.now += 5
    (fresh,) = [item for item in worker.hear("n1", Tell(2001)) if isinstance(item, Fresh)]
    assert fresh.report.ends == (End(100_000, Resources(1000, MIB) + WHOLE),)
    assert fresh.report.clock_ms == 5000


def test_a_hold_does_not_bind_an_order_that_its_leader_gave_knowing_it():
    worker = Worker()
    worker.hold(1004, sequence=5)
    assert isinstance(worker.admit("n2", 1002, epoch=1001, go=4), Refused)
    assert isinstance(worker.admit("n2", 1002, 2, epoch=1001, go=6), Admitted)


def test_what_the_queue_moves_by_is_said_again_soon_until_it_is_noted():
    lead = Lead(quick_retry_s=0.05).begin()
    lead.report("n2", 1000, ends=(End(50_000, Resources(1000, 0)),))
    lead.waits("n2", 1002, nodes=2)
    found = holds(lead.said)
    again = holds(lead.wait(0.06)) | holds(lead.wait(0.06))
    assert {key: hold.sequence for key, hold in again.items()} == {key: hold.sequence for key, hold in found.items()}
    for (node, job), hold in found.items():
        lead.hear(node, HoldNoted(hold.epoch, hold.sequence, job))
    assert holds(lead.wait(0.2)) == {}


def test_a_push_is_repeated_until_the_leader_has_noted_it():
    worker = Worker(quick_retry_s=0.05)
    worker.admit("n2", 1002)
    pushes = [item for item in worker.wait(0.06) + worker.wait(0.06) if isinstance(item, Fresh) and item.push]
    assert pushes[-1].report.committed.cpu_milli == 1000
    worker.hear("n1", Noted(1, pushes[-1].report.sequence))
    assert not [item for item in worker.wait(0.2) + worker.wait(0.2) if isinstance(item, Fresh)]
