"""The gossip layer's settings: meaning, trade-off, default, bound; relations between them are checked at construction.

Defaults suit a local network of up to a few thousand nodes. `memberlist_like()` gives the rules of HashiCorp
memberlist's LAN profile on the same machine, to compare with on the same seeds.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Final

from cluster.errors import InvalidConfig

PROTOCOL_MIN: Final = 1
PROTOCOL_MAX: Final = 1
PACKET_BYTES_MAX: Final = 1200
FRAME_BYTES_MAX: Final = 1 << 20
ENTRY_BYTES_MAX: Final = 1024  # a key with its value: has to fit into a packet
STATE_BYTES_MAX: Final = 3 * ENTRY_BYTES_MAX
STATE_KEYS_MAX: Final = 16
KEY_CHARS_MAX: Final = 32
NAME_CHARS_MAX: Final = 64
MEMBERS_MAX: Final = 8192

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> str:
    """Return the node name if it is one: letters, digits, dot, underscore, hyphen. Errors: InvalidConfig."""
    if not _NAME.fullmatch(name):
        raise InvalidConfig("name", name, "use 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first")
    return name


@dataclass(frozen=True, slots=True)
class GossipConfig:
    """How a node gossips. All nodes of a cluster should agree; nothing breaks while they don't."""

    # Probing. One ping a probe interval: shorter finds failures sooner and costs about 160 B a ping and its answer.
    probe_interval_s: float = 1.0
    # How long a direct ping may take before others are asked and TCP is tried; above any healthy round trip.
    probe_timeout_s: float = 0.4
    # How many others are asked to ping a silent member; more stand more loss; they cost only while one is silent.
    indirect_probes: int = 3
    # Every second probe goes to the next member on the ring: bounds how long nobody looks at a member to two intervals.
    ring_probes: bool = True
    # How many members, on average, check a suspicion they hear of; more shrink the time-out sooner.
    confirm_probes: int = 6

    # Suspicion. The shortest time a suspected member has to answer; every confirmation moves the time-out towards it.
    suspicion_min_s: float = 3.0
    # For clusters above ten nodes the shortest time grows by this much per factor of ten (memberlist: 4, and min 0).
    suspicion_per_decade_s: float = 0.0
    # The time without any confirmation, in shortest times.
    suspicion_max_factor: float = 6.0
    # Confirmations that bring the time-out down to the shortest.
    suspicion_confirmations: int = 3
    # A member whose host takes connections while the agent says nothing is starved, not gone: its shortest time is
    # this many times longer. 1 treats both alike.
    silent_factor: float = 6.0
    # Others that must also be refused before an agent counts as down; 0 switches the state off.
    down_confirmations: int = 2

    # Local health (Lifeguard): how far a node that misses answers slows its own judgement, in steps.
    health_max: int = 8
    # A loop late by more than this was starved: its deadlines move by as much, and its health falls.
    lag_threshold_s: float = 0.2

    # Spreading. Rounds between repeated sends of a rumour.
    spread_interval_s: float = 0.2
    # Peers a round.
    spread_fanout: int = 4
    # Sends of a rumour by each node: at most this times log10 of the cluster's size, rounded up (memberlist's rule) ...
    retransmit_factor: int = 4
    # ... and at most this many more than its natural logarithm, which is what reaching everybody takes: a rumour that
    # every node tells to ln(n) + c others misses anybody with a probability of about exp(-c), before any repair.
    retransmit_extra: int = 4
    # A new rumour goes on after at most this; 0 waits for the next round. A little bundles and avoids collisions.
    forward_jitter_s: float = 0.004
    # The second round of a new rumour follows after this.
    forward_again_s: float = 0.02

    # Repair. A whole comparison with one random member over TCP; never stretched with the cluster's size.
    sync_interval_s: float = 30.0
    # How long a stream may take to connect and to answer.
    stream_timeout_s: float = 10.0
    # Attempts to reach seeds and lost members: first and longest pause between them.
    rejoin_min_s: float = 0.25
    rejoin_max_s: float = 15.0
    # Failed and down members are forgotten after this, those that left much sooner.
    forget_after_s: float = 24 * 3600.0
    forget_left_after_s: float = 600.0

    # What this node can speak; for tests and upgrades.
    protocol_min: int = PROTOCOL_MIN
    protocol_max: int = PROTOCOL_MAX

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
                raise InvalidConfig(field.name, value, "give a finite number, 0 or more")
            if isinstance(value, int) and not 0 <= value <= 1000:
                raise InvalidConfig(field.name, value, "give 0 to 1000")
        for name in ("probe_interval_s", "probe_timeout_s", "suspicion_min_s", "spread_interval_s", "sync_interval_s"):
            if getattr(self, name) < 0.01:
                raise InvalidConfig(name, getattr(self, name), "give at least 0.01 s")
        for name in ("spread_fanout", "retransmit_factor", "protocol_min"):
            if getattr(self, name) < 1:
                raise InvalidConfig(name, getattr(self, name), "give at least 1")
        self._check_relations()

    def _check_relations(self) -> None:
        if not 2 * self.probe_timeout_s <= self.probe_interval_s:
            raise InvalidConfig("probe_timeout_s", self.probe_timeout_s, "give at most half of probe_interval_s")
        if self.suspicion_min_s < self.probe_interval_s:
            raise InvalidConfig("suspicion_min_s", self.suspicion_min_s, "give at least probe_interval_s")
        if self.suspicion_max_factor < 1 or self.silent_factor < 1:
            raise InvalidConfig("suspicion_max_factor", self.suspicion_max_factor, "factors are at least 1")
        if self.rejoin_min_s > self.rejoin_max_s:
            raise InvalidConfig("rejoin_min_s", self.rejoin_min_s, "give at most rejoin_max_s")
        if self.forward_jitter_s > self.spread_interval_s or self.forward_again_s > self.spread_interval_s:
            raise InvalidConfig("forward_jitter_s", self.forward_jitter_s, "give at most spread_interval_s")
        if not self.protocol_min <= self.protocol_max <= 15:
            raise InvalidConfig("protocol_max", self.protocol_max, "give protocol_min to 15")

    @classmethod
    def memberlist_like(cls) -> GossipConfig:
        """Return memberlist's LAN rules (v0.5): no ring, no eager rumours, no confirming probes."""
        return cls(
            probe_timeout_s=0.5,
            ring_probes=False,
            confirm_probes=0,
            suspicion_min_s=4.0,
            suspicion_per_decade_s=4.0,
            suspicion_confirmations=2,
            silent_factor=1.0,
            down_confirmations=0,
            lag_threshold_s=3600.0,
            spread_fanout=3,
            forward_jitter_s=0.0,
            forward_again_s=0.2,
            retransmit_extra=1000,
        )

    def retransmissions(self, members: int) -> int:
        """Return how often a node sends each rumour in a cluster of so many live members."""
        decades = max(1, math.ceil(math.log10(members + 1)))
        return min(self.retransmit_factor * decades, math.ceil(math.log(members + 1)) + self.retransmit_extra)
