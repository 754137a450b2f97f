"""Probing: finds out who answers, directly, through others, by stream, and whose host refuses.

Owns the order of probes, the probes under way and the pings made for others. It knows nothing of what follows from a
failed probe: it hands the judge its evidence. After SWIM (round-robin order, indirect probes) and Lifeguard (nacks,
local health). The ring, the stream as evidence of a host that still takes connections, and refusals are ours.
"""

from __future__ import annotations

from typing import Final

from cluster import wire
from cluster.core import Core, Timer
from cluster.judge import Judge
from cluster.membership import Address, Entry
from cluster.wire import Status

DOWN_WATCHED_MAX: Final = 8
CONFIRM_SPREAD_S: Final = 0.05
RELAYS_MAX: Final = 256
STREAM_PROBES_MAX: Final = 32


class _Probe:
    """One member being probed by this node."""

    __slots__ = ("asked", "entry", "helpers_refused", "nacks", "refused", "sequence", "silent", "timer")

    def __init__(self, entry: Entry, sequence: int) -> None:
        self.entry = entry
        self.sequence = sequence
        self.asked = 0
        self.nacks = 0
        self.refused = False
        self.helpers_refused: list[str] = []
        self.silent = False
        self.timer: Timer | None = None


class _Relay:
    """One ping made for another node."""

    __slots__ = ("address", "for_sequence", "origin", "origin_address", "timer")

    timer: Timer

    def __init__(self, address: Address, origin: Entry | None, origin_address: Address, for_sequence: int) -> None:
        self.address = address
        self.origin = origin
        self.origin_address = origin_address
        self.for_sequence = for_sequence


