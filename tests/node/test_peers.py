"""Calls between nodes: sealed, bound, counted, bounded; what goes wrong is named."""

from __future__ import annotations

import base64

import msgspec
import pytest
import trio

from cluster import KeyRing
from node.errors import AgentUnreachable, Busy, NotFound, PeerRefused, PeerUnreachable
from node.peers import (
    BODY_BYTES_MAX,
    CALLS_PER_METHOD_MAX,
    MEMBERS_MAX,
    STRANGERS_BODY_BYTES_MAX,
    Peers,
    PlainBodies,
    body_sealer,
)

KEY = bytes(range(32))


class Wire:
    """Carries bodies between fake addresses; a test may tamper with them."""

    def __init__(self) -> None:
        self.nodes: dict[str, Peers] = {}
        self.sent: list[bytes] = []
        self.answers: list[bytes] = []
        self.tamper = lambda answer: answer

    async def post(
        self, address: str, body: bytes, timeout_s: float, answer_bytes_max: int, ticket: str | None = None
    ) -> tuple[int, bytes]:
        await trio.lowlevel.checkpoint()
        if address not in self.nodes:
            raise AgentUnreachable(address, "connection refused")
        if len(body) > self.nodes[address].body_bytes_max(ticket):
            return 413, b""
        self.sent.append(body)
        status, answer = await self.nodes[address].handle(body)
        self.answers.append(answer)
        return status, self.tamper(answer)

    async def close(self) -> None:
        pass


def pair(key: bytes | None = KEY, other_key: bytes | None = KEY) -> tuple[Peers, Peers, Wire]:
    wire = Wire()
    first = Peers("n1", body_sealer("n1", KeyRing(key, label="c") if key else None), wire)
    second = Peers("n2", body_sealer("n2", KeyRing(other_key, label="c") if other_key else None), wire)
    wire.nodes = {"a:1": first, "b:2": second}
    for peers in (first, second):
        peers.set_member("n1", 1, "a:1")
        peers.set_member("n2", 2, "b:2")
    return first, second, wire


async def echo(sender: str, payload: bytes) -> bytes:
    await trio.lowlevel.checkpoint()
    return sender.encode() + b":" + payload


@pytest.mark.parametrize("key", [KEY, None])
async def test_a_call_comes_back_and_names_its_sender(key):
    first, second, _ = pair(key, key)
    second.register("echo", echo)
    assert await first.call("n2", "echo", b"hi", 5) == b"n1:hi"


async def test_a_node_calls_itself_without_the_network():
    first, _, wire = pair()
    first.register("echo", echo)
    assert await first.call("n1", "echo", b"hi", 5) == b"n1:hi"
    assert wire.sent == []


async def test_nothing_readable_is_on_the_wire():
    first, second, wire = pair()
    second.register("echo", echo)
    await first.call("n2", "echo", b"a secret payload", 5)
    for body in (*wire.sent, *wire.answers):
        assert b"secret" not in body
        assert b"echo" not in body


async def test_a_body_is_opened_once():
    first, second, wire = pair()
    second.register("echo", echo)
    await first.call("n2", "echo", b"hi", 5)
    assert await second.handle(wire.sent[0]) == (401, b"")
    assert second.refused == {"replayed": 1}


async def test_every_changed_bit_is_refused():
    first, second, wire = pair()
    second.register("echo", echo)
    wire.nodes["b:2"] = first  # so that the body is captured unopened
    with pytest.raises(PeerRefused):
        await first.call("n2", "echo", b"hi", 5)
    body = wire.sent[0]
    for position in range(len(body)):
        changed = body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]
        assert await second.handle(changed) == (401, b"")
    assert second.refused.total() == len(body)
    assert (await second.handle(body))[0] == 200


async def test_another_clusters_call_is_refused_on_both_sides():
    first, second, _ = pair(KEY, bytes(32))
    second.register("echo", echo)
    with pytest.raises(PeerRefused, match="401"):
        await first.call("n2", "echo", b"hi", 5)


async def test_an_answer_of_another_call_is_refused():
    first, second, wire = pair()
    second.register("echo", echo)
    await first.call("n2", "echo", b"one", 5)
    earlier = wire.answers[0]
    wire.tamper = lambda answer: earlier
    with pytest.raises(PeerRefused, match="can't be opened"):
        await first.call("n2", "echo", b"two", 5)


async def test_a_node_at_a_wrong_address_can_not_answer_for_another():
    first, second, wire = pair()
    second.register("echo", echo)
    third = Peers("n3", body_sealer("n3", KeyRing(KEY, label="c")), wire)
    third.register("echo", echo)
    wire.nodes["b:2"] = third
    with pytest.raises(PeerRefused):
        await first.call("n2", "echo", b"hi", 5)
    assert third.refused == {"misdirected": 1}


