"""The HTTP client: one module has it, nobody pays for it without using it, and its errors are typed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from node import client as client_module
from node.client import PeerClient
from node.errors import AgentUnreachable

ROOT = Path(__file__).parents[2]


class Answers:
    """Gives every new connection pool a transport that answers from a function, and keeps the requests."""

    def __init__(self, answer) -> None:
        self.requests: list[httpx.Request] = []
        self.answer = answer

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer(request)


@pytest.fixture
def answering(monkeypatch):
    def prepare(answer) -> Answers:
        answers = Answers(answer)
        monkeypatch.setattr(
            client_module,
            "_new_client",
            lambda *_args, **_options: httpx.AsyncClient(transport=httpx.MockTransport(answers)),
        )
        return answers

    return prepare


def test_only_the_client_module_imports_httpx():
    sources = [path for folder in ("node", "scheduler", "cluster", "sim") for path in (ROOT / folder).rglob("*.py")]
    users = [path.name for path in sources if re.search(r"^\s*(import|from) httpx", path.read_text(), re.MULTILINE)]
    assert set(users) == {"client.py"}


def test_importing_the_client_does_not_import_httpx():
    code = "import node.client, sys; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


async def test_a_peers_answer_has_a_bound(answering):
    async def pieces():
        for size in (500, 500, 1):
            yield b"x" * size

    answering(lambda _: httpx.Response(200, content=pieces()))
    peers = PeerClient()
    assert await peers.post("n1:8642", b"", 5, 1001) == (200, b"x" * 1001)
    with pytest.raises(AgentUnreachable, match="1,000 bytes"):
        await peers.post("n1:8642", b"", 5, 1000)
    await peers.close()


async def test_a_connection_that_breaks_is_no_answer(answering):
    def broken(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("reset")

    answering(broken)
    with pytest.raises(AgentUnreachable, match="reset"):
        await PeerClient().post("n1:8642", b"", 5, 10)
