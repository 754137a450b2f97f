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


@pytest.mark.parametrize("command", ["wait", "job", "hold", "cancel", "explain"])
def test_what_is_no_jobs_id_is_said_so(fofoca: Callable[..., Any], command: str) -> None:
    for text in ("abc", "0", "1.5", "9" * 40):
        result = fofoca(command, text)
        assert result.code == 2
        assert f"{text!r} is not a job's id, a whole number such as 12001" in result.err


def test_an_unknown_id_is_found_out_before_any_is_waited_for(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("GET", "/v1/jobs/1001", {"id": 1001, "state": "running", "tasks": []})
    agent.prepare("GET", "/v1/jobs/99999", ApiProblem(404, {"detail": "no job 99999"}))
    result = fofoca("wait", "1001", "99999")
    assert (result.code, result.err) == (2, "fofoca: no job 99999\n")
    assert len(agent.asked) == 2


def test_what_a_node_finds_wrong_is_told_of_the_option(fofoca: Callable[..., Any], agent: Any) -> None:
    for field, option in (
        ("memory_bytes", "--memory"),
        ("time_limit_s", "--time"),
        ("queueing.partition", "--partition"),
        ("queueing.licences", "--licence"),
        ("queueing.after.job", "--dependency"),
        ("files.secrets.name", "--secret"),
        ("limits.rlimits.nofile", "--rlimit"),
        ("life.health.interval_s", "--health-interval"),
        ("argv", "argv"),
    ):
        problem = {"detail": f"{field}: 0 is not valid; ask for more", "field": field}
        agent.prepare("POST", "/v1/jobs", ApiProblem(400, problem))
        assert fofoca("submit", "--", "x").err == f"fofoca: {option}: 0 is not valid; ask for more\n"


def test_an_empty_command_is_not_blamed_on_its_name(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("POST", "/v1/jobs", {"id": 1, "home": "n1"})
    fofoca("submit", "--", "")
    assert agent.asked[-1][2] == {"argv": [""]}
