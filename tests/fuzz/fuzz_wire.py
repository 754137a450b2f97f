"""Fuzzes what strangers and peers can send: fuzz_wire.py [COUNT] [SEED]; a million inputs by default.

Inputs are noise, mutated and spliced messages, deep nests and random structures. They go to the decoders, to the
opener of seals, and, sealed as by a peer that has the key, into a running machine. Only BadPacket may come out of the
former and nothing at all out of the latter; no input may take longer than a tenth of a second. Prints what to repeat
on a failure.
"""

from __future__ import annotations

import contextlib
import random
import sys
import time

import msgpack

from cluster import BadPacket, Gossip, GossipConfig, Identity, KeyRing, wire
from cluster.seal import Opener, Sealer

KEY = bytes(32)
SLOW_S = 0.1
ALIVE = wire.Alive("n1", "10.0.0.1", 7946, 3, 4, b"12345678", 1, 1)
RECORD = wire.Record(ALIVE, wire.Status.FAILED, 9, (wire.Entry("k", 1, b"v"), wire.Entry("gone", 2, None)))
SAMPLES = [
    wire.encode(message)
    for message in (
        wire.Ping(1, 2, 3),
        wire.Ack(1),
        wire.Nack(1, True),
        wire.PingRequest(1, "n1", "10.0.0.1", 7946),
        ALIVE,
        wire.Suspect("n1", 3, 4, "m", False),
        wire.Down("n0", 1, 0, "m"),
        wire.Failed("n1", 3, 4, "m"),
        wire.Left("n1", 3, 4),
        wire.Delta("n1", 3, RECORD.entries),
        wire.Compare(ALIVE, (1, 2)),
        wire.Differences(ALIVE, 2, (0, 1), ((1, 2),)),
        wire.Exchange((RECORD,), (1,)),
        wire.Records((RECORD,), True),
    )
]


def structure(rng: random.Random, depth: int = 0) -> object:
    """Return a random value, nested a little."""
    kind = rng.randrange(9 if depth < 4 else 6)
    if kind < 2:
        return rng.choice((0, 1, -1, rng.randrange(25), rng.getrandbits(63), 2**64 - 1))
    if kind == 2:
        return "n" * rng.choice((0, 1, 2, 64, 65, 300))
    if kind == 3:
        return rng.randbytes(rng.choice((0, 1, 8, 9, 1024)))
    if kind == 4:
        return rng.choice((None, True, False, 1.5, float("nan")))
    if kind == 5:
        return rng.choice(("n0", "n1", "10.0.0.1"))
    if kind == 8:
        return {str(number): structure(rng, depth + 1) for number in range(rng.randrange(3))}
    return [structure(rng, depth + 1) for _ in range(rng.randrange(10))]


def generate(rng: random.Random) -> bytes:
    """Return one input."""
    kind = rng.randrange(6)
    if kind == 0:
        return rng.randbytes(rng.randrange(64))
    if kind == 1:
        return rng.choice((b"\x91", b"\x81\xa1k", b"\x92\x01", b"\xdd\x00\x00\x00\x01")) * rng.randrange(1, 400)
    if kind == 2:
        return bytes(msgpack.packb([structure(rng) for _ in range(rng.randrange(4))]))
    data = bytearray(rng.choice(SAMPLES))
    if kind == 3:
        other = rng.choice(SAMPLES)
        data = data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)) :]
    for _ in range(rng.randrange(5)):
        data[rng.randrange(len(data))] = rng.randrange(256) if data else 0
        if not data:
            break
    return wire.join([bytes(data)]) if rng.random() < 0.5 else bytes(data)


class Target:
    """A machine with a few members, and a peer that holds the key."""

    def __init__(self, seed: int) -> None:
        ring = KeyRing(KEY)
        self.machine = Gossip(GossipConfig(), Identity("n0", ("10.0.0.9", 7946), 1), ring, random.Random(seed))
        self.machine.start(0.0)
        self.machine.adopt(0.0, [ALIVE])
        self.datagrams = Sealer(ring, b"peerpeer", "datagram")
        self.streams = Sealer(ring, b"peerpeer", "stream")
        self.opener = Opener(ring, "datagram")
        self.now_s = 0.0

    def feed(self, data: bytes) -> None:
        """Give one input to everything that reads."""
        for decode in (wire.decode_datagram, wire.decode_frame, self.opener.open):
            with contextlib.suppress(BadPacket):
                decode(data)
        self.now_s += 0.001
        source = ("10.0.0.5", 7946)
        self.machine.handle_datagram(self.now_s, self.datagrams.seal(1, data), source)
        self.machine.handle_stream(self.now_s, self.streams.seal(1, data), source)
        self.machine.handle_timer(self.now_s)


def fuzz(count: int, seed: int) -> float:
    """Feed inputs; return the slowest one's seconds. Errors: whatever should not have come out."""
    rng = random.Random(seed)
    target = Target(seed)
    slowest_s = 0.0
    for number in range(count):
        data = generate(rng)
        started_s = time.process_time()
        try:
            target.feed(data)
        except Exception:
            print(f"seed {seed}, input {number}: {data.hex()}", file=sys.stderr)
            raise
        slowest_s = max(slowest_s, time.process_time() - started_s)
    return slowest_s


if __name__ == "__main__":
    inputs = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    worst_s = fuzz(inputs, first)
    print(f"{inputs} inputs from seed {first}: only declared errors; the slowest took {worst_s * 1000:.1f} ms")
    sys.exit(worst_s > SLOW_S)
