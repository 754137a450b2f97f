"""The executing node: whatever homes ask and in whatever order, it never commits more than it permits."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from scheduler import Scheduler, SchedulerConfig
from scheduler.errors import BadMessage, InvalidSpec
from scheduler.events import (
    Accepting,
    ContainerEnded,
    ContainerStarted,
    Measured,
    MemberUp,
    Outcome,
    Put,
    Received,
    RemoveContainer,
    Send,
    StartContainer,
    StopContainer,
    Timer,
)
from scheduler.fit import fits
from scheduler.messages import (
    Admit,
    Admitted,
    AnyItem,
    Census,
    Ended,
    EndedTaken,
    Fresh,
    Gone,
    Holding,
    Refused,
    Stop,
    decode,
    encode,
)
from scheduler.model import NOWHERE, AllocationId, JobSpec, Resources, Result
from scheduler.records import TABLES
from scheduler.reporting import WHOLE

CAPACITY = Resources(1000, 1 << 30, (("gpu", 2),))
MIB = 1 << 20


def spec(cpu: int, gpus: int = 0) -> JobSpec:
    """A job's spec that asks for so much."""
    extra = (("gpu", gpus),) if gpus else ()
    return JobSpec("job", ("true",), Resources(cpu, MIB, extra))


class Node:
    """A node's machine with its ledger; the homes are whoever speaks to it."""

    def __init__(self, **config: object) -> None:
        self.config = SchedulerConfig(**config)
        self.disk: dict[str, dict[str, bytes]] = {table: {} for table in TABLES}
        self.boot_epoch = 0
        self.now = 0.0
        self.actions: list[object] = []
        self.boot()

    def boot(self) -> None:
        self.boot_epoch += 1
        self.machine = Scheduler(self.config, "n9", 9, self.boot_epoch, 0)
        self.take(self.machine.restore(self.now, 0.0, self.disk))
        self.give(Measured(CAPACITY, CAPACITY, Resources()))
        for number in (1, 2):
            self.give(MemberUp(f"n{number}", number, 1))

    def give(self, event: object) -> list[object]:
        return self.take(self.machine.handle(self.now, event))

    def take(self, outcome: Outcome) -> list[object]:
        for change in outcome.changes:
            if isinstance(change, Put):
                self.disk[change.table][change.key] = change.value
            else:
                self.disk[change.table].pop(change.key, None)
        self.actions += outcome.actions
        return outcome.actions

    def hear(self, sender: str, *items: AnyItem) -> list[object]:
        (message,) = encode(items, 1 << 20)
        return self.give(Received(sender, message))

    def said(self, actions: list[object], to: str) -> list[AnyItem]:
        return [
            item
            for action in actions
            if isinstance(action, Send) and action.to == to
            for item in decode(action.message, 1 << 20)
        ]

    def admit(self, id_: AllocationId, what: JobSpec, boot_epoch: int | None = None, epoch: int = 0) -> AnyItem:
        order = Admit(
            id_.job, "user", what, ((id_.index, id_.attempt),), boot_epoch or self.boot_epoch, epoch, go=int(epoch > 0)
        )
        answers = self.said(self.hear("n1", order), "n1")
        (answer,) = [item for item in answers if isinstance(item, Admitted | Refused)]
        return answer


