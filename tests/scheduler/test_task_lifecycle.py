"""The life of a task: the table is closed, ends are final, and what it does not list changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import IllegalTransition
from scheduler.lifecycle import FINAL, LIVE, TABLE, Phase, Step, phase_of, take
from scheduler.model import Result, State, TaskRecord

RECORDS = {
    Phase.WAITING: TaskRecord(attempt=2, tries=1),
    Phase.ASKED: TaskRecord(attempt=2, node="n1"),
    Phase.ADMITTED: TaskRecord(attempt=2, node="n1", admitted=True),
    Phase.RUNNING: TaskRecord(State.RUNNING, attempt=2, node="n1", admitted=True),
    Phase.SUCCEEDED: TaskRecord(State.SUCCEEDED, attempt=2, node="n1", result=Result(exit_code=0)),
    Phase.FAILED: TaskRecord(State.FAILED, attempt=2, node="n1"),
    Phase.CANCELLED: TaskRecord(State.CANCELLED, attempt=2),
    Phase.LOST: TaskRecord(State.LOST, attempt=2, node="n1"),
}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("step", Step)
def test_every_pair_either_follows_the_table_or_raises(phase, step):
    record = RECORDS[phase]
    assert phase_of(record) is phase
    if step in TABLE[phase]:
        assert phase_of(take(record, step, node="n2")) is TABLE[phase][step]
    else:
        with pytest.raises(IllegalTransition):
            take(record, step, node="n2")


def test_the_table_knows_every_phase_and_ends_where_states_are_final():
    assert set(TABLE) == set(Phase)
    assert {phase.value for phase in FINAL} == {state.value for state in State if state.final}
    assert not LIVE & FINAL


@given(st.lists(st.sampled_from(list(Step)), max_size=30))
def test_attempts_and_tries_never_fall_and_an_end_stays(steps):
    record = TaskRecord()
    for step in steps:
        before = record
        try:
            record = take(record, step, node="n1")
        except IllegalTransition:
            assert record is before
            continue
        assert not before.state.final
        assert record.attempt == before.attempt + (step is Step.ASK)
        assert before.tries <= record.tries <= record.attempt
        assert (phase_of(record) in LIVE) <= bool(record.node)


def test_a_refused_attempt_is_no_try_but_a_lost_one_is():
    asked = take(TaskRecord(), Step.ASK, node="n1")
    assert take(asked, Step.REFUSE).tries == 0
    assert take(take(asked, Step.ADMIT), Step.RETRY).tries == 1


def test_an_attempt_without_a_node_is_not_asked_for():
    with pytest.raises(IllegalTransition):
        take(TaskRecord(), Step.ASK)
