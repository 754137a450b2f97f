"""When a task counts as healthy: a grace, failures in a row, successes in a row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.condition import TEXT_MAX, HealthState, bounded
from scheduler.errors import InvalidSpec
from scheduler.health import STARTING_INTERVAL_S, TABLE, TaskHealth, Turn
from scheduler.model import JobSpec, Resources
from scheduler.spec.health import Health, HttpCheck, check
from scheduler.spec.life import Life
from scheduler.validate import validate

STARTING, HEALTHY, UNHEALTHY = HealthState.STARTING, HealthState.HEALTHY, HealthState.UNHEALTHY
CHECK = Health(tcp=80, interval_s=10.0, start_period_s=30.0, failures_max=3, successes_min=2)


def played(task: TaskHealth, outcomes: str, took_s: float = 0.5) -> list[HealthState]:
    """The states after each check, made when it was due: `+` went well, `-` did not."""
    states = []
    for outcome in outcomes:
        began_s = task.next_s
        task.checked(began_s, began_s + took_s, "" if outcome == "+" else "refused")
        states.append(task.state)
    return states


def test_every_state_that_is_checked_has_a_row_and_no_row_leads_back_to_the_start() -> None:
    assert set(TABLE) == set(HealthState) - {HealthState.NONE}
    for state, row in TABLE.items():
        assert state not in row.values()
        assert STARTING not in row.values()


def test_failures_in_the_grace_do_not_count_and_are_followed_by_a_check_soon() -> None:
    task = TaskHealth(CHECK, 100.0)
    assert set(played(task, "-" * 20)) == {STARTING}
    assert task.next_s == 100.0 + 20 * STARTING_INTERVAL_S
    assert task.why == "refused", "what keeps it from being up is told"
    while task.next_s < 130.0:
        played(task, "-")
    assert played(task, "--") == [STARTING, STARTING]
    assert played(task, "-") == [UNHEALTHY]


def test_the_grace_is_over_once_it_was_healthy() -> None:
    task = TaskHealth(CHECK, 0.0)
    assert played(task, "++") == [STARTING, HEALTHY]
    assert played(task, "---") == [HEALTHY, HEALTHY, UNHEALTHY]


def test_only_rows_without_a_gap_count() -> None:
    task = TaskHealth(CHECK, 0.0)
    assert played(task, "+-+-+-++") == [STARTING] * 7 + [HEALTHY]
    assert set(played(task, "--+--+--+")) == {HEALTHY}
    assert played(task, "---") == [HEALTHY, HEALTHY, UNHEALTHY]
    assert played(task, "+-++") == [UNHEALTHY, UNHEALTHY, UNHEALTHY, HEALTHY]


def test_only_changes_are_told() -> None:
    task = TaskHealth(Health(tcp=80, start_period_s=0.0), 0.0)
    told = [task.checked(time, time, failure) for time, failure in enumerate(["", "", "x", "y", "z", "z", ""])]
    assert told == [True, False, False, False, True, False, True]


def test_checks_neither_overlap_nor_run_late() -> None:
    task = TaskHealth(CHECK, 0.0)
    played(task, "++")
    before_s = task.next_s
    played(task, "+", took_s=2.0)
    assert task.next_s == before_s + CHECK.interval_s
    before_s = task.next_s
    played(task, "+", took_s=25.0)
    assert task.next_s == before_s + 25.0


def test_what_failed_before_a_freeze_does_not_count_after_it() -> None:
    task = TaskHealth(CHECK, 0.0)
    played(task, "++--")
    task.resume(500.0)
    assert task.next_s == 500.0
    assert played(task, "--") == [HEALTHY, HEALTHY]


@given(st.text(alphabet="+-", max_size=60), st.integers(1, 5), st.integers(1, 5), st.floats(0, 100))
def test_the_state_is_what_the_last_long_enough_row_says(outcomes: str, most: int, least: int, grace_s: float) -> None:
    task = TaskHealth(Health(tcp=1, failures_max=most, successes_min=least, start_period_s=grace_s), 0.0)
    expected, counted = STARTING, ""
    for outcome in outcomes:
        in_grace = expected is STARTING and task.next_s < grace_s
        played(task, outcome)
        counted = counted.rstrip("+") if in_grace and outcome == "-" else counted + outcome
        if counted.endswith("-" * most):
            expected = UNHEALTHY
        elif counted.endswith("+" * least):
            expected = HEALTHY
        assert task.state is expected


def test_a_long_failure_keeps_its_end() -> None:
    assert bounded("x" * TEXT_MAX) == "x" * TEXT_MAX
    text = bounded("x" * 5000 + "no route to host")
    assert (len(text), text[:4], text[-16:]) == (TEXT_MAX, "...x", "no route to host")


@pytest.mark.parametrize(
    ("health", "field"),
    [
        (Health(), "life.health"),
        (Health(tcp=80, command=("true",)), "life.health"),
        (Health(tcp=70_000), "life.health.tcp"),
        (Health(command=("",)), "life.health.command"),
        (Health(command=("a\0b",)), "life.health.command"),
        (Health(tcp=1, interval_s=0.0), "life.health.interval_s"),
        (Health(tcp=1, timeout_s=float("inf")), "life.health.timeout_s"),
        (Health(tcp=1, start_period_s=-1.0), "life.health.start_period_s"),
        (Health(tcp=1, failures_max=0), "life.health.failures_max"),
        (Health(tcp=1, successes_min=9999), "life.health.successes_min"),
        (Health(http=HttpCheck(port=0)), "life.health.http.port"),
        (Health(http=HttpCheck(port=80, path="x")), "life.health.http.path"),
        (Health(http=HttpCheck(port=80, path="/\r\nX: y")), "life.health.http.path"),
        (Health(http=HttpCheck(port=80, host="a\r\nb")), "life.health.http.host"),
        (Health(http=HttpCheck(port=80, status_min=99)), "life.health.http.status_min"),
        (Health(http=HttpCheck(port=80, status_min=300, status_max=200)), "life.health.http.status_max"),
    ],
)
def test_a_wrong_check_is_named(health: Health, field: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        check(health)
    assert refused.value.field == field


def test_a_task_without_a_network_is_checked_from_inside_alone() -> None:
    spec = JobSpec("web", ("true",), Resources(100, 1 << 20), network="none", life=Life(health=Health(tcp=80)))
    with pytest.raises(InvalidSpec, match=r"life\.health.*without a network"):
        validate(spec)


def test_a_turn_that_changes_nothing_is_in_no_row() -> None:
    assert Turn.RISEN not in TABLE[HEALTHY]
    assert Turn.FALLEN not in TABLE[UNHEALTHY]
