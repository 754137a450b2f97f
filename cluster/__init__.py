"""Who is alive and what each node says about itself: a gossip machine without I/O. See docs/protocol.md."""

from cluster.config import GossipConfig
from cluster.core import Counters
from cluster.effects import (
    Effect,
    IdentityChanged,
    MemberChanged,
    NameConflict,
    OpenStream,
    SendDatagram,
    StateChanged,
    StreamReply,
)
from cluster.errors import BadPacket, ClusterError, InvalidConfig, InvalidKey, InvalidState, NotRunning
from cluster.gossip import Gossip
from cluster.membership import Address, Identity, Member
from cluster.seal import BodySealer, KeyRing, derive_key
from cluster.wire import Status

__all__ = [
    "Address",
    "BadPacket",
    "BodySealer",
    "ClusterError",
    "Counters",
    "Effect",
    "Gossip",
    "GossipConfig",
    "Identity",
    "IdentityChanged",
    "InvalidConfig",
    "InvalidKey",
    "InvalidState",
    "KeyRing",
    "Member",
    "MemberChanged",
    "NameConflict",
    "NotRunning",
    "OpenStream",
    "SendDatagram",
    "StateChanged",
    "Status",
    "StreamReply",
    "derive_key",
]
