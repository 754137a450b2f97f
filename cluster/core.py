"""The parts of one gossip machine that its departments share: own identity, tables, queues, timers, outgoing packets.

Owns time as the machine sees it, packet assembly and the spreading rounds. It knows nothing of what a probe, a
suspicion or a repair is: those departments (probe, judge, repair) hold this core and call each other through the
machine alone.

The machine's time stands still while the node was starved: an input that comes later than the next timer by more than
lag_threshold_s moves all deadlines by that much. A node that was stopped for ten seconds so gives everybody the rest
of their time, and reads what has come in meanwhile before it judges.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import msgspec

from cluster import wire
from cluster.config import PACKET_BYTES_MAX, GossipConfig
from cluster.dissemination import Spreader
from cluster.effects import Effect, IdentityChanged, OpenStream, SendDatagram
from cluster.membership import Address, Entry, Identity, MemberTable, short_id
from cluster.seal import HEADER_BYTES, SEAL_OVERHEAD_BYTES, SESSION_BYTES, KeyRing, Opener, Sealer
from cluster.state import Buckets, StateStore
from cluster.suspicion import LocalHealth

# A datagram's content: the packet less the seal and the array's head. The shortest rumour has ten bytes, so that a full
# packet stays below wire.MESSAGES_MAX.
ROOM_BYTES: Final = PACKET_BYTES_MAX - SEAL_OVERHEAD_BYTES - 3


@dataclass(slots=True)
class Counters:
    """What the machine did since its start; numbers only grow, except loop_lag_s and health."""

    probes: int = 0
    probe_losses: int = 0  # direct pings without an answer in time
    probe_failures: int = 0  # no answer by any way
    acks_by_stream: int = 0
    acks_by_others: int = 0
    refused: int = 0
    suspicions: int = 0
    suspicions_false: int = 0
    refutations: int = 0
    downs: int = 0
    failures: int = 0
    syncs: int = 0
    sync_failures: int = 0
    packets_in: int = 0
    packets_out: int = 0
    packets_bad: int = 0
    bytes_in: int = 0
    bytes_out_probes: int = 0
    bytes_out_rumours: int = 0
    bytes_out_state: int = 0
    bytes_out_streams: int = 0
    stalls: int = 0
    loop_lag_s: float = 0.0  # the last lag beyond the threshold
    health: int = 0  # Lifeguard's score at present, 0 is healthy

    def as_dict(self) -> dict[str, float]:
        """Return all of them by name."""
        return asdict(self)


class Timer:
    """One callback to come."""

    __slots__ = ("_arguments", "_callback")

    def __init__(self, callback: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self._callback: Callable[..., None] | None = callback
        self._arguments = arguments

    def cancel(self) -> None:
        """Make it not come; without effect afterwards."""
        self._callback = None
        self._arguments = ()

    @property
    def cancelled(self) -> bool:
        """Whether it will not come."""
        return self._callback is None

    def run(self) -> None:
        """Call back, unless cancelled."""
        if self._callback is not None:
            self._callback(*self._arguments)


class Timers:
    """Callbacks by due time."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0

    def at(self, due_s: float, callback: Callable[..., None], *arguments: Any) -> Timer:
        """Call back at a machine time."""
        self._count += 1
        timer = Timer(callback, arguments)
        heapq.heappush(self._heap, (due_s, self._count, timer))
        return timer

    def next_s(self) -> float | None:
        """Return when the first is due."""
        heap = self._heap
        while heap:
            if not heap[0][2].cancelled:
                return heap[0][0]
            heapq.heappop(heap)
        return None

    def run(self, now_s: float) -> None:
        """Run all that is due."""
        heap = self._heap
        while heap and heap[0][0] <= now_s:
            heapq.heappop(heap)[2].run()