class Admissions(RuleBasedStateMachine):
    """Asks, ends, stops, crashes in any order, against a model of what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.node = Node(cpu_ratio_permille=1500)
        self.permitted = Resources(1500, 1 << 30, (("gpu", 2),))
        self.live: dict[AllocationId, Resources] = {}
        self.over: dict[AllocationId, Result | None] = {}
        self.boots: dict[AllocationId, int] = {}

    @rule(index=st.integers(0, 5), attempt=st.integers(1, 3), cpu=st.integers(1, 900), gpus=st.integers(0, 2))
    def ask(self, index, attempt, cpu, gpus):
        id_ = AllocationId(1001, index, attempt)
        known = id_ in self.live or id_ in self.over
        fit = fits(spec(cpu, gpus).request, self.permitted - self.committed())
        before = len(self.node.actions)
        answer = self.node.admit(id_, spec(cpu, gpus), self.first_boot(id_))
        started = [action for action in self.node.actions[before:] if isinstance(action, StartContainer)]
        if id_ in self.live:
            assert isinstance(answer, Admitted)
        if known:
            assert not started
            return
        assert isinstance(answer, Admitted) == bool(started)
        if started:
            assert fit
            assert str(id_) in self.node.disk["allocations"]
            self.live[id_] = spec(cpu, gpus).request

    @rule(data=st.data(), code=st.integers(0, 1))
    def end(self, data, code):
        if self.live:
            id_ = data.draw(st.sampled_from(sorted(self.live)))
            del self.live[id_]
            said = self.node.said(self.node.give(ContainerEnded(id_, Result(exit_code=code))), "n1")
            (ended,) = [item for item in said if isinstance(item, Ended) and item.id == id_]
            assert ended.result == Result(exit_code=code, stopped=ended.result.stopped)
            self.over[id_] = ended.result

    @rule(data=st.data())
    def start(self, data):
        if self.live:
            self.node.give(ContainerStarted(data.draw(st.sampled_from(sorted(self.live))), 0.0))

    @rule(index=st.integers(0, 5), attempt=st.integers(1, 3))
    def stop(self, index, attempt):
        id_ = AllocationId(1001, index, attempt)
        self.first_boot(id_)
        actions = self.node.hear("n1", Stop(id_, "a test"))
        assert any(isinstance(action, StopContainer) and action.id == id_ for action in actions) == (id_ in self.live)
        if id_ not in self.live and id_ not in self.over:
            assert Gone((id_,)) in self.node.said(actions, "n1")
            self.over[id_] = None

    @rule(index=st.integers(0, 5), attempt=st.integers(1, 3))
    def census(self, index, attempt):
        id_ = AllocationId(1001, index, attempt)
        self.first_boot(id_)
        gone = Gone((id_,)) in self.node.said(self.node.hear("n1", Census((id_,))), "n1")
        assert gone == (id_ not in self.live and self.over.get(id_) is None)
        if gone:
            self.over[id_] = None

    @rule(data=st.data())
    def take_end(self, data):
        kept = [id_ for id_, result in self.over.items() if result is not None]
        if kept:
            id_ = data.draw(st.sampled_from(sorted(kept)))
            actions = self.node.hear("n1", EndedTaken((id_,)))
            assert RemoveContainer(id_) in actions
            assert str(id_) not in self.node.disk["allocations"]
            self.over[id_] = None

    @rule()
    def crash(self):
        self.node.boot()
        for id_ in self.live:
            self.node.give(ContainerStarted(id_, 0.0))

    @rule(seconds=st.floats(0.1, 30))
    def pass_time(self, seconds):
        self.node.now += seconds
        self.node.give(Timer())

    def first_boot(self, id_: AllocationId) -> int:
        """The node's boot at which an attempt was first spoken of."""
        return self.boots.setdefault(id_, self.node.boot_epoch)

    def committed(self) -> Resources:
        total = Resources()
        for request in self.live.values():
            total = total + request
        return total

    @invariant()
    def what_is_committed_is_what_lives_and_never_more_than_permitted(self):
        (status,) = [node for node in self.node.machine.nodes() if node.name == "n9"]
        assert status.report is not None
        committed = status.report.committed
        assert fits(committed, self.permitted + WHOLE)
        assert all(committed.get(name) == amount for name, amount in self.committed().items())
        assert status.report.containers == len(self.live)

    @invariant()
    def timers_lie_ahead(self):
        due = self.node.machine.next_timer()
        assert due is None or due >= self.node.now


Admissions.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAdmissions = Admissions.TestCase

ID = AllocationId(1001, 0, 1)


def test_a_refusal_names_the_dimension_with_both_amounts():
    node = Node()
    node.admit(ID, spec(900))
    refused = node.admit(AllocationId(1001, 1, 1), spec(200))
    assert isinstance(refused, Refused)
    assert (refused.cause, refused.need, refused.free) == ("cpu", 200, 100)


def test_an_answer_carries_a_fresh_report_before_it():
    node = Node()
    order = Admit(1001, "user", spec(100), ((0, 1),), 1)
    said = node.said(node.hear("n1", order), "n1")
    kinds = [type(item) for item in said]
    assert kinds.index(Fresh) < kinds.index(Admitted)
    (fresh,) = [item for item in said if isinstance(item, Fresh)]
    assert fresh.report.committed.cpu_milli == 100


def test_an_order_of_an_older_leader_is_refused():
    node = Node()
    assert isinstance(node.admit(ID, spec(1), epoch=2001), Admitted)
    refused = node.admit(AllocationId(1001, 1, 1), spec(1), epoch=1001)
    assert isinstance(refused, Refused)
    assert "older leader" in refused.cause


