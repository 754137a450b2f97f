"""When a service is started again, and after which pause."""

from __future__ import annotations

import pytest

from scheduler.errors import InvalidSpec
from scheduler.spec.life import Life, Restart, check


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
    ],
)
def test_a_wrong_pause_is_named(life: Life, field: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        check(life)
    assert refused.value.field == field
