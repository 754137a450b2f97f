"""The home: whatever nodes answer, and in whatever order, a task's result comes from its newest attempt alone."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from scheduler import Scheduler, SchedulerConfig
from scheduler.errors import InvalidSpec, Overloaded, UnknownJob
from scheduler.events import (
    Accepting,
    Cancel,
    Heard,
    JobChanged,
    MemberFailed,
    MemberUp,
    Outcome,
    Put,
    Received,
    Send,
    Submit,
)
from scheduler.events import Timer as TimerEvent
from scheduler.messages import (
    Admit,
    Admitted,
    AnyItem,
    Ended,
    EndedTaken,
    Go,
    Gone,
    Holding,
    Leads,
    Refused,
    Started,
    Stop,
    Wait,
    decode,
    encode,
    encode_gossip,
)
from scheduler.model import (
    AllocationId,
    ArrayRange,
    JobKind,
    JobSpec,
    OnLost,
    Report,
    Resources,
    Result,
    State,
)
from scheduler.records import TABLES
from scheduler.spec.life import Life, Restart

MIB = 1 << 20
CAPACITY = Resources(1000, 1 << 30)
SPEC = JobSpec("job", ("true",), Resources(100, MIB))
NODES = ("n1", "n2")


class Dispatcher:
    """A home's machine (n9) with its ledger; n1 leads and n2 works, and both say what the test makes them say."""

    def __init__(self, **config: object) -> None:
        self.config = SchedulerConfig(**{"restart_s": 0.5, "restart_max_s": 2.0, **config})
        self.disk: dict[str, dict[str, bytes]] = {table: {} for table in TABLES}
        self.boot_epoch = 0
        self.now = 0.0
        self.said: list[tuple[str, AnyItem]] = []
        self.puts = 0
        self.boot()

    def boot(self) -> None:
        self.boot_epoch += 1
        self.machine = Scheduler(self.config, "n9", 9, self.boot_epoch, 0)
        self.take(self.machine.restore(self.now, self.now, self.disk))
        for name in NODES:
            self.up(name)

    def up(self, name: str) -> None:
        number = int(name[1:])
        self.give(MemberUp(name, number, 1))
        report = Report(name, number, 1, int(self.now * 1000) + 1, CAPACITY, CAPACITY)
        self.give(Heard(name, "report", encode_gossip(report)))

    def give(self, event: object) -> Outcome:
        return self.take(self.machine.handle(self.now, event))

    def take(self, outcome: Outcome) -> Outcome:
        for change in outcome.changes:
            self.puts += isinstance(change, Put)
            if isinstance(change, Put):
                self.disk[change.table][change.key] = change.value
            else:
                self.disk[change.table].pop(change.key, None)
        for action in outcome.actions:
            if isinstance(action, Send):
                self.said += [(action.to, item) for item in decode(action.message, 1 << 20)]
        return outcome

    def hear(self, sender: str, *items: AnyItem) -> list[tuple[str, AnyItem]]:
        before = len(self.said)
        (message,) = encode(items, 1 << 20)
        self.give(Received(sender, message))
        return self.said[before:]

    def submit(self, **facts: object) -> int:
        spec = JobSpec(**{"name": "job", "argv": ("true",), "request": SPEC.request, **facts})
        job = self.give(Submit("user", spec, self.now)).answer
        assert isinstance(job, int)
        return job

    def wait(self, seconds: float) -> list[tuple[str, AnyItem]]:
        before = len(self.said)
        self.now += seconds
        self.give(TimerEvent())
        return self.said[before:]

    def asked(self) -> list[tuple[str, AllocationId]]:
        """Every attempt ever asked for, with its node, oldest first."""
        return [
            (to, AllocationId(item.job, index, attempt))
            for to, item in self.said
            if isinstance(item, Admit)
            for index, attempt in item.tasks
        ]


