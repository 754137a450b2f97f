"""Connections between nodes: kept while they are good, given up when they are not, and bounded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from node import client as client_module
from node.client import KEEP_ALIVE_S, PeerClient
from node.errors import AgentUnreachable
from node.plain_http import HEAD_BYTES_MAX, Malformed, Reader

ADDRESS = "n1:8642"


class Line:
    """A connection to a fake node, which answers each request with a function."""

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.open = True
        self.socket = self
        self._waiting = b""

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.requests.append(data)
        answer = self.answer(data)
        if answer is None:
            await trio.sleep_forever()
        self._waiting += answer

    async def receive_some(self, _: int) -> bytes:
        await trio.lowlevel.checkpoint()
        piece, self._waiting = self._waiting[:7], self._waiting[7:]
        return piece

    def close(self) -> None:
        self.open = False


class Node:
    """Hands out lines to itself, and keeps them."""

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self.answer = answer
        self.lines: list[Line] = []

    async def connect(self, address: str):
        await trio.lowlevel.checkpoint()
        self.lines.append(Line(self.answer))
        return client_module._Connection(self.lines[-1])


def ok(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


@pytest.fixture
def answering(monkeypatch):
    def prepare(answer) -> Node:
        node = Node(answer)
        monkeypatch.setattr(client_module, "_connect", node.connect)
        monkeypatch.setattr(client_module._Connection, "quiet", lambda self: self._stream.open)
        return node

    return prepare


async def test_one_connection_carries_many_calls_one_after_another(answering):
    node = answering(lambda request: ok(request[-2:]))
    peers = PeerClient()
    for body in (b"aa", b"bb", b"cc"):
        assert await peers.post(ADDRESS, body, 5, 100) == (200, body)
    assert len(node.lines) == 1
    assert (
        node.lines[0].requests[0] == b"POST /internal/v1/rpc HTTP/1.1\r\nhost: n1:8642\r\ncontent-length: 2\r\n\r\naa"
    )
    await peers.close()
    assert not node.lines[0].open


async def test_a_ticket_goes_along(answering):
    node = answering(lambda _: ok(b""))
    await PeerClient().post(ADDRESS, b"", 5, 10, ticket="let me in")
    assert b"\r\nx-fofoca-ticket: let me in\r\n" in node.lines[0].requests[0]


async def test_a_connection_that_the_other_side_ended_is_not_used_again(answering):
    node = answering(lambda _: ok(b""))
    peers = PeerClient()
    await peers.post(ADDRESS, b"", 5, 10)
    node.lines[0].close()
    await peers.post(ADDRESS, b"", 5, 10)
    assert len(node.lines) == 2


async def test_a_connection_nobody_needed_for_long_is_closed(answering, autojump_clock):
    node = answering(lambda _: ok(b""))
    peers = PeerClient()
    await peers.post(ADDRESS, b"", 5, 10)
    await trio.sleep(KEEP_ALIVE_S + 1)
    await peers.post("n2:8642", b"", 5, 10)
    assert [line.open for line in node.lines] == [False, True]


async def test_an_answer_that_comes_too_late_is_nobodys(answering, autojump_clock):
    node = answering(lambda _: None)
    peers = PeerClient()
    with pytest.raises(AgentUnreachable, match="in time"):
        await peers.post(ADDRESS, b"", 2, 10)
    assert not node.lines[0].open
    node.answer = lambda _: ok(b"fresh")
    assert await peers.post(ADDRESS, b"", 2, 10) == (200, b"fresh")


async def test_no_more_connections_than_the_bound_are_in_use(answering, autojump_clock):
    node = answering(lambda _: None)
    peers = PeerClient(connections_max=3)

    async def call() -> None:
        with pytest.raises(AgentUnreachable):
            await peers.post(ADDRESS, b"", 2, 10)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(call)
        await trio.sleep(1)
        assert len(node.lines) == 3


async def test_a_refused_call_ends_its_connection(answering):
    node = answering(lambda _: ok(b"no", "401 Unauthorized"))
    assert await PeerClient().post(ADDRESS, b"", 5, 10) == (401, b"no")
    assert not node.lines[0].open


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (ok(b"x" * 11), "passes 10 bytes"),
        (b"", "without an answer"),
        (b"HTTP/1.1 200", "middle of a head"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc", "middle of a body"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "does not declare its length"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "does not declare its length"),
        (b"SSH-2.0\r\ncontent-length: 1\r\n\r\nx", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\na: 1\r\nA: 2\r\n\r\n", "repeated"),
    ],
)
async def test_what_is_no_answer_is_told_as_an_unreachable_node(answering, answer, why):
    node = answering(lambda _: answer)
    with pytest.raises(AgentUnreachable, match=why):
        await PeerClient().post(ADDRESS, b"", 5, 10)
    assert not node.lines[0].open


@pytest.mark.parametrize("address", ["nowhere", "n1:eighty", "[::1]:x"])
async def test_an_address_that_is_none_is_unreachable(address):
    with pytest.raises(AgentUnreachable):
        await PeerClient().post(address, b"", 5, 10)


async def test_a_head_has_a_bound():
    line = Line(lambda _: b"")
    line._waiting = b"x" * (HEAD_BYTES_MAX + 100)
    with pytest.raises(Malformed, match="passes"):
        await Reader(line).head()


async def test_requests_that_arrive_together_are_read_one_by_one():
    line = Line(lambda _: b"")
    line._waiting = ok(b"one") + ok(b"two")
    reader = Reader(line, b"HTTP/1.1 100 Go on\r\n\r\n")
    assert (await reader.head()).line == "HTTP/1.1 100 Go on"
    for body in (b"one", b"two"):
        head = await reader.head()
        assert await reader.body(head.length()) == body
    assert await reader.head() is None