def test_an_attempt_first_asked_of_an_earlier_boot_is_refused_unless_it_is_here():
    node = Node()
    node.admit(ID, spec(1))
    node.boot()
    assert isinstance(node.admit(ID, spec(1), boot_epoch=1), Admitted)
    assert isinstance(node.admit(AllocationId(1001, 1, 1), spec(1), boot_epoch=1), Refused)


def test_a_refused_attempt_never_starts_later():
    node = Node()
    node.admit(ID, spec(1000))
    late = AllocationId(1001, 1, 1)
    assert isinstance(node.admit(late, spec(10)), Refused)
    node.give(ContainerEnded(ID, Result(exit_code=0)))
    assert isinstance(node.admit(late, spec(10)), Refused)
    assert isinstance(node.admit(AllocationId(1001, 1, 2), spec(10)), Admitted)


def test_a_newer_attempt_stops_the_older_one():
    node = Node()
    node.admit(ID, spec(10))
    before = len(node.actions)
    node.admit(AllocationId(1001, 0, 2), spec(10))
    assert any(isinstance(each, StopContainer) and each.id == ID for each in node.actions[before:])


def test_a_stop_by_a_node_that_is_not_the_home_is_ignored():
    node = Node()
    node.admit(ID, spec(10))
    assert not any(isinstance(each, StopContainer) for each in node.hear("n2", Stop(ID, "mischief")))


def test_ends_are_repeated_until_taken_and_kept_over_a_restart():
    node = Node()
    node.admit(ID, spec(10))
    node.give(ContainerEnded(ID, Result(exit_code=3)))
    node.boot()
    node.now += 5
    assert Ended(ID, Result(exit_code=3)) in node.said(node.actions[-20:], "n1")
    node.hear("n1", EndedTaken((ID,)))
    assert not node.disk["allocations"]


def test_an_end_whose_home_is_gone_for_good_is_forgotten_in_time():
    node = Node(ended_keep_s=100.0)
    node.admit(ID, spec(10))
    node.give(ContainerEnded(ID, Result(exit_code=0)))
    node.now += 101
    assert RemoveContainer(ID) in node.give(Timer())
    assert not node.disk["allocations"]


def test_homes_hear_regularly_what_is_held_of_them():
    node = Node(holding_interval_s=10.0)
    node.admit(ID, spec(10))
    node.give(ContainerStarted(ID, 0.0))
    node.now += 10.5
    assert Holding((ID,), (True,), (NOWHERE,)) in node.said(node.give(Timer()), "n1")


def test_a_container_that_nobody_ordered_is_stopped_and_removed():
    node = Node()
    stranger = AllocationId(5001, 0, 1)
    assert any(isinstance(each, StopContainer) for each in node.give(ContainerStarted(stranger, 0.0)))
    assert RemoveContainer(stranger) in node.give(ContainerEnded(stranger, Result(signal=9)))


def test_a_cordoned_node_takes_nothing_and_says_so():
    node = Node()
    node.give(Accepting(False))
    refused = node.admit(ID, spec(10))
    assert isinstance(refused, Refused)
    assert refused.cause == "the node takes nothing new"


def test_a_node_with_a_full_disk_takes_nothing_until_there_is_room_again():
    node = Node()
    node.give(Measured(CAPACITY, CAPACITY, Resources(), room=False))
    refused = node.admit(ID, spec(10))
    assert isinstance(refused, Refused)
    assert refused.cause == "the node's disk is full"
    assert not offers(node)
    node.give(Measured(CAPACITY, CAPACITY, Resources()))
    assert offers(node)
    assert isinstance(node.admit(AllocationId(ID.job, ID.index, ID.attempt + 1), spec(10)), Admitted)


def offers(node):
    (status,) = [each for each in node.machine.nodes() if each.name == "n9"]
    return status.report.accepting


def test_labels_that_would_not_fit_into_a_report_are_refused_and_change_nothing():
    node = Node()
    labels = tuple((f"label{number}", "x" * 40) for number in range(40))
    with pytest.raises(InvalidSpec, match="labels"):
        node.give(Measured(CAPACITY, CAPACITY, Resources(), labels))
    assert isinstance(node.admit(ID, spec(10)), Admitted)


@pytest.mark.parametrize("message", [b"", b"\xc1", b"\x93\x01\x02\x03", msgspec.msgpack.encode([["stop", 1]])])
def test_what_is_no_message_is_refused_and_changes_nothing(message):
    node = Node()
    with pytest.raises(BadMessage):
        node.give(Received("n1", message))
    assert isinstance(node.admit(ID, spec(10)), Admitted)
