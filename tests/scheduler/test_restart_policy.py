"""When a service is started again, and after which pause; which signals a task may be told by."""

from __future__ import annotations

import pytest

from scheduler.errors import InvalidSpec
from scheduler.model import JobSpec, Resources
from scheduler.spec.life import Life, Restart, check
from scheduler.validate import validate

WARNED = Life(warn_signal="USR1", warn_s=60.0)


@pytest.mark.parametrize(
    ("restart", "after_success", "after_failure"),
    [(Restart.ALWAYS, True, True), (Restart.ON_FAILURE, False, True), (Restart.NEVER, False, False)],
)
def test_the_policy_says_what_is_started_again(restart: Restart, after_success: bool, after_failure: bool) -> None:
    life = Life(restart=restart)
    assert (life.goes_on(True), life.goes_on(False)) == (after_success, after_failure)


def test_pauses_double_up_to_the_longest() -> None:
    life = Life(backoff_s=2.0, backoff_max_s=10.0)
    assert [life.pause_s(tries, 1.0, 300.0) for tries in range(5)] == [2.0, 4.0, 8.0, 10.0, 10.0]
    assert [Life().pause_s(tries, 1.0, 3.0) for tries in range(4)] == [1.0, 2.0, 3.0, 3.0]
    assert Life(backoff_s=600.0).pause_s(0, 1.0, 300.0) == 600.0, "what the job says is never shortened"
    assert Life().pause_s(10**6, 1.0, 300.0) == 300.0


@pytest.mark.parametrize(
    ("life", "field"),
    [
        (Life(backoff_s=-1.0), "life.backoff_s"),
        (Life(backoff_s=float("nan")), "life.backoff_s"),
        (Life(backoff_max_s=1e9), "life.backoff_max_s"),
        (Life(backoff_s=5.0, backoff_max_s=1.0), "life.backoff_max_s"),
        (Life(stop_signal="KILL"), "life.stop_signal"),
        (Life(stop_signal="SIGTERM"), "life.stop_signal"),
        (Life(warn_signal="STOP", warn_s=1.0), "life.warn_signal"),
        (Life(warn_signal="USR1"), "life.warn_s"),
        (Life(warn_s=60.0), "life.warn_s"),
        (Life(warn_signal="USR1", warn_s=float("inf")), "life.warn_s"),
        (Life(warn_alone=True), "life.warn_alone"),
    ],
)
def test_a_wrong_pause_or_signal_is_named(life: Life, field: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        check(life)
    assert refused.value.field == field


@pytest.mark.parametrize("time_limit_s", [None, 30.0, 60.0])
def test_a_warning_comes_before_a_time_limit_that_the_job_names(time_limit_s: float | None) -> None:
    spec = JobSpec("x", ("true",), Resources(100, 1 << 20), time_limit_s=time_limit_s, life=WARNED)
    with pytest.raises(InvalidSpec, match=r"life\.warn_s"):
        validate(spec)
    validate(JobSpec("x", ("true",), Resources(100, 1 << 20), time_limit_s=61.0, life=WARNED))
