"""What tasks wrote, byte by byte."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from node.caller import Answer


def piece(data: bytes, end: int, ended: bool) -> Answer:
    return Answer(200, {"x-next-offset": str(end), "x-ended": "1" if ended else "0"}, data)


@pytest.fixture
def one_task(agent: Any) -> Any:
    agent.prepare("GET", "/v1/jobs/1", {"tasks": [{"index": 0}]})
    return agent


def test_bytes_come_through_as_they_are(fofoca: Callable[..., Any], one_task: Any) -> None:
    one_task.prepare("GET", "/v1/jobs/1/logs", piece(b"a\nb", 3, False), piece(b"c", 4, True))
    assert fofoca("logs", "1", "--stdout").out == "a\nbc"
    assert [given["offset"] for _, path, given in one_task.asked if path.endswith("logs")] == [0, 3]


def test_output_comes_before_errors(fofoca: Callable[..., Any], one_task: Any) -> None:
    one_task.prepare("GET", "/v1/jobs/1/logs", piece(b"out\n", 4, True), piece(b"err\n", 4, True))
    assert fofoca("logs", "1").out == "out\nerr\n"
    assert [given["stream"] for _, path, given in one_task.asked if path.endswith("logs")] == ["stdout", "stderr"]


def test_lines_of_several_tasks_are_told_apart(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("GET", "/v1/jobs/1", {"tasks": [{"index": 3}, {"index": 4}]})
    answers = [piece(b"one\ntw", 6, False), piece(b"o", 7, True), piece(b"", 0, True), piece(b"x\n", 2, True)]
    agent.prepare("GET", "/v1/jobs/1/logs", *answers, piece(b"", 0, True))
    assert fofoca("logs", "1").out == "[3] one\n[3] two\n[4] x\n"


def test_following_ends_with_the_task(fofoca: Callable[..., Any], one_task: Any) -> None:
    one_task.prepare("GET", "/v1/jobs/1/logs", piece(b"a", 1, False), piece(b"", 1, False), piece(b"b", 2, True))
    assert fofoca("logs", "-f", "1").out == "ab"


def test_one_task_of_an_array_is_asked_for_directly(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("GET", "/v1/jobs/1/logs", piece(b"x", 1, True))
    assert fofoca("logs", "1", "--task", "3", "--stderr").out == "x"
    assert agent.asked[0][2] == {"task": 3, "stream": "stderr", "offset": 0, "limit": 1 << 20}
