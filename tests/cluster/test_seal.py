"""Seals: nobody without the key is heard, nothing is heard twice, keys change while packets fly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import BadPacket, BodySealer, InvalidKey, KeyRing, derive_key
from cluster.seal import HEADER_BYTES, SEAL_OVERHEAD_BYTES, WINDOW_PACKETS, Opener, Sealer

KEY, OTHER = bytes(32), bytes([7]) * 32
SESSION = b"session1"


def pair(key: bytes = KEY) -> tuple[Sealer, Opener]:
    return Sealer(KeyRing(key), SESSION, "datagram"), Opener(KeyRing(KEY), "datagram")


def refused(opener: Opener, packet: bytes, context: bytes = b"") -> str:
    with pytest.raises(BadPacket) as caught:
        opener.open(packet, context)
    return caught.value.reason


@given(st.binary(max_size=1100))
def test_what_was_sealed_opens_and_costs_the_documented_bytes(data: bytes) -> None:
    sealer, opener = pair()
    packet = sealer.seal(1, data)
    assert len(packet) == len(data) + SEAL_OVERHEAD_BYTES
    assert opener.open(packet) == (1, SESSION, data)


@given(st.data())
def test_a_packet_changed_in_any_bit_is_refused(data: st.DataObject) -> None:
    sealer, opener = pair()
    packet = bytearray(sealer.seal(1, b"the content"))
    position = data.draw(st.integers(0, len(packet) - 1))
    packet[position] ^= 1 << data.draw(st.integers(0, 7))
    assert refused(opener, bytes(packet)) in {"version", "key", "forged"}


def test_another_cluster_is_not_heard() -> None:
    sealer, opener = pair(OTHER)
    assert refused(opener, sealer.seal(1, b"x")) == "key"
    label = Sealer(KeyRing(KEY, label="other"), SESSION, "datagram")
    assert refused(opener, label.seal(1, b"x")) == "forged"


def test_a_packet_of_one_purpose_or_request_does_not_open_as_another() -> None:
    stream = Sealer(KeyRing(KEY), SESSION, "stream")
    opener = Opener(KeyRing(KEY), "datagram")
    assert refused(opener, stream.seal(1, b"x")) == "forged"
    assert refused(Opener(KeyRing(KEY), "stream"), stream.seal(1, b"x", b"request 1"), b"request 2") == "forged"


def test_a_sealed_packet_can_not_be_passed_off_as_readable_nor_the_reverse() -> None:
    sealed, plain = pair()[0].seal(1, b"x" * 30), Sealer(None, SESSION, "datagram").seal(1, b"x" * 30)
    assert refused(Opener(None, "datagram"), sealed) == "version"
    assert refused(Opener(KeyRing(KEY), "datagram"), plain) == "version"


@given(st.lists(st.integers(0, 2500), min_size=1, max_size=60))
def test_every_packet_opens_at_most_once_in_any_order_of_arrival(order: list[int]) -> None:
    sealer, opener = pair()
    packets = [sealer.seal(1, b"") for _ in range(2501)]
    opened: set[int] = set()
    highest = -1
    for index in order:
        if index in opened or highest - index >= WINDOW_PACKETS:
            assert refused(opener, packets[index]) == "replayed"
        else:
            opener.open(packets[index])
            opened.add(index)
            highest = max(highest, index)


def test_a_forged_packet_does_not_move_the_replay_window() -> None:
    sealer, opener = pair()
    first, second = sealer.seal(1, b"1"), sealer.seal(1, b"2")
    forged = second[:HEADER_BYTES] + bytes(len(second) - HEADER_BYTES)
    assert refused(opener, forged) == "forged"
    opener.open(second)
    opener.open(first)


@given(st.binary(max_size=80))
def test_noise_is_refused_with_the_declared_error(noise: bytes) -> None:
    refused(pair()[1], noise)


def test_keys_rotate_while_packets_fly() -> None:
    sender_ring, receiver_ring = KeyRing(KEY), KeyRing(KEY)
    sealer, opener = Sealer(sender_ring, SESSION, "datagram"), Opener(receiver_ring, "datagram")
    before = sealer.seal(1, b"old")
    new = receiver_ring.add(OTHER)
    sender_ring.add(OTHER)
    sender_ring.use(new)
    after = sealer.seal(1, b"new")
    assert opener.open(before)[2] == b"old"
    assert opener.open(after)[2] == b"new"
    old = receiver_ring.list()[0][0]
    receiver_ring.use(new)
    late = Sealer(KeyRing(KEY), b"session2", "datagram").seal(1, b"late")
    receiver_ring.remove(old)
    assert refused(opener, late) == "key"
    assert receiver_ring.list() == ((new, True),)


def test_the_ring_refuses_what_would_lock_the_node_out() -> None:
    ring = KeyRing(KEY)
    only = ring.list()[0][0]
    for attempt in (lambda: ring.remove(only), lambda: ring.use("ffff"), lambda: ring.use("?"), lambda: ring.add(b"x")):
        with pytest.raises(InvalidKey):
            attempt()
    assert ring.list() == ((only, True),)


def test_an_answer_is_sealed_under_its_requests_key_while_that_is_on_the_ring() -> None:
    rotated = KeyRing(OTHER, KEY)
    sleeper, server = Sealer(KeyRing(KEY), SESSION, "body"), Sealer(rotated, b"session2", "body")
    request = sleeper.seal(1, b"what is new?")[:HEADER_BYTES]
    assert Opener(KeyRing(KEY), "body").open(server.seal(1, b"a key", request), request)[2] == b"a key"
    rotated.replace(OTHER)
    assert refused(Opener(KeyRing(KEY), "body"), server.seal(1, b"a key", request), request) == "key"


def test_a_replaced_ring_holds_its_new_keys_alone_or_is_left_as_it_was() -> None:
    ring = KeyRing(KEY)
    opener = Opener(ring, "datagram")
    before = pair()[0]
    opener.open(before.seal(1, b"x"))
    ring.replace(OTHER, KEY)
    assert ring.keys == (OTHER, KEY)
    opener.open(before.seal(1, b"x"))
    ring.replace(OTHER)
    assert refused(opener, before.seal(1, b"x")) == "key"
    with pytest.raises(InvalidKey):
        ring.replace(b"short")
    assert ring.keys == (OTHER,)


def test_keys_of_different_purposes_differ() -> None:
    assert len({derive_key(KEY, purpose) for purpose in ("tokens", "bodies", "key id")}) == 3
    with pytest.raises(InvalidKey):
        derive_key(b"short", "tokens")


def bodies(now: list[float]) -> tuple[BodySealer, BodySealer]:
    ring = KeyRing(KEY)
    return (
        BodySealer(ring, "n1", b"sessionA", lambda: now[0]),
        BodySealer(ring, "n2", b"sessionB", lambda: now[0]),
    )


def test_a_body_names_its_sender_and_a_reply_is_bound_to_its_request() -> None:
    now = [1000.0]
    alice, bob = bodies(now)
    request = alice.seal(b"start")
    assert bob.open(request) == ("n1", b"start")
    reply = bob.seal(b"done", reply_to=bob.nonce_of(request))
    other = alice.seal(b"stop")
    with pytest.raises(BadPacket):
        alice.open(reply, reply_to=alice.nonce_of(other))
    assert alice.open(reply, reply_to=alice.nonce_of(request)) == ("n2", b"done")


def test_a_body_opens_once_and_not_late() -> None:
    now = [1000.0]
    alice, bob = bodies(now)
    once, late = alice.seal(b"once"), alice.seal(b"late")
    bob.open(once)
    with pytest.raises(BadPacket, match="replayed"):
        bob.open(once)
    now[0] += 31
    with pytest.raises(BadPacket, match="expired"):
        bob.open(late)
