"""The codec: round trips, bounds, and nothing but BadPacket for anything else."""

import contextlib
import time

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import BadPacket, wire
from cluster.config import ENTRY_BYTES_MAX, STATE_KEYS_MAX

MESSAGES = (
    wire.Ping(1, 2, 3),
    wire.Ack(1),
    wire.Nack(1, True),
    wire.PingRequest(1, "n", "10.0.0.1", 7946),
    wire.Alive("n", "10.0.0.1", 7946, 3, 4, b"12345678", 1, 1),
    wire.Suspect("n", 3, 4, "m", False),
    wire.Down("n", 3, 4, "m"),
    wire.Failed("n", 3, 4, "m"),
    wire.Left("n", 3, 4),
    wire.Delta("n", 3, (wire.Entry("k", 1, b"v"), wire.Entry("gone", 2, None))),
)
ALIVE = MESSAGES[4]
FRAMES = (
    wire.Compare(ALIVE, (1, 2)),  # type: ignore[arg-type]
    wire.Differences(ALIVE, 2, (0, 1), ((1, 2),)),  # type: ignore[arg-type]
    wire.Exchange((wire.Record(ALIVE, wire.Status.FAILED, 9, ()),), (1,)),  # type: ignore[arg-type]
    wire.Records((), False),
)
json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=20,
)


def test_every_message_survives_the_wire() -> None:
    assert wire.decode_datagram(wire.join([wire.encode(message) for message in MESSAGES])) == list(MESSAGES)
    for frame in FRAMES:
        assert wire.decode_frame(wire.encode(frame)) == frame


@pytest.mark.parametrize("count", [0, 1, 15, 16, 200])
def test_joined_messages_are_one_array(count: int) -> None:
    assert len(wire.decode_datagram(wire.join([wire.encode(wire.Ack(1))] * count))) == count


@pytest.mark.parametrize(
    "message",
    [
        ["not a kind"],
        [99, 1],
        [1, -1, 2, 3],
        [1, 1, 2],
        [1, 1, 2, 3, 4],
        [1, "1", 2, 3],
        [1, True, 2, 3],
        [2, 1 << 48],
        [5, "n" * 65, "h", 1, 1, 1, b"12345678", 1, 1],
        [5, "", "h", 1, 1, 1, b"12345678", 1, 1],
        [5, "n", "h", 0, 1, 1, b"12345678", 1, 1],
        [5, "n", "h", 1, 1, 1, b"1234567", 1, 1],
        [10, "n", 1, [["k", 1, b"x" * (ENTRY_BYTES_MAX + 1)]]],
        [10, "n", 1, [["k", 1, b""]] * (STATE_KEYS_MAX + 1)],
        [10, "n", 1, [["k" * 33, 1, b""]]],
        {"a": 1},
        5,
    ],
)
def test_a_message_out_of_its_types_or_bounds_is_refused_as_a_whole(message: object) -> None:
    good = msgpack.unpackb(wire.encode(wire.Ack(1)))
    with pytest.raises(BadPacket):
        wire.decode_datagram(msgpack.packb([good, message]))


def test_too_many_messages_are_refused() -> None:
    with pytest.raises(BadPacket):
        wire.decode_datagram(msgpack.packb([[2, 1]] * (wire.MESSAGES_MAX + 1)))


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1k", b"\xdd\x00\x00\x00\x01", b"\x92\x02"])
def test_deep_nesting_is_refused_quickly(opening: bytes) -> None:
    started = time.perf_counter()
    for decode in (wire.decode_datagram, wire.decode_frame):
        with pytest.raises(BadPacket):
            decode(opening * 300_000)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    "head", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"]
)
def test_a_promised_length_allocates_nothing(head: bytes) -> None:
    for data in (head, b"\x91" + head, b"\x91\x92\x02" + head):
        with pytest.raises(BadPacket):
            wire.decode_datagram(data)


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_noise_raises_the_declared_error_only(noise: bytes) -> None:
    for decode in (wire.decode_datagram, wire.decode_frame):
        with contextlib.suppress(BadPacket):
            decode(noise)


@given(st.lists(st.lists(json_like, max_size=9), max_size=5))
@settings(max_examples=300)
def test_any_structure_raises_the_declared_error_or_comes_back_equal(content: list[object]) -> None:
    data = msgpack.packb(content)
    try:
        messages = wire.decode_datagram(data)
    except BadPacket:
        return
    assert wire.decode_datagram(msgspec.msgpack.encode(messages)) == messages


@given(st.sampled_from(FRAMES + MESSAGES), st.data())
@settings(max_examples=300)
def test_a_mutated_message_raises_the_declared_error_only(message: msgspec.Struct, data: st.DataObject) -> None:
    packet = bytearray(wire.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    for decode in (wire.decode_datagram, wire.decode_frame):
        with contextlib.suppress(BadPacket):
            decode(bytes(packet))