class Prober:
    """Probes one member a probe interval; also accused ones, and any that a refusal points at."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.judge: Judge
        # At random, so that answers recorded before a restart, when replay windows are forgotten, match nothing.
        self._sequence = core.rng.getrandbits(31)
        self._probes: dict[int, _Probe] = {}
        self._probed: dict[str, _Probe] = {}
        self._relays: dict[int, _Relay] = {}
        self._streams: dict[int, _Probe] = {}
        self._order: list[str] = []
        self._ring_turn = False
        self._ring_count = 0

    def start(self) -> None:
        """Begin, at a random point of the interval."""
        self._core.timers.at(
            self._core.now_s + self._core.rng.random() * self._core.config.probe_interval_s, self._tick
        )

    # -- whom to probe

    def _tick(self) -> None:
        core = self._core
        core.timers.at(core.now_s + core.config.probe_interval_s * core.health.factor, self._tick)
        self._ring_turn = not self._ring_turn
        target = self._next_on_ring() if self._ring_turn and core.config.ring_probes else None
        target = target or self._next_in_order()
        if target is not None:
            self.probe(target)

    def _next_on_ring(self) -> Entry | None:
        targets = self._core.table.ring_targets(DOWN_WATCHED_MAX)
        if not targets:
            return None
        self._ring_count += 1
        return targets[self._ring_count % len(targets)]

    def _next_in_order(self) -> Entry | None:
        table = self._core.table
        for _ in range(2):
            while self._order:
                entry = table.get(self._order.pop())
                if entry is not None and entry.live:
                    return entry
            self._order = [entry.name for entry in table.live]
            self._core.rng.shuffle(self._order)
        return None

    def check_soon(self, entry: Entry) -> None:
        """Perhaps probe a member accused by others, so that some but not all confirm or refute at once."""
        core = self._core
        wanted = core.config.confirm_probes
        if wanted and core.rng.random() * len(core.table.live) < wanted:
            core.timers.at(core.now_s + core.rng.random() * CONFIRM_SPREAD_S, self._check, entry, entry.suspicion)

    def _check(self, entry: Entry, suspicion: object) -> None:
        if entry.suspicion is suspicion:
            self.probe(entry)

    # -- one probe

    def probe(self, entry: Entry) -> None:
        """Ping a member, unless that is under way."""
        core = self._core
        if entry.name in self._probed:
            return
        self._sequence += 1
        sequence = self._sequence
        probe = self._probes[sequence] = self._probed[entry.name] = _Probe(entry, sequence)
        core.counters.probes += 1
        factor = core.health.factor
        probe.timer = core.timers.at(core.now_s + core.config.probe_timeout_s * factor, self._late, probe, factor)
        self._ping(entry, sequence)

    def _ping(self, entry: Entry, sequence: int) -> None:
        core = self._core
        parts = [wire.encode(wire.Ping(sequence, entry.short_id, core.buckets.root & 0xFFFFFFFF))]
        alive, suspicion = entry.alive, entry.suspicion
        if suspicion is not None:
            # The accused hears of it at the first chance and can refute.
            by = suspicion.accusers[0]
            parts.append(
                wire.encode(wire.Suspect(alive.name, alive.boot_epoch, alive.incarnation, by, suspicion.silent))
            )
        elif entry.status == Status.DOWN:
            by = core.identity.name
            parts.append(wire.encode(wire.Down(alive.name, alive.boot_epoch, alive.incarnation, by)))
        core.send(entry.address, parts, entry)

    def _late(self, probe: _Probe, factor: int) -> None:
        core = self._core
        sequence = probe.sequence
        rest_s = (core.config.probe_interval_s - core.config.probe_timeout_s) * factor
        probe.timer = core.timers.at(core.now_s + rest_s, self._over, probe)
        if probe.refused:
            return
        core.counters.probe_losses += 1
        self._ask_others(probe, core.config.indirect_probes)
        if len(self._streams) < STREAM_PROBES_MAX:
            stream_id = self.next_stream_id()
            self._streams[stream_id] = probe
            entry = probe.entry
            core.open_stream(stream_id, entry.address, wire.Ping(sequence, entry.short_id, 0), entry, rest_s * 0.9)

    def next_stream_id(self) -> int:
        """Return an odd number; repairs take even ones."""
        self._sequence += 1
        return self._sequence * 2 + 1

    def _ask_others(self, probe: _Probe, count: int) -> None:
        entry = probe.entry
        request = [wire.encode(wire.PingRequest(probe.sequence, entry.name, *entry.address))]
        for helper in self._core.table.draw(self._core.rng, count, without=entry.name):
            probe.asked += 1
            self._core.send(helper.address, request, helper)

    def _over(self, probe: _Probe) -> None:
        self._finish(probe)
        core = self._core
        missing = probe.asked - probe.nacks
        core.health.change(missing if probe.asked else 1)
        core.counters.probe_failures += 1
        if core.table.get(probe.entry.name) is probe.entry and probe.entry.status <= Status.DOWN:
            self.judge.accuse(probe.entry, probe.silent or probe.refused)

    def _finish(self, probe: _Probe) -> None:
        if probe.timer is not None:
            probe.timer.cancel()
        self._probes.pop(probe.sequence, None)
        self._probed.pop(probe.entry.name, None)

    def _answered(self, probe: _Probe) -> None:
        self._finish(probe)
        self._core.health.change(-1)

    # -- what comes back

    def hear_ping(self, ping: wire.Ping, sender: Entry | None, source: Address) -> bool:
        """Answer a ping that means this node; return whether it did."""
        if ping.target != self._core.short_id:
            return False
        self._core.send(source, [wire.encode(wire.Ack(ping.sequence))], sender)
        return True

    def hear_ack(self, ack: wire.Ack, sender: Entry | None) -> None:
        """Finish a probe, or pass the answer on to who asked for it."""
        relay = self._relays.pop(ack.sequence, None)
        if relay is not None:
            relay.timer.cancel()
            self._core.send(relay.origin_address, [wire.encode(wire.Ack(relay.for_sequence))], relay.origin)
            return
        probe = self._probes.get(ack.sequence)
        if probe is not None:
            if sender is not probe.entry:
                self._core.counters.acks_by_others += 1
            self._answered(probe)

    def hear_nack(self, nack: wire.Nack, sender: Entry | None) -> None:
        """Count a helper's failure: it proves that this node hears well."""
        probe = self._probes.get(nack.sequence)
        if probe is None:
            return
        probe.nacks += 1
        if nack.refused and probe.entry.status == Status.DOWN:
            # This node's own way there may be broken; somebody else's refusal shows that the host still answers.
            self._finish(probe)
            self.judge.still_down(probe.entry)
        elif nack.refused and sender is not None and sender.name not in probe.helpers_refused:
            probe.helpers_refused.append(sender.name)
            self._conclude_refusal(probe)

    def hear_request(self, request: wire.PingRequest, sender: Entry | None, source: Address) -> None:
        """Ping a member for another node."""
        core = self._core
        entry = core.table.get(request.name)
        if entry is None or len(self._relays) >= RELAYS_MAX:
            return
        self._sequence += 1
        address = (request.host, request.port)
        relay = self._relays[self._sequence] = _Relay(address, sender, source, request.sequence)
        due_s = core.now_s + core.config.probe_timeout_s * 0.8
        relay.timer = core.timers.at(due_s, self._relay_late, self._sequence)
        if address == entry.address:
            self._ping(entry, self._sequence)
        else:
            core.emit(address, [wire.encode(wire.Ping(self._sequence, entry.short_id, 0))], None)

    def _relay_late(self, sequence: int) -> None:
        self._answer_relay(sequence, refused=False)

    def _answer_relay(self, sequence: int, *, refused: bool) -> None:
        relay = self._relays.pop(sequence, None)
        if relay is not None:
            relay.timer.cancel()
            nack = [wire.encode(wire.Nack(relay.for_sequence, refused))]
            self._core.send(relay.origin_address, nack, relay.origin)

    # -- refusals

    def hear_refused(self, address: Address) -> None:
        """A packet or connection of ours was refused at this address: the host is there, the agent is not."""
        core = self._core
        for sequence in [number for number, relay in self._relays.items() if relay.address == address]:
            self._answer_relay(sequence, refused=True)
        if not core.config.down_confirmations:
            return
        entry = core.table.by_address(address)
        if entry is None or entry.status > Status.DOWN:
            return
        core.counters.refused += 1
        probe = self._probed.get(entry.name)
        if entry.status == Status.DOWN:
            if probe is not None:
                self._finish(probe)
            self.judge.still_down(entry)
        elif probe is None:
            self.probe(entry)
        elif not probe.refused:
            probe.refused = True
            self._ask_others(probe, core.config.down_confirmations + 2)
            self._conclude_refusal(probe)

    def _conclude_refusal(self, probe: _Probe) -> None:
        core = self._core
        # Suspects may be gone too; waiting for their word would hold up the verdict when many go at once.
        others = sum(entry.status == Status.ALIVE and entry is not probe.entry for entry in core.table.live)
        if probe.refused and len(probe.helpers_refused) >= min(core.config.down_confirmations, others):
            self._finish(probe)
            self.judge.declare_down(probe.entry, [core.identity.name, *probe.helpers_refused])

    # -- the stream

    def owns_stream(self, stream_id: int) -> bool:
        """Return whether a stream was opened for a probe."""
        return stream_id in self._streams

    def stream_answered(self, stream_id: int, ack: wire.Frame) -> None:
        """The member answered by stream: alive, though datagrams get lost."""
        probe = self._streams.pop(stream_id)
        if isinstance(ack, wire.Ack) and self._probes.get(ack.sequence) is probe:
            self._core.counters.acks_by_stream += 1
            self._answered(probe)

    def stream_failed(self, stream_id: int, reason: str) -> None:
        """The stream brought no answer; how it failed is evidence."""
        probe = self._streams.pop(stream_id)
        if reason == "silent":
            probe.silent = True
        elif reason == "refused" and self._probes.get(probe.sequence) is probe:
            self.hear_refused(probe.entry.address)
