"""Messages between machines: in order, together, bounded; what can't be delivered is dropped."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing

from node.errors import PeerRefused
from node.outbox import BATCH_BYTES_MAX, METHOD, REPLY_WAIT_S, WAITING_BYTES_MAX, WAITING_MAX, Outbox
from tests.node.shell import Wire

Heard = list[tuple[str, bytes]]


async def nothing_behind() -> None:
    await trio.lowlevel.checkpoint()


def pair(wire: Wire, nursery: trio.Nursery) -> tuple[Outbox, Heard]:
    """An outbox of n1, and what n2 hears."""
    heard: Heard = []
    first, second = wire.join("n1"), wire.join("n2")
    Outbox(second, lambda sender, *messages: heard.extend((sender, each) for each in messages), nothing_behind, nursery)
    return Outbox(
        first, lambda sender, *messages: heard.extend((sender, each) for each in messages), nothing_behind, nursery
    ), heard


async def test_messages_arrive_in_order_and_travel_together(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    wire = Wire(delay_s=1.0)
    outbox, heard = pair(wire, nursery)
    for index in range(100):
        outbox.send("n2", b"%d" % index)
    await trio.sleep(10)
    for index in range(100, 103):
        outbox.send("n2", b"%d" % index)
    await trio.sleep(10)
    assert heard == [("n1", b"%d" % index) for index in range(103)]
    assert wire.posts <= 4


async def test_a_message_to_oneself_needs_no_wire(nursery: trio.Nursery) -> None:
    wire = Wire()
    outbox, heard = pair(wire, nursery)
    outbox.send("n1", b"me")
    assert heard == [("n1", b"me")]
    assert wire.posts == 0


async def test_messages_to_a_node_that_does_not_answer_are_dropped_and_later_ones_arrive(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    wire = Wire(delay_s=0.1)
    outbox, heard = pair(wire, nursery)
    wire.cut.add("n2")
    outbox.send("n2", b"lost")
    outbox.send("nobody", b"lost")
    await trio.sleep(10)
    assert outbox._waiting == {}
    wire.cut.clear()
    outbox.send("n2", b"found")
    await trio.sleep(10)
    assert heard == [("n1", b"found")]


@pytest.mark.parametrize("size_bytes", [1, 1 << 20])
async def test_what_waits_for_one_node_is_bounded_by_count_and_bytes(
    size_bytes: int, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    wire = Wire(delay_s=3.0)
    outbox, heard = pair(wire, nursery)
    message = b"x" * size_bytes
    outbox.send("n2", message)
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(min(WAITING_MAX * 2, 200 if size_bytes > 1 else WAITING_MAX * 2)):
        outbox.send("n2", message)
    bag = outbox._waiting["n2"]
    assert len(bag.messages) <= WAITING_MAX
    assert bag.size_bytes == sum(map(len, bag.messages)) <= WAITING_BYTES_MAX
    outbox.send("n2", b"the newest")
    await trio.sleep(100)
    assert heard[-1] == ("n1", b"the newest")


async def test_one_body_stays_within_its_bound(nursery: trio.Nursery, autojump_clock: trio.abc.Clock) -> None:
    wire = Wire(delay_s=0.1)
    outbox, heard = pair(wire, nursery)
    for _ in range(3):
        outbox.send("n2", b"y" * (BATCH_BYTES_MAX // 2 + 1))
    await trio.sleep(10)
    assert len(heard) == wire.posts == 3


async def test_what_is_no_batch_is_refused_and_harms_nobody(nursery: trio.Nursery) -> None:
    wire = Wire()
    _, heard = pair(wire, nursery)
    with pytest.raises(PeerRefused, match="expected a list of messages"):
        await wire.nodes["n1"].call("n2", METHOD, b"\xc1", 1.0)
    await wire.nodes["n1"].call("n2", METHOD, msgspec.msgpack.encode([b"sound"]), 1.0)
    assert heard == [("n1", b"sound")]


class Replying:
    """A machine that says each message back, as soon as its disk has it: after `commit_s`."""

    def __init__(self, nursery: trio.Nursery, commit_s: float) -> None:
        self.nursery, self.commit_s = nursery, commit_s
        self.outbox: Outbox | None = None

    def received(self, sender: str, *messages: bytes) -> trio.Event:
        done = trio.Event()
        self.nursery.start_soon(self._reply, sender, messages, done)
        return done

    async def _reply(self, sender: str, messages: tuple[bytes, ...], done: trio.Event) -> None:
        await trio.sleep(self.commit_s)
        assert self.outbox is not None
        for message in messages:
            self.outbox.send(sender, b"re: " + message)
        done.set()


def replying_pair(wire: Wire, nursery: trio.Nursery, commit_s: float) -> tuple[Outbox, Replying, list[bytes]]:
    """An outbox of n1, the machine of n2, and what n1 hears."""
    heard: list[bytes] = []
    first, second = wire.join("n1"), wire.join("n2")
    machine = Replying(nursery, commit_s)
    machine.outbox = Outbox(second, machine.received, nothing_behind, nursery)
    return Outbox(first, lambda _, *messages: heard.extend(messages), nothing_behind, nursery), machine, heard


async def test_a_reply_travels_with_the_answer(nursery: trio.Nursery, autojump_clock: trio.abc.Clock) -> None:
    wire = Wire(delay_s=0.01)
    outbox, machine, heard = replying_pair(wire, nursery, REPLY_WAIT_S / 2)
    outbox.send("n2", b"a")
    await trio.sleep(10)
    assert (heard, wire.posts) == ([b"re: a"], 1)
    assert machine.outbox is not None
    assert (outbox._waiting, machine.outbox._waiting) == ({}, {})


async def test_a_reply_that_the_disk_holds_up_travels_by_itself_and_delays_no_answer(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    wire = Wire(delay_s=0.01)
    outbox, _, heard = replying_pair(wire, nursery, REPLY_WAIT_S * 20)
    outbox.send("n2", b"a")
    await trio.sleep(REPLY_WAIT_S * 2)
    assert outbox._waiting == {}, "it has its answer"
    await trio.sleep(10)
    assert (heard, wire.posts) == ([b"re: a"], 2)


async def test_a_reply_waits_behind_what_is_on_its_way_already(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    wire = Wire(delay_s=1.0)
    outbox, machine, heard = replying_pair(wire, nursery, 0.0)
    assert machine.outbox is not None
    outbox.send("n2", b"a")
    await trio.sleep(0.95)
    machine.outbox.send("n1", b"first")
    await trio.sleep(20)
    assert heard == [b"first", b"re: a"]


async def test_an_answer_that_is_no_list_of_messages_is_dropped(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    wire = Wire()
    first, second = wire.join("n1"), wire.join("n2")

    async def nonsense(sender: str, payload: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"\xff nonsense"

    second.register(METHOD, nonsense)
    heard: list[bytes] = []
    outbox = Outbox(first, lambda _, *messages: heard.extend(messages), nothing_behind, nursery)
    outbox.send("n2", b"a")
    await trio.sleep(1)
    assert (heard, outbox._waiting) == ([], {})
