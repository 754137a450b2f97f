"""A command line whose agent is a table of prepared answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from node.caller import Answer
from node.cli import find
from node.cli.program import run
from node.errors import ApiProblem


@dataclass
class PreparedAgent:
    """Answers requests from a queue for each (method, path); the last answer is given again and again."""

    answers: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)

    def prepare(self, method: str, path: str, *answers: Any) -> None:
        self.answers[(method, path)] = list(answers)

    def get(self, path: str, *, read_timeout_s: float = 0, **query: Any) -> Answer:
        return self._answer("GET", path, {name: value for name, value in query.items() if value is not None})

    def post(self, path: str, body: Any) -> Answer:
        return self._answer("POST", path, body)

    def put(self, path: str, body: Any) -> Answer:
        return self._answer("PUT", path, body)

    def delete(self, path: str) -> Answer:
        return self._answer("DELETE", path, None)

    def put_stream(self, path: str, chunks: Iterable[bytes], read_timeout_s: float) -> Answer:
        return self._answer("PUT", path, b"".join(chunks))

    def get_stream(self, path: str, read_timeout_s: float) -> Iterator[bytes]:
        yield self._answer("GET", path, None).body

    def post_stream(self, path: str, body: Any, read_timeout_s: float) -> Iterator[bytes]:
        whole = self._answer("POST", path, body).body
        for start in range(0, len(whole), 7):
            yield whole[start : start + 7]

    def _answer(self, method: str, path: str, given: Any) -> Answer:
        self.asked.append((method, path, given))
        queue = self.answers.get((method, path))
        if queue is None:
            raise ApiProblem(404, {"title": "not found", "detail": f"no such thing: {path}"})
        answer = queue.pop(0) if len(queue) > 1 else queue[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Answer):
            return answer
        return Answer(200, {}, json.dumps(answer).encode())


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> PreparedAgent:
    prepared = PreparedAgent()
    monkeypatch.setattr(find, "agents", lambda node_api=None: prepared)
    return prepared


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def fofoca(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.delenv("FOFOCA_DEBUG", raising=False)

    def call(*words: str) -> Result:
        with pytest.raises(SystemExit) as ended:
            run(words)
        captured = capfdbinary.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, captured.out.decode(), captured.err.decode())

    return call
