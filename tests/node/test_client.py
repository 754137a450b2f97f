"""The HTTP client: one module has it, nobody pays for it without using it, and its errors are typed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from node import client as client_module
from node.client import ApiClient, PeerClient
from node.errors import AgentUnreachable, ApiProblem, InvalidValue

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


@pytest.mark.parametrize("url", ["", "n1:8642", "ftp://n1", "unix://relative", "unix:", "http://", "http://h:x"])
def test_an_url_that_is_none_is_refused(url):
    with pytest.raises(InvalidValue, match="expected http://host:port or unix:///path"):
        ApiClient(url)


async def test_a_problem_document_becomes_a_typed_error(answering):
    document = {"type": "urn:fofoca:problem:invalid-value", "detail": "cpu: no", "field": "cpu_milli"}
    answering(lambda _: httpx.Response(400, json=document))
    async with ApiClient("http://n1:8642", "token") as client:
        with pytest.raises(ApiProblem, match="cpu: no") as refused:
            await client.submit({})
    assert (refused.value.status, refused.value.type) == (400, document["type"])
    assert refused.value.document["field"] == "cpu_milli"


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b"\xff"])
async def test_an_error_without_a_document_is_one_too(answering, content):
    answering(lambda _: httpx.Response(502, content=content))
    async with ApiClient("http://n1:8642") as client:
        with pytest.raises(ApiProblem, match="502"):
            await client.version()


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b"3"])
async def test_what_is_no_agent_is_said_to_be_none(answering, content):
    answering(lambda _: httpx.Response(200, content=content))
    async with ApiClient("http://n1:8642") as client:
        with pytest.raises(AgentUnreachable, match="no fofoca agent"):
            await client.version()


async def test_the_token_goes_along_and_names_are_quoted(answering):
    answers = answering(lambda _: httpx.Response(200, json={"id": 1, "state": "cancelled"}))
    async with ApiClient("http://n1:8642", "tok") as client:
        await client.delete_image("a/b:1?x#y")
        await client.cancel(7)
    assert [request.headers["authorization"] for request in answers.requests] == ["Bearer tok"] * 2
    assert answers.requests[0].url.raw_path == b"/v1/images/a%2Fb:1%3Fx%23y"


async def test_waiting_asks_again_until_the_job_is_final(answering, autojump_clock):
    states = iter(["pending", "running", "succeeded"])
    answers = answering(lambda _: httpx.Response(200, json={"state": next(states)}))
    async with ApiClient("http://n1:8642") as client:
        assert (await client.wait(7))["state"] == "succeeded"
    assert len(answers.requests) == 3
    assert answers.requests[0].url.params["wait_s"] == "30"


async def test_waiting_ends_in_time(answering, autojump_clock):
    answering(lambda _: httpx.Response(200, json={"state": "running"}))
    async with ApiClient("http://n1:8642") as client:
        assert (await client.wait(7, timeout_s=0))["state"] == "running"


async def test_a_followed_log_is_read_to_its_end(answering):
    parts = [(b"one", 3, 0), (b"", 3, 0), (b"two", 6, 1)]

    def answer(request: httpx.Request) -> httpx.Response:
        data, offset, ended = parts.pop(0)
        return httpx.Response(200, content=data, headers={"x-next-offset": str(offset), "x-ended": str(ended)})

    answers = answering(answer)
    async with ApiClient("http://n1:8642") as client:
        assert [part async for part in client.follow_log(7)] == [b"one", b"two"]
    assert [request.url.params["offset"] for request in answers.requests] == ["0", "3", "3"]


async def test_the_homes_that_did_not_answer_are_told(answering):
    answering(lambda _: httpx.Response(200, json=[{"id": 1}], headers={"x-fofoca-missing": "n2,n3"}))
    async with ApiClient("http://n1:8642") as client:
        listed = await client.jobs()
    assert (listed.jobs, listed.missing) == ([{"id": 1}], ["n2", "n3"])


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
    async with ApiClient("http://n1:8642") as client:
        with pytest.raises(AgentUnreachable, match="reset"):
            await client.version()
    with pytest.raises(AgentUnreachable):
        await PeerClient().post("n1:8642", b"", 5, 10)
