"""`fofoca run`: the job's exit code is the command's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from node.caller import Answer

SILENCE = Answer(200, {"x-next-offset": "0", "x-ended": "1"}, b"")


def task(index: int = 0, state: str = "succeeded", **result: Any) -> dict[str, Any]:
    return {"index": index, "state": state, "node": "n1", **result}


def prepare(agent: Any, state: str, *tasks: dict[str, Any]) -> None:
    agent.prepare("POST", "/v1/jobs", {"id": 1, "home": "n1"})
    agent.prepare("GET", "/v1/jobs/1", {"id": 1, "name": "true", "state": state, "tasks": list(tasks)})
    agent.prepare("GET", "/v1/jobs/1/logs", SILENCE)


@pytest.mark.parametrize(
    ("state", "tasks", "code"),
    [
        ("succeeded", [task()], 0),
        ("failed", [task(state="failed", exit_code=7)], 7),
        ("failed", [task(0, "failed", exit_code=3), task(1), task(2, "failed", exit_code=5)], 5),
        ("failed", [task(state="failed", signal=9)], 137),
        ("failed", [task(state="failed", exit_code=-1)], 1),
        ("cancelled", [task(state="cancelled")], 1),
        ("lost", [task(state="lost")], 1),
    ],
)
def test_the_exit_code_is_that_of_the_tasks(
    fofoca: Callable[..., Any], agent: Any, state: str, tasks: list[dict[str, Any]], code: int
) -> None:
    prepare(agent, state, *tasks)
    assert fofoca("run", "--image", "x", "--", "true").code == code


def test_both_outputs_come_here_each_to_its_own(fofoca: Callable[..., Any], agent: Any) -> None:
    prepare(agent, "succeeded", task())
    written = {"stdout": b"out\n", "stderr": b"err\n"}
    answer = agent.get

    def get(path: str, **query: Any) -> Answer:
        if path.endswith("/logs"):
            return Answer(200, {"x-next-offset": "4", "x-ended": "1"}, written[query["stream"]])
        found: Answer = answer(path, **query)
        return found

    agent.get = get
    ran = fofoca("run", "--image", "x", "--", "true")
    assert (ran.code, ran.out, ran.err) == (0, "out\n", "err\n")


def test_how_it_ended_is_said_unless_quiet(fofoca: Callable[..., Any], agent: Any) -> None:
    prepare(agent, "failed", task(state="failed", exit_code=7, reason="exit code 7"))
    assert (
        fofoca("run", "--image", "x", "--", "false").err == "fofoca: job 1 (true) failed: task 0 on n1: exit code 7\n"
    )
    assert fofoca("run", "-q", "--image", "x", "--", "false").err == ""


def test_an_interrupt_cancels_the_job(fofoca: Callable[..., Any], agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(agent, "cancelled", task(state="cancelled"))
    agent.prepare("DELETE", "/v1/jobs/1", {})

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("node.cli.commands.run._wait", interrupted)
    assert fofoca("run", "--image", "x", "--", "sleep", "9").code == 130
    assert ("DELETE", "/v1/jobs/1", None) in agent.asked


def test_nothing_is_submitted_without_a_command(fofoca: Callable[..., Any], agent: Any) -> None:
    assert fofoca("run").code == 2
    assert agent.asked == []
