"""submit, wait, job, jobs, explain, cancel: what is asked, printed and returned."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from node.caller import Answer
from node.errors import AgentUnreachable, ApiProblem

OK = {"index": 0, "state": "succeeded", "node": "n2", "attempt": 1, "exit_code": 0, "reason": ""}
BAD = {"index": 1, "state": "failed", "node": "n3", "attempt": 1, "exit_code": 7, "reason": ""}


def job(state: str, *tasks: dict[str, Any], job_id: int = 1001) -> dict[str, Any]:
    known = {"id": job_id, "name": "x", "home": "n1", "owner": "lab", "submitted_unix_s": 0.0}
    return {**known, "state": state, "tasks": list(tasks)}


def test_submit_prints_the_id_alone_and_sends_only_what_was_asked(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("POST", "/v1/jobs", {"id": 1001, "home": "n1"})
    result = fofoca("submit", "--name", "n", "--cpu", "250m", "--memory", "64M", "--image", "busybox", "--array", "0-9",
                    "--time", "60s", "--stop-grace", "1m", "--env", "A=b=c", "--", "echo", "--name", "-x")  # fmt: skip
    assert (result.code, result.out, result.err) == (0, "1001\n", "")
    assert agent.asked == [
        (
            "POST",
            "/v1/jobs",
            {
                "name": "n",
                "argv": ["echo", "--name", "-x"],
                "cpu_milli": 250,
                "memory_bytes": 64 << 20,
                "image": "busybox",
                "env": {"A": "b=c"},
                "array": "0-9",
                "time_limit_s": 60,
                "stop_grace_s": 60,
            },
        )
    ]


def test_a_command_needs_no_dashes_before_it(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("POST", "/v1/jobs", {"id": 5, "home": "n1"})
    assert fofoca("submit", "ls", "-l", "--time").code == 0
    assert agent.asked[0][2] == {"name": "ls", "argv": ["ls", "-l", "--time"]}


def test_limits_may_be_above_requests(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("POST", "/v1/jobs", {"id": 5, "home": "n1"})
    fofoca("submit", "--limit-memory", "1G", "--", "x")
    assert agent.asked[0][2]["limit"] == {"memory_bytes": 1 << 30}


def test_wait_returns_0_1_or_124(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("GET", "/v1/jobs/1", job("running"), job("succeeded", OK))
    assert fofoca("wait", "1").code == 0
    agent.prepare("GET", "/v1/jobs/2", job("failed", OK, BAD, job_id=2))
    result = fofoca("wait", "1", "2")
    assert result.code == 1
    assert result.err == "fofoca: job 2 (x) failed: task 1 on n3: exit code 7\n"
    agent.prepare("GET", "/v1/jobs/3", job("running"))
    result = fofoca("wait", "3", "--timeout", "20ms")
    assert result.code == 124
    assert result.err == "fofoca: job 3 has not ended within 20ms\n"


def test_wait_outlives_the_restart_of_an_agent(fofoca: Callable[..., Any], agent: Any) -> None:
    away = ApiProblem(503, {"title": "home unreachable", "detail": "n1 does not answer"})
    gone = AgentUnreachable("http://x", "connection refused")
    agent.prepare("GET", "/v1/jobs/1", job("running"), away, gone, job("succeeded", OK))
    assert fofoca("wait", "1").code == 0


def test_wait_for_an_unknown_job_fails_at_once(fofoca: Callable[..., Any], agent: Any) -> None:
    assert fofoca("wait", "77").code == 2


def test_json_is_exactly_what_the_node_said(fofoca: Callable[..., Any], agent: Any) -> None:
    said = job("failed", OK, BAD)
    agent.prepare("GET", "/v1/jobs/1001", said)
    assert json.loads(fofoca("job", "1001", "--json").out) == said


def test_a_job_is_shown_with_its_tasks(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("GET", "/v1/jobs/1001", job("failed", OK, BAD))
    lines = fofoca("job", "1001").out.splitlines()
    assert lines[0] == "1001 (x) failed, of lab, home n1"
    assert lines[1].split() == ["TASK", "STATE", "NODE", "ATTEMPT", "EXIT", "ADDRESSES", "PORTS", "REASON"]
    assert lines[3].split() == ["1", "failed", "n3", "1", "7"]


def test_jobs_names_the_homes_that_did_not_answer(fofoca: Callable[..., Any], agent: Any) -> None:
    listed = [{**job("running"), "tasks": {"running": 2, "pending": 0}}]
    agent.prepare("GET", "/v1/jobs", Answer(200, {"x-fofoca-missing": "n3"}, json.dumps(listed).encode()))
    result = fofoca("jobs")
    assert result.code == 0
    assert "2 running" in result.out
    assert "pending" not in result.out
    assert result.err == "fofoca: no answer from n3; their jobs are not in this list\n"
    assert json.loads(fofoca("jobs", "--json").out) == listed


def test_explain_says_why_in_words(fofoca: Callable[..., Any], agent: Any) -> None:
    answer = {
        "id": 1001, "state": "pending", "summary": "waits for memory", "position": 2, "waiting": 5, "leader": "n1",
        "reasons": [{"text": "memory: short on 3 nodes"}],
    }  # fmt: skip
    agent.prepare("GET", "/v1/jobs/1001/explain", answer)
    assert fofoca("explain", "1001").out.splitlines() == [
        "1001 pending: waits for memory",
        "  memory: short on 3 nodes",
        "  position 2 of 5 in the queue kept by n1",
    ]


def test_cancelling_what_has_ended_is_told(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("DELETE", "/v1/jobs/1", {"id": 1, "state": "cancelled"})
    agent.prepare("DELETE", "/v1/jobs/2", {"id": 2, "state": "succeeded"})
    assert fofoca("cancel", "1").code == 0
    result = fofoca("cancel", "1", "2")
    assert (result.code, result.err) == (1, "fofoca: job 2 had already ended (succeeded)\n")
