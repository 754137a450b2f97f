"""hold, release, requeue, cordon, drain, and the options of submit that say when a job may start."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from node.cli.options.queueing import parse_begin, parse_dependencies
from node.errors import ApiProblem, InvalidValue


def test_several_jobs_are_steered_and_what_is_not_possible_is_told(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("POST", "/v1/jobs/1/hold", {"id": 1, "state": "pending"})
    agent.prepare("POST", "/v1/jobs/2/hold", ApiProblem(409, {"detail": "job 2 has ended"}))
    agent.prepare("POST", "/v1/jobs/3/hold", {"id": 3, "state": "pending"})
    result = fofoca("hold", "1", "2", "3")
    assert (result.code, result.out, result.err) == (1, "", "fofoca: job 2 has ended\n")
    assert [path for _, path, _ in agent.asked] == [f"/v1/jobs/{job}/hold" for job in (1, 2, 3)]


def test_a_drain_tells_its_deadline_in_seconds(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("POST", "/v1/nodes/n2/drain?deadline_s=1800.0", {})
    assert fofoca("drain", "n2", "--deadline", "30m").code == 0


def test_submit_sends_what_the_job_waits_for(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("POST", "/v1/jobs", {"id": 1001, "home": "n1"})
    fofoca("submit", "--dependency", "afterok:7:8,after:9+5m", "--hold", "--kill-on-invalid-dep", "--", "x")
    assert agent.asked[0][2]["queueing"] == {
        "after": [
            {"kind": "afterok", "job": 7},
            {"kind": "afterok", "job": 8},
            {"kind": "after", "job": 9, "delay_s": 300.0},
        ],
        "hold": True,
        "unmet": "cancel",
    }


def test_a_question_mark_makes_alternatives() -> None:
    assert parse_dependencies("afterok:1?afterany:2") == {
        "after": [{"kind": "afterok", "job": 1}, {"kind": "afterany", "job": 2}],
        "after_any": True,
    }


@pytest.mark.parametrize("text", ["afterok", "afterok:", "later:1", "afterok:x", "afterok:1,after:2?afterany:3", ":1"])
def test_what_is_no_dependency_is_named(text: str) -> None:
    with pytest.raises(InvalidValue) as refusal:
        parse_dependencies(text)
    assert refusal.value.field == "dependency"


def test_moments_are_read_as_people_write_them() -> None:
    now = datetime(2027, 1, 31, 12, 0).timestamp()
    assert parse_begin("now+90s", now) == now + 90
    assert parse_begin("16:30", now) == datetime(2027, 1, 31, 16, 30).timestamp()
    assert parse_begin("08:15", now) == datetime(2027, 2, 1, 8, 15).timestamp()
    assert parse_begin("2027-03-01", now) == datetime(2027, 3, 1).timestamp()
    assert parse_begin("2027-03-01T07:00", now) == datetime(2027, 3, 1, 7).timestamp()
    for text in ("tomorrow", "25:00", "2027-13-01", ""):
        with pytest.raises(InvalidValue):
            parse_begin(text, now)