class Core:
    """One node's shared innards; `now_s` is set by the machine at every input."""

    def __init__(self, config: GossipConfig, identity: Identity, key_ring: KeyRing | None, rng: random.Random) -> None:
        self.config = config
        self.rng = rng
        self.now_s = 0.0
        self.identity = identity
        self.short_id = short_id(identity.name)
        self.session = rng.randbytes(SESSION_BYTES)
        self.datagram_sealer = Sealer(key_ring, self.session, "datagram")
        self.datagram_opener = Opener(key_ring, "datagram")
        self.stream_sealer = Sealer(key_ring, self.session, "stream")
        self.stream_opener = Opener(key_ring, "stream")
        self.table = MemberTable(identity.name)
        self.store = StateStore()
        self.buckets = Buckets()
        self.changed_s = 0.0
        self.rumours = Spreader()
        self.deltas = Spreader()
        self.health = LocalHealth(config.health_max)
        self.counters = Counters()
        self.timers = Timers()
        self.stream_nonces: dict[int, bytes] = {}
        self.effects: list[Effect] = []
        self._round_due_s: float | None = None
        self._round = 0
        self._first_fanout = 0
        self.alive = self._own_alive()

    # -- the own identity

    def assert_identity(self, boot_epoch: int, incarnation: int) -> None:
        """Take a higher incarnation (or boot epoch), and let the shell keep it and everybody hear it."""
        if boot_epoch != self.identity.boot_epoch:
            self.store.rebase(self.identity.name, boot_epoch)
        self.identity = msgspec.structs.replace(self.identity, boot_epoch=boot_epoch, incarnation=incarnation)
        self.alive = self._own_alive()
        self.refresh_own_digest()
        self.effects.append(IdentityChanged(self.identity))
        self.tell(self.identity.name, self.alive)

    def _own_alive(self) -> wire.Alive:
        identity = self.identity
        return wire.Alive(
            identity.name,
            *identity.address,
            identity.boot_epoch,
            identity.incarnation,
            self.session,
            self.config.protocol_min,
            self.config.protocol_max,
        )

    def refresh_own_digest(self) -> None:
        """Bring the table's digest up to date with the own row."""
        own = Entry(self.alive, wire.Status.ALIVE, 0.0).digest_now()
        self._set_digest(self.short_id, own ^ self.store.digest(self.identity.name))

    def refresh_digest(self, entry: Entry) -> None:
        """Bring the table's digest up to date with a member's row."""
        self._set_digest(entry.short_id, entry.digest_now() ^ self.store.digest(entry.name))

    def drop_digest(self, entry: Entry) -> None:
        """Take a forgotten member out of the table's digest."""
        self._set_digest(entry.short_id, 0)

    def _set_digest(self, number: int, digest: int) -> None:
        if self.buckets.get(number) != digest:
            self.buckets.put(number, digest)
            self.changed_s = self.now_s

    # -- packets

    def version_for(self, alive: wire.Alive | None) -> int:
        """Return the highest protocol version both sides speak; the lowest of ours for strangers."""
        return self.config.protocol_min if alive is None else min(self.config.protocol_max, alive.protocol_max)

    def send(self, address: Address, parts: list[bytes], to: Entry | None) -> None:
        """Send a datagram, filled up with rumours and state the receiver isn't known to know."""
        counters = self.counters
        if to is not None and (self.rumours or self.deltas):
            counters.bytes_out_probes += sum(map(len, parts)) + SEAL_OVERHEAD_BYTES
            parts = parts + self.gather(to.name, ROOM_BYTES - sum(map(len, parts)))
        else:
            counters.bytes_out_probes += sum(map(len, parts)) + SEAL_OVERHEAD_BYTES
        self.emit(address, parts, to)

    def gather(self, peer: str, room: int) -> list[bytes]:
        """Return rumours, then state, for a peer, at most `room` bytes."""
        sends_max = self.config.retransmissions(len(self.table.live) + 1)
        rumours = self.rumours.take(peer, room, sends_max) if self.rumours else []
        used = sum(map(len, rumours))
        self.counters.bytes_out_rumours += used
        if not self.deltas:
            return rumours
        deltas = self.deltas.take(peer, room - used, sends_max)
        self.counters.bytes_out_state += sum(map(len, deltas))
        return rumours + deltas

    def emit(self, address: Address, parts: list[bytes], to: Entry | None) -> None:
        """Seal and send a datagram as it is."""
        version = self.version_for(None if to is None else to.alive)
        data = self.datagram_sealer.seal(version, wire.join(parts))
        self.counters.packets_out += 1
        self.effects.append(SendDatagram(address, data))

    def seal_frame(self, frame: wire.Frame, to: Entry | None, request_nonce: bytes = b"") -> bytes:
        """Return a stream's frame; a reply is bound to its request."""
        version = self.version_for(None if to is None else to.alive)
        data = self.stream_sealer.seal(version, wire.encode(frame), request_nonce)
        self.counters.bytes_out_streams += len(data)
        return data

    def open_stream(self, stream_id: int, address: Address, frame: wire.Frame, to: Entry | None, wait_s: float) -> None:
        """Send a request by stream."""
        data = self.seal_frame(frame, to)
        self.stream_nonces[stream_id] = data[:HEADER_BYTES]
        self.effects.append(OpenStream(stream_id, address, data, wait_s))

    # -- spreading

    def tell(self, about: str, message: wire.Rumour, told_by: str = "") -> None:
        """Queue a rumour and see that it goes on soon."""
        self.rumours.add(about, wire.encode(message), told_by)
        self._hurry(own=not told_by)

    def tell_accusation(self, message: wire.Suspect, told_by: str = "") -> None:
        """Queue a suspicion beside those of other accusers, since each of them counts."""
        self.rumours.add((message.name, message.by), wire.encode(message), told_by)
        self._hurry(own=not told_by)

    def drop_accusations(self, name: str, accusers: list[str]) -> None:
        """Stop telling suspicions that a newer statement has settled."""
        for by in accusers:
            self.rumours.drop((name, by))

    def tell_state(self, name: str, boot_epoch: int, news: list[wire.Entry], told_by: str = "") -> None:
        """Queue changed keys of a node's state."""
        for entry in news:
            self.deltas.add((name, entry.key), wire.encode(wire.Delta(name, boot_epoch, (entry,))), told_by)
        if news:
            self._hurry(own=not told_by)

    def _hurry(self, own: bool) -> None:
        self._round = 0
        config = self.config
        if own and config.forward_jitter_s:
            # Nobody else has this to tell, so there is nobody to get out of step with, and more to be told.
            self._first_fanout = 2 * config.spread_fanout
            self._plan_round(self.now_s)
            return
        delay_s = self.rng.random() * (config.forward_jitter_s or config.spread_interval_s)
        self._plan_round(self.now_s + delay_s)

    def _plan_round(self, due_s: float) -> None:
        if self._round_due_s is None or due_s < self._round_due_s:
            self._round_due_s = due_s
            self.timers.at(due_s, self._spread, due_s)

    def _spread(self, due_s: float) -> None:
        if due_s != self._round_due_s:
            return
        self._round_due_s = None
        self.spread_once(self._first_fanout or self.config.spread_fanout)
        self._first_fanout = 0
        if self.rumours or self.deltas:
            self._round += 1
            again = self._round == 1 and self.config.forward_jitter_s > 0
            self._plan_round(self.now_s + (self.config.forward_again_s if again else self.config.spread_interval_s))

    def spread_once(self, fanout: int) -> None:
        """Tell what is new to some live members."""
        for entry in self.table.draw(self.rng, fanout):
            parts = self.gather(entry.name, ROOM_BYTES)
            if parts:
                self.emit(entry.address, parts, entry)
