"""The queue's leader: rank order, in-flight orders, epochs; each pitfall that the protocol's models met, as a test.

Pitfalls about holds of wide jobs become tests of holds; here are those that orders, claims and attempts already have.
"""

from __future__ import annotations

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
    Timer,
)
from scheduler.messages import (
    AnyItem,
    Declined,
    Fresh,
    Go,
    Leads,
    Settled,
    Tell,
    Told,
    Wait,
    WaitHeard,
    decode,
    decode_leads,
    encode,
    encode_gossip,
)
from scheduler.model import Constraint, Report, Resources

CAPACITY = Resources(1000, 1 << 30)
MIB = 1 << 20


class Lead:
    """The machine of n1, which leads; n2 and n3 are homes and nodes in the test's hands. n1 itself takes nothing."""

    def __init__(self, number: int = 1, **config: object) -> None:
        self.machine = Scheduler(SchedulerConfig(**{"gather_s": 0, **config}), f"n{number}", number, 1, 0)
        self.now = 0.0
        self.said: list[tuple[str, AnyItem]] = []
        self.published: list[Leads] = []
        self.sequences = {"n2": 0, "n3": 0}
        self.versions: dict[int, int] = {}
        self.take(self.machine.restore(0.0, 0.0, {}))
        for name in ("n2", "n3"):
            self.give(MemberUp(name, int(name[1:]), 1))
            self.report(name)

    def begin(self) -> Lead:
        """Let n1 take the role and both homes tell that nothing waits."""
        self.wait(0.6)
        epoch = self.epoch
        for name in ("n2", "n3"):
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
        self.sequences[name] += 1
        values = {"capacity": CAPACITY, "allocatable": CAPACITY, "committed": Resources(cpu, 0), **facts}
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
    assert orders(lead.wait(1.0)) == []
    (again,) = orders(lead.wait(1.1))
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
