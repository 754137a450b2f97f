"""Messages between machines: in order, together, bounded; what can't be delivered is dropped."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing

from node.errors import PeerRefused
from node.outbox import BATCH_BYTES_MAX, METHOD, WAITING_BYTES_MAX, WAITING_MAX, Outbox
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
