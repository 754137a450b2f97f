"""Effects: all that the gossip machine asks its shell to do, and all that it tells.

Owns the values that cross the border outwards. A shell carries out the first three, keeps IdentityChanged on disk and
passes the rest on.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from cluster.membership import Address, Identity, Member
from cluster.wire import Status


class SendDatagram(msgspec.Struct, frozen=True):
    """Send these bytes, at most PACKET_BYTES_MAX of them, by UDP."""

    address: Address
    data: bytes


class OpenStream(msgspec.Struct, frozen=True):
    """Connect by TCP, send one frame and read one. Answer with handle_reply or handle_stream_failed and `stream_id`."""

    stream_id: int
    address: Address
    data: bytes
    timeout_s: float


class StreamReply(msgspec.Struct, frozen=True):
    """Send this frame back on the stream whose request was just handled; without one, close it."""

    data: bytes


class IdentityChanged(msgspec.Struct, frozen=True):
    """The node's own incarnation or boot epoch rose: keep it on disk."""

    identity: Identity


class MemberChanged(msgspec.Struct, frozen=True):
    """A member came (old is None), changed its state or address, or was forgotten (new is None).

    `why` is for people; `by` names the node whose word it is.
    """

    member: Member
    old: Status | None
    new: Status | None
    why: str
    by: str


class StateChanged(msgspec.Struct, frozen=True):
    """A member's key has a new value; None when it was deleted or belonged to an earlier boot."""

    name: str
    key: str
    value: bytes | None


class NameConflict(msgspec.Struct, frozen=True):
    """Another node uses this node's name, at that address, and is newer: this one is not heard any more."""

    address: Address


Effect: TypeAlias = (
    SendDatagram | OpenStream | StreamReply | IdentityChanged | MemberChanged | StateChanged | NameConflict
)