async def test_what_is_not_there_is_named():
    first, _, wire = pair()
    with pytest.raises(PeerRefused, match="node n2: there is no method 'dance'"):
        await first.call("n2", "dance", b"", 5)
    with pytest.raises(PeerUnreachable, match="node n9: its address is not known here"):
        await first.call("n9", "echo", b"", 5)
    del wire.nodes["b:2"]
    with pytest.raises(PeerUnreachable, match=r"node n2: .*connection refused"):
        await first.call("n2", "echo", b"", 5)


async def test_a_refusal_travels_and_a_bug_is_told_in_brief(caplog):
    first, second, _ = pair()

    async def refuse(sender: str, payload: bytes) -> bytes:
        raise NotFound("no such thing here")

    async def fail(sender: str, payload: bytes) -> bytes:
        raise RuntimeError("secret")

    second.register("refuse", refuse)
    second.register("fail", fail)
    with pytest.raises(PeerRefused, match="node n2: no such thing here"):
        await first.call("n2", "refuse", b"", 5)
    with pytest.raises(PeerRefused, match="node n2: an error in fail") as refused:
        await first.call("n2", "fail", b"", 5)
    assert "secret" not in str(refused.value)
    assert "secret" in caplog.text


async def test_a_call_has_an_end(autojump_clock):
    first, second, _ = pair()

    async def hang(sender: str, payload: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    second.register("hang", hang)
    start = trio.current_time()
    # Whoever's clock ends first, ours or the other node's.
    with pytest.raises((PeerUnreachable, PeerRefused), match="no answer"):
        await first.call("n2", "hang", b"", 3)
    assert trio.current_time() - start == pytest.approx(3)


async def test_calls_of_one_method_have_a_bound_and_leave_the_others_room(autojump_clock, nursery):
    first, second, _ = pair()
    release = trio.Event()

    async def slow(sender: str, payload: bytes) -> bytes:
        await release.wait()
        return b""

    second.register("slow", slow)
    second.register("echo", echo)
    for _ in range(CALLS_PER_METHOD_MAX):
        nursery.start_soon(first.call, "n2", "slow", b"", 60)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(Busy):
        await first.call("n2", "slow", b"", 5)
    assert await first.call("n2", "echo", b"", 5) == b"n1:"
    release.set()
    await trio.testing.wait_all_tasks_blocked()
    assert await first.call("n2", "slow", b"", 5) == b""


@pytest.mark.parametrize(
    "body", [b"", b"x", b"\x00" * 50, b"\xe1" * 50, b"\xf1" * 50, msgspec.msgpack.encode(["n1", b"x"])]
)
@pytest.mark.parametrize("key", [KEY, None])
async def test_nonsense_is_refused_and_counted(body, key):
    first, _, _ = pair(key, key)
    assert await first.handle(body) == (401, b"")
    assert first.refused.total() == 1


async def test_a_plain_call_of_nonsense_is_refused():
    first, _, _ = pair(None, None)
    assert (await first.handle(PlainBodies("n2").seal(b"\xc0")))[0] == 401


async def test_only_members_may_send_large_bodies():
    first, second, wire = pair()
    second.register("echo", echo)
    large = b"x" * (STRANGERS_BODY_BYTES_MAX + 1)
    assert await first.call("n2", "echo", large, 5) == b"n1:" + large
    stranger = Peers("n1", body_sealer("n1", KeyRing(bytes(32), label="c")), wire)
    stranger.set_member("n2", 2, "b:2")
    with pytest.raises(PeerRefused, match="413"):
        await stranger.call("n2", "echo", large, 5)


def test_a_ticket_opens_once_and_nonsense_never():
    first, second, _ = pair()
    ticket = first._new_ticket()
    sealed = base64.b64encode(body_sealer("n1", KeyRing(KEY, label="c")).seal(b"other")).decode()
    for nonsense in (None, "", "x", "!", "ä", ticket[:-4], sealed):
        assert second.body_bytes_max(nonsense) == STRANGERS_BODY_BYTES_MAX
    assert second.body_bytes_max(ticket) == BODY_BYTES_MAX
    assert second.body_bytes_max(ticket) == STRANGERS_BODY_BYTES_MAX


def test_the_address_book_follows_the_members():
    first, _, _ = pair()
    assert (first.name_of(2), first.address_of("n2")) == ("n2", "b:2")
    first.set_member("n2", 5, "b:3")
    assert (first.name_of(2), first.name_of(5), first.address_of("n2")) == (None, "n2", "b:3")
    first.set_member("n3", 5, "c:1")
    first.remove_member("n2")
    assert (first.name_of(5), first.address_of("n2")) == ("n3", None)
    first.remove_member("n2")
    first.set_member("n4", None, "d:1")
    assert first.address_of("n4") == "d:1"


def test_the_address_book_has_a_bound():
    first, _, _ = pair()
    for number in range(MEMBERS_MAX - 2):
        first.set_member(f"m{number}", None, "x:1")
    with pytest.raises(Busy):
        first.set_member("one-more", None, "x:1")
    first.set_member("n2", 7, "x:1")
