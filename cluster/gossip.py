"""The machine: one node's gossip, without any I/O.

Owns the order in which things happen: every input sets the machine's time, is opened and decoded, goes to the
department it concerns (probe, judge, repair), and returns the effects. It knows nothing of sockets, clocks or trio;
the node's shell and the simulators drive the same object.

    gossip = Gossip(config, Identity("n1", ("10.0.0.1", 7946), boot_epoch=3), key_ring, rng, seeds=[("10.0.0.2", 7946)])
    effects = gossip.start(now)
    effects = gossip.handle_datagram(now, data, source)
    wake up at gossip.next_timer() and call gossip.handle_timer(now)
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from cluster import wire
from cluster.config import FRAME_BYTES_MAX, PACKET_BYTES_MAX, GossipConfig, check_name
from cluster.core import Core, Counters
from cluster.effects import Effect, StreamReply
from cluster.errors import BadPacket, InvalidConfig, NotRunning
from cluster.judge import Judge
from cluster.membership import Address, Entry, Identity, Member
from cluster.probe import Prober
from cluster.repair import Repair
from cluster.seal import HEADER_BYTES, KeyRing, Opener
from cluster.wire import Status

LEAVE_FANOUT: Final = 8
# Sums and differences of times round differently; without this a timer due "now" could wait for ever, never reached.
ROUNDING_S: Final = 1e-6


class Gossip:
    """One node's membership and state. Every input returns what is to be done, in order; times are monotonic seconds.

    A peer's bad packet is counted and otherwise ignored. Errors: NotRunning, and those named at the methods.
    """

    def __init__(
        self,
        config: GossipConfig,
        identity: Identity,
        key_ring: KeyRing | None,
        rng: random.Random,
        *,
        seeds: Iterable[Address] = (),
        known_peers: Iterable[Address] = (),
    ) -> None:
        check_name(identity.name)
        if identity.boot_epoch < 0 or identity.incarnation < 0:
            raise InvalidConfig("identity", identity, "give a boot epoch and an incarnation of 0 or more")
        self._core = Core(config, identity, key_ring, rng)
        self._prober = Prober(self._core)
        self._judge = Judge(self._core, self._prober.check_soon)
        self._prober.judge = self._judge
        self._repair = Repair(self._core, self._judge, seeds, known_peers)
        self._started = False
        self._stalled_s = 0.0

    # -- inputs

    def start(self, now: float) -> list[Effect]:
        """Begin to probe and to join. Errors: NotRunning when started before."""
        if self._started:
            raise NotRunning("this gossip machine was started before; make a new one")
        self._started = True
        core = self._core
        core.now_s = now
        core.changed_s = now
        core.refresh_own_digest()
        self._prober.start()
        self._repair.start()
        return self._take()

    def adopt(self, now: float, members: Iterable[wire.Alive]) -> list[Effect]:
        """Take members for alive, silently: a simulated cluster starts formed."""
        self._enter(now)
        for alive in members:
            self._judge.adopt(alive)
        return self._take()

    def handle_datagram(self, now: float, data: bytes, source: Address) -> list[Effect]:
        """Take in one UDP packet."""
        self._enter(now)
        core = self._core
        core.counters.packets_in += 1
        core.counters.bytes_in += len(data)
        try:
            session, content = self._open(core.datagram_opener, data, PACKET_BYTES_MAX)
            messages = wire.decode_datagram(content)
        except BadPacket:
            core.counters.packets_bad += 1
            return self._take()
        sender = core.table.by_session(session)
        for message in messages:
            self._hear(message, sender, source)
        return self._take()

    def _hear(self, message: wire.Datagram, sender: Entry | None, source: Address) -> None:
        prober = self._prober
        if isinstance(message, wire.Ping):
            if prober.hear_ping(message, sender, source):
                self._repair.hint(message.digest, sender)
        elif isinstance(message, wire.Ack):
            prober.hear_ack(message, sender)
        elif isinstance(message, wire.Delta):
            self._repair.hear_state(message, "" if sender is None else sender.name)
        elif isinstance(message, wire.Nack):
            prober.hear_nack(message, sender)
        elif isinstance(message, wire.PingRequest):
            prober.hear_request(message, sender, source)
        else:
            self._judge.hear(message, "" if sender is None else sender.name)

    def handle_stream(self, now: float, data: bytes, source: Address) -> list[Effect]:
        """Take in the request frame of a stream that a peer opened; a StreamReply among the effects is its answer."""
        self._enter(now)
        core = self._core
        core.counters.bytes_in += len(data)
        try:
            session, content = self._open(core.stream_opener, data, FRAME_BYTES_MAX)
            reply = self._answer(wire.decode_frame(content))
        except BadPacket:
            core.counters.packets_bad += 1
            return self._take()
        if reply is not None:
            sender = core.table.by_session(session)
            core.effects.append(StreamReply(core.seal_frame(reply, sender, data[:HEADER_BYTES])))
        return self._take()

    def _answer(self, frame: wire.Frame) -> wire.Frame | None:
        if isinstance(frame, wire.Ping):
            return wire.Ack(frame.sequence) if frame.target == self._core.short_id else None
        if isinstance(frame, wire.Compare | wire.Exchange):
            return self._repair.answer(frame)
        raise BadPacket("malformed", "a reply came as a request")

    def handle_reply(self, now: float, stream_id: int, data: bytes) -> list[Effect]:
        """Take in the reply frame of a stream this node opened."""
        self._enter(now)
        core = self._core
        core.counters.bytes_in += len(data)
        nonce = core.stream_nonces.pop(stream_id, None)
        if nonce is None:
            return self._take()
        try:
            _, content = self._open(core.stream_opener, data, FRAME_BYTES_MAX, nonce)
            frame = wire.decode_frame(content)
            owner = self._prober if self._prober.owns_stream(stream_id) else self._repair
            owner.stream_answered(stream_id, frame)
        except BadPacket:
            core.counters.packets_bad += 1
            self._fail_stream(stream_id, "silent")
        return self._take()

    def handle_stream_failed(self, now: float, stream_id: int, reason: str) -> list[Effect]:
        """A stream brought no reply: `reason` is "refused", "unreachable" (never connected) or "silent" (connected)."""
        self._enter(now)
        self._core.stream_nonces.pop(stream_id, None)
        self._fail_stream(stream_id, reason)
        return self._take()

    def _fail_stream(self, stream_id: int, reason: str) -> None:
        if self._prober.owns_stream(stream_id):
            self._prober.stream_failed(stream_id, reason)
        elif self._repair.owns_stream(stream_id):
            self._repair.stream_failed(stream_id)

    def handle_refused(self, now: float, address: Address) -> list[Effect]:
        """A datagram of ours met a host without an agent (ICMP port unreachable)."""
        self._enter(now)
        self._prober.hear_refused(address)
        return self._take()

    def handle_timer(self, now: float) -> list[Effect]:
        """Do what is due."""
        self._enter(now)
        self._core.timers.run(self._core.now_s + ROUNDING_S)
        return self._take()

    def next_timer(self) -> float | None:
        """Return when handle_timer wants to be called, None while nothing is due ever."""
        due_s = self._core.timers.next_s()
        return None if due_s is None else due_s + self._stalled_s

    def set_state(self, now: float, key: str, value: bytes | None) -> list[Effect]:
        """Say something about this node to all; None deletes. Errors: InvalidState, and then nothing has changed."""
        self._enter(now)
        core = self._core
        identity = core.identity
        entry = core.store.write(identity.name, identity.boot_epoch, key, value)
        if entry is not None:
            core.refresh_own_digest()
            core.tell_state(identity.name, identity.boot_epoch, [entry])
        return self._take()

    def leave(self, now: float) -> list[Effect]:
        """Tell the others that this node goes for good; run on for a moment, so that the word spreads."""
        self._enter(now)
        core = self._core
        if not self._judge.leaving:
            self._judge.leaving = True
            identity = core.identity
            core.tell(identity.name, wire.Left(identity.name, identity.boot_epoch, identity.incarnation))
            core.spread_once(LEAVE_FANOUT)
        return self._take()

    # -- queries

    def members(self) -> Sequence[Member]:
        """Return all members, this node first."""
        return [self.self_member(), *(entry.snapshot() for entry in self._core.table)]

    def member(self, name: str) -> Member | None:
        """Return one member."""
        if name == self._core.identity.name:
            return self.self_member()
        entry = self._core.table.get(name)
        return None if entry is None else entry.snapshot()

    def self_member(self) -> Member:
        """Return this node as others see it."""
        identity = self._core.identity
        status = Status.LEFT if self._judge.leaving else Status.ALIVE
        return Member(identity.name, identity.address, status, identity.incarnation, identity.boot_epoch)

    def state_of(self, name: str) -> Mapping[str, bytes]:
        """Return what a node says about itself."""
        return self._core.store.values(name)

    @property
    def identity(self) -> Identity:
        """Who this node is now; keep it on disk when it changes."""
        return self._core.identity

    @property
    def alive_message(self) -> wire.Alive:
        """What this node says of itself; others adopt it in simulations."""
        return self._core.alive

    @property
    def counters(self) -> Counters:
        """What happened so far."""
        self._core.counters.health = self._core.health.score
        return self._core.counters

    @property
    def joined(self) -> bool:
        """Whether the table was compared with two members (or with all there are)."""
        return self._repair.joined

    @property
    def digest(self) -> int:
        """64 bits that are equal on two nodes when their tables and states are."""
        return self._core.buckets.root

    # -- time

    def _enter(self, now: float) -> None:
        if not self._started:
            raise NotRunning("call start() first")
        core = self._core
        now_s = now - self._stalled_s
        due_s = core.timers.next_s()
        if due_s is not None and now_s - due_s > core.config.lag_threshold_s:
            late_s = now_s - due_s
            self._stalled_s += late_s
            now_s = due_s
            core.counters.stalls += 1
            self._note_lag(late_s)
        core.now_s = max(core.now_s, now_s)

    def _note_lag(self, lag_s: float) -> None:
        core = self._core
        core.counters.loop_lag_s = lag_s
        core.health.change(1 + int(lag_s / core.config.probe_interval_s))

    def _open(self, opener: Opener, data: bytes, bytes_max: int, context: bytes = b"") -> tuple[bytes, bytes]:
        if len(data) > bytes_max:
            raise BadPacket("too-long", f"{len(data)} bytes")
        version, session, content = opener.open(data, context)
        config = self._core.config
        if not config.protocol_min <= version <= config.protocol_max:
            raise BadPacket("version", f"{version}; this node speaks {config.protocol_min} to {config.protocol_max}")
        return session, content

    def _take(self) -> list[Effect]:
        effects = self._core.effects
        self._core.effects = []
        return effects