class Answers(RuleBasedStateMachine):
    """Nodes that lie, repeat themselves and answer late."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Dispatcher()
        self.job = self.home.submit(array=ArrayRange(0, 4), attempts_max=1000)
        self.truth: dict[AllocationId, Result] = {}
        self.finals: dict[int, tuple[State, int]] = {}

    def draw(self, data: st.DataObject) -> tuple[str, AllocationId]:
        """Some attempt that was asked for, and the node it was asked of."""
        return data.draw(st.sampled_from(sorted(set(self.home.asked()))))

    @rule(data=st.data())
    def admitted(self, data):
        node, id_ = self.draw(data)
        self.home.hear(node, Admitted(id_.job, ((id_.index, id_.attempt),)))

    @rule(data=st.data())
    def refused(self, data):
        node, id_ = self.draw(data)
        self.home.hear(node, Refused(id_.job, ((id_.index, id_.attempt),), "cpu", 100, 0))

    @rule(data=st.data())
    def started(self, data):
        node, id_ = self.draw(data)
        self.home.hear(node, Started(id_))

    @rule(data=st.data(), code=st.sampled_from([0, 0, 1, None]))
    def ended(self, data, code):
        node, id_ = self.draw(data)
        error = "never ran" if code is None else None
        result = self.truth.setdefault(id_, Result(exit_code=code, error=error))
        said = self.home.hear(node, Ended(id_, result))
        assert (node, EndedTaken((id_,))) in said

    @rule(data=st.data(), running=st.booleans())
    def holding(self, data, running):
        node, id_ = self.draw(data)
        task = self.home.machine.job(self.job).tasks[id_.index]
        said = self.home.hear(node, Holding((id_,), (running,)))
        outdated = task.attempt != id_.attempt or task.state.final or task.node != node
        assert any(isinstance(item, Stop) for _, item in said) == outdated

    @rule(data=st.data())
    def gone(self, data):
        node, id_ = self.draw(data)
        self.home.hear(node, Gone((id_,)))

    @rule(node=st.sampled_from(NODES), count=st.integers(1, 3), go=st.integers(1, 9))
    def go(self, node, count, go):
        self.home.hear("n1", Go(1001, go, self.job, node, count))

    @rule(node=st.sampled_from(NODES), seconds=st.floats(1, 40))
    def failed(self, node, seconds):
        self.home.give(MemberFailed(node))
        self.home.wait(seconds)
        self.home.up(node)

    @rule(seconds=st.floats(0.1, 20))
    def time(self, seconds):
        self.home.wait(seconds)

    @rule()
    def crash(self):
        self.home.boot()

    @invariant()
    def attempts_are_numbered_one_by_one_each_on_one_node(self):
        nodes: dict[AllocationId, set[str]] = {}
        for node, id_ in self.home.asked():
            nodes.setdefault(id_, set()).add(node)
        assert all(len(each) == 1 for each in nodes.values())
        for index in range(5):
            attempts = sorted({id_.attempt for id_ in nodes if id_.index == index})
            assert attempts == list(range(1, len(attempts) + 1))

    @invariant()
    def an_end_is_final_and_comes_from_the_newest_attempt(self):
        newest: dict[int, int] = {}
        for _, id_ in self.home.asked():
            newest[id_.index] = max(id_.attempt, newest.get(id_.index, 0))
        for task in self.home.machine.job(self.job).tasks:
            if not task.state.final:
                assert task.index not in self.finals
                continue
            assert self.finals.setdefault(task.index, (task.state, task.attempt)) == (task.state, task.attempt)
            assert task.attempt == newest[task.index]
            result = self.truth[AllocationId(self.job, task.index, task.attempt)]
            assert task.state is (State.SUCCEEDED if result.success else State.FAILED)

    @invariant()
    def counts_agree_with_the_tasks(self):
        view = self.home.machine.job(self.job)
        for state in State:
            assert view.counts[state] == sum(task.state is state for task in view.tasks)


Answers.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestAnswers = Answers.TestCase


def test_a_job_is_durable_with_its_first_attempt_in_one_outcome():
    home = Dispatcher()
    outcome = home.give(Submit("user", SPEC, 0.0))
    tables = [change.table for change in outcome.changes]
    assert tables == ["jobs", "tasks"]
    assert len(home.asked()) == 1
    assert outcome.answer == 1009


def test_ids_are_never_reused_even_when_the_newest_job_was_dropped():
    home = Dispatcher(history_jobs=0)
    job = home.submit()
    home.give(Cancel(job, 0.0))
    home.wait(1)
    assert not home.disk["jobs"]
    home.boot()
    assert home.submit() == job + 1000


def test_a_bad_spec_raises_and_changes_nothing():
    home = Dispatcher()
    before = {table: dict(rows) for table, rows in home.disk.items()}
    with pytest.raises(InvalidSpec, match="memory"):
        home.submit(request=Resources(100, 5))
    assert home.disk == before
    assert home.submit() == 1009


def test_too_many_unfinished_jobs_are_refused_until_some_have_ended():
    home = Dispatcher(jobs_max=1)
    job = home.submit()
    with pytest.raises(Overloaded, match="jobs_max"):
        home.submit()
    home.give(Cancel(job, 0.0))
    assert home.submit() == 2009


def test_a_million_tasks_that_wait_cost_one_row_and_no_records():
    home = Dispatcher()
    home.give(Heard("n1", "leader", encode_gossip(Leads(1001, 5))))
    before = home.puts
    job = home.submit(array=ArrayRange(0, 999_999))
    assert home.puts - before == 1
    assert home.machine.jobs()[0].counts[State.PENDING] == 1_000_000
    assert [item.wanted for _, item in home.said if isinstance(item, Wait)] == [1_000_000]
    outcome = home.give(Cancel(job, 0.0))
    assert len([change for change in outcome.changes if change.table == "tasks"]) == 0
    assert home.machine.job_state(job) is State.CANCELLED
    assert home.machine.job(job, first=999_990).tasks[-1].state is State.CANCELLED


def test_while_somebody_waits_a_new_job_does_not_slip_past():
    home = Dispatcher()
    home.give(Heard("n1", "leader", encode_gossip(Leads(1001, 1))))
    job = home.submit()
    assert not home.asked()
    assert [(to, item.wanted) for to, item in home.said if isinstance(item, Wait) and item.job == job] == [("n1", 1)]


def test_a_refused_task_goes_to_the_leader_and_is_not_retried_by_its_home():
    home = Dispatcher()
    job = home.submit()
    ((node, id_),) = home.asked()
    said = home.hear(node, Refused(job, ((0, 1),), "memory", 7, 3))
    assert [to for to, item in said if isinstance(item, Wait)] == ["n1"]
    home.wait(10)
    assert home.asked() == [(node, id_)]
    assert f"{node} refused: memory: needs 7, free 3" in home.machine.job(job).tasks[0].reason


def test_an_unanswered_ask_is_repeated_as_the_same_attempt():
    home = Dispatcher()
    home.submit()
    home.wait(1)
    home.wait(2)
    assert len(home.asked()) >= 2
    assert len(set(home.asked())) == 1


def test_an_order_of_an_older_leader_is_not_obeyed():
    home = Dispatcher()
    home.give(Heard("n1", "leader", encode_gossip(Leads(2001, 1))))
    job = home.submit()
    assert not any(isinstance(item, Admit) for _, item in home.hear("n2", Go(1002, 1, job, "n2", 1)))
    assert any(isinstance(item, Admit) for _, item in home.hear("n1", Go(2001, 1, job, "n2", 1)))


def test_an_order_that_comes_twice_is_obeyed_once():
    home = Dispatcher()
    home.give(Heard("n1", "leader", encode_gossip(Leads(1001, 1))))
    job = home.submit(array=ArrayRange(0, 9))
    home.hear("n1", Go(1001, 4, job, "n2", 2))
    home.hear("n1", Go(1001, 4, job, "n2", 2))
    assert len(home.asked()) == 2


def test_a_throttled_array_never_has_more_than_its_share_under_way():
    home = Dispatcher()
    job = home.submit(array=ArrayRange(0, 9, 1, 3))
    assert len(home.asked()) == 3
    home.hear("n1", Go(1001, 1, job, "n2", 5))
    assert len(home.asked()) == 3
    node, id_ = home.asked()[0]
    said = home.hear(node, Ended(id_, Result(exit_code=0)))
    assert [item.wanted for _, item in said if isinstance(item, Wait)] == [1]


def test_a_cancelled_job_is_cancelled_at_once_and_its_containers_are_stopped_until_they_say_so():
    home = Dispatcher()
    job = home.submit()
    ((node, id_),) = home.asked()
    home.hear(node, Started(id_))
    outcome = home.give(Cancel(job, 0.0))
    assert JobChanged(job) in outcome.actions
    assert home.machine.job_state(job) is State.CANCELLED
    home.wait(1.1)
    assert any(isinstance(item, Stop) for _, item in home.wait(1.1))
    home.hear(node, Ended(id_, Result(exit_code=0)))
    assert home.machine.job_state(job) is State.CANCELLED
    assert not any(isinstance(item, Stop) for _, item in home.wait(9))


def test_the_loss_of_a_node_starts_a_new_attempt_after_the_grace_period_and_not_before():
    home = Dispatcher(lost_grace_s=30.0)
    job = home.submit()
    ((node, id_),) = home.asked()
    home.hear(node, Started(id_))
    home.give(MemberFailed(node))
    home.wait(29)
    assert home.machine.job(job).tasks[0].node == node
    home.wait(2)
    task = home.machine.job(job).tasks[0]
    assert (task.state, task.node) == (State.PENDING, "")
    assert f"{node} is lost" in task.reason
    other = next(name for name in (*NODES, "n9") if name != node)
    home.hear("n1", Go(1001, 1, job, other, 1))
    assert home.asked()[-1] == (other, AllocationId(job, 0, 2))
    home.up(node)
    said = home.hear(node, Holding((id_,), (True,)))
    assert any(isinstance(item, Stop) for _, item in said)
    home.hear(node, Ended(id_, Result(exit_code=0)))
    assert home.machine.job_state(job) is State.PENDING


@pytest.mark.parametrize(
    ("facts", "state"), [({"on_lost": OnLost.FAIL}, State.LOST), ({"attempts_max": 1}, State.LOST)]
)
def test_a_job_that_must_not_be_requeued_is_lost_with_its_node(facts, state):
    home = Dispatcher(lost_grace_s=1.0)
    job = home.submit(**facts)
    ((node, id_),) = home.asked()
    home.hear(node, Started(id_))
    home.give(MemberFailed(node))
    home.wait(2)
    assert home.machine.job_state(job) is State.LOST


def test_a_service_is_started_again_with_a_growing_pause():
    home = Dispatcher(restart_s=0.5, restart_max_s=60.0)
    job = home.submit(kind=JobKind.SERVICE)
    pauses = []
    for go in range(1, 5):
        node, id_ = home.asked()[-1]
        home.hear(node, Ended(id_, Result(exit_code=1)))
        began = home.now
        while not any(isinstance(item, Wait) and item.wanted for _, item in home.wait(0.25)):
            assert home.now < began + 60
        pauses.append(home.now - began)
        home.hear("n1", Go(1001, go, job, "n2", 1))
    assert pauses == sorted(pauses)
    assert pauses[-1] > 2 * pauses[0]
    assert home.asked()[-1][1].attempt == 5


@pytest.mark.parametrize(
    ("restart", "exit_code", "state"),
    [
        (Restart.ON_FAILURE, 0, State.SUCCEEDED),
        (Restart.ON_FAILURE, 1, State.PENDING),
        (Restart.NEVER, 1, State.FAILED),
        (Restart.NEVER, None, State.PENDING),
    ],
)
def test_a_services_policy_says_whether_its_end_is_final(restart, exit_code, state):
    home = Dispatcher()
    job = home.submit(kind=JobKind.SERVICE, life=Life(restart=restart))
    node, id_ = home.asked()[-1]
    home.hear(node, Ended(id_, Result(exit_code=exit_code, error=None if exit_code is not None else "no image")))
    assert home.machine.job_state(job) is state


@pytest.mark.parametrize(
    ("result", "state"),
    [
        (Result(exit_code=127, error="the image has no command /bin/nope"), State.FAILED),
        (Result(error="the image can't be fetched now"), State.PENDING),
    ],
)
def test_only_what_may_end_better_elsewhere_is_tried_again(result, state):
    home = Dispatcher()
    job = home.submit()
    node, id_ = home.asked()[-1]
    home.hear(node, Ended(id_, result))
    assert home.machine.job_state(job) is state


def test_an_unknown_job_is_an_error_and_changes_nothing():
    home = Dispatcher()
    with pytest.raises(UnknownJob):
        home.give(Cancel(1009, 0.0))
    with pytest.raises(UnknownJob):
        home.machine.job(1009)


def test_a_node_that_went_away_before_the_restart_is_given_up_in_time():
    home = Dispatcher(lost_grace_s=1.0, left_grace_s=20.0)
    home.give(Accepting(False))
    job = home.submit()
    ((node, _),) = home.asked()
    home.boot_epoch += 1
    home.machine = Scheduler(home.config, "n9", 9, home.boot_epoch, 0)
    home.take(home.machine.restore(home.now, home.now, home.disk))
    home.wait(19)
    assert home.machine.job(job).tasks[0].node == node
    home.wait(2)
    assert f"{node} is lost" in home.machine.job(job).tasks[0].reason


def test_history_is_bounded_and_its_rows_go_too():
    home = Dispatcher(history_jobs=3)
    for _ in range(10):
        job = home.submit()
        node, id_ = home.asked()[-1]
        home.hear(node, Ended(id_, Result(exit_code=0)))
    home.wait(1)
    assert len(home.disk["jobs"]) == len(home.disk["tasks"]) == 3
    assert str(job) in home.disk["jobs"]


def test_after_a_refusal_a_home_leaves_placing_to_the_leader_for_a_while():
    home = Dispatcher(contended_s=2.0)
    job = home.submit()
    ((node, id_),) = home.asked()
    home.hear(node, Refused(job, ((id_.index, id_.attempt),), "cpu", 100, 0))
    home.give(Cancel(job, 0.0))
    second = home.submit()
    assert len(home.asked()) == 1
    home.give(Cancel(second, 0.0))
    home.wait(2.1)
    home.submit()
    assert len(home.asked()) == 2
