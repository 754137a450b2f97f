"""The wire: what nodes say to each other, as typed msgpack with a bound on everything.

Owns the messages and their codec. It knows nothing of seals, sockets or what a message leads to. A datagram's content
is a msgpack array of messages; a message is an array whose first element is its kind. Decoding is typed (msgspec): a
field of another type, a longer string, a longer list or an unknown kind is refused as a whole, in time linear in the
packet. Messages are encoded once and joined as bytes, since the same rumour goes into many packets.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Annotated, Final, TypeAlias

import msgspec

from cluster.config import ENTRY_BYTES_MAX, KEY_CHARS_MAX, MEMBERS_MAX, NAME_CHARS_MAX, STATE_KEYS_MAX
from cluster.errors import BadPacket

MESSAGES_MAX: Final = 256
BUCKETS_MAX: Final = 256

Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARS_MAX)]
Host: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Port: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 48)]
Session: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
ShortId: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
Digest: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Version: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=15)]
Key: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=KEY_CHARS_MAX)]
Value: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=ENTRY_BYTES_MAX)]


class Status(enum.IntEnum):
    """A member's state as told to others; at the same boot and incarnation the higher one wins."""

    ALIVE = 0
    SUSPECT = 1
    DOWN = 2
    FAILED = 3
    LEFT = 4


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class Ping(_Message, frozen=True, tag=1):
    """Are you there? `target` is the short id of the node meant, so that an address's new owner stays silent.

    `digest` are 32 bits of the sender's table, so that tables at rest that differ find out.
    """

    sequence: Number
    target: ShortId
    digest: ShortId


class Ack(_Message, frozen=True, tag=2):
    """I am here, or a member you asked me to ping is."""

    sequence: Number


class Nack(_Message, frozen=True, tag=3):
    """The member you asked me to ping did not answer me, or its host refused."""

    sequence: Number
    refused: bool


class PingRequest(_Message, frozen=True, tag=4):
    """Ping this member for me."""

    sequence: Number
    name: Name
    host: Host
    port: Port


class Alive(_Message, frozen=True, tag=5):
    """A member says of itself that it lives; only the member makes this message, others pass it on."""

    name: Name
    host: Host
    port: Port
    boot_epoch: Number
    incarnation: Number
    session: Session
    protocol_min: Version
    protocol_max: Version


class Suspect(_Message, frozen=True, tag=6):
    """`by` had no answer from the member; `silent`: its host still takes connections."""

    name: Name
    boot_epoch: Number
    incarnation: Number
    by: Name
    silent: bool


class Down(_Message, frozen=True, tag=7):
    """The member's agent is gone while its host answers: `by` and others were refused."""

    name: Name
    boot_epoch: Number
    incarnation: Number
    by: Name


class Failed(_Message, frozen=True, tag=8):
    """The member did not answer a suspicion in time; `by` let it expire."""

    name: Name
    boot_epoch: Number
    incarnation: Number
    by: Name


class Left(_Message, frozen=True, tag=9):
    """The member says of itself that it goes for good."""

    name: Name
    boot_epoch: Number
    incarnation: Number


class Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One key of a node's state; a value of None deletes it."""

    key: Key
    version: Number
    value: Value | None


class Delta(_Message, frozen=True, tag=10):
    """Some of a node's state, as its owner wrote it in this boot."""

    name: Name
    boot_epoch: Number
    entries: Annotated[tuple[Entry, ...], msgspec.Meta(max_length=STATE_KEYS_MAX)]


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """All that one node knows of a member: for repair. `age_s`: for how long it has been in that status."""

    alive: Alive
    status: Status
    age_s: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
    entries: Annotated[tuple[Entry, ...], msgspec.Meta(max_length=STATE_KEYS_MAX)]


class Compare(_Message, frozen=True, tag=20):
    """Opens a repair: who I am and the digests of my table, in a power of two of buckets."""

    me: Alive
    buckets: Annotated[tuple[Digest, ...], msgspec.Meta(min_length=1, max_length=BUCKETS_MAX)]


class Differences(_Message, frozen=True, tag=21):
    """Answers Compare: (short id, digest) of every member in the buckets that differ."""

    me: Alive
    count: Annotated[int, msgspec.Meta(ge=1, le=BUCKETS_MAX)]
    buckets: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=0, lt=BUCKETS_MAX)], ...], msgspec.Meta(max_length=BUCKETS_MAX)
    ]
    members: Annotated[tuple[tuple[ShortId, Digest], ...], msgspec.Meta(max_length=MEMBERS_MAX)]


class Exchange(_Message, frozen=True, tag=22):
    """Goes on after Differences: records you may lack, and members whose records I want."""

    records: Annotated[tuple[Record, ...], msgspec.Meta(max_length=MEMBERS_MAX)]
    wanted: Annotated[tuple[ShortId, ...], msgspec.Meta(max_length=MEMBERS_MAX)]


class Records(_Message, frozen=True, tag=23):
    """Answers Exchange; `more`: some did not fit, compare again."""

    records: Annotated[tuple[Record, ...], msgspec.Meta(max_length=MEMBERS_MAX)]
    more: bool


Rumour: TypeAlias = Alive | Suspect | Down | Failed | Left
Datagram: TypeAlias = Ping | Ack | Nack | PingRequest | Alive | Suspect | Down | Failed | Left | Delta
Frame: TypeAlias = Ping | Ack | Compare | Differences | Exchange | Records

_encoder = msgspec.msgpack.Encoder()
_Messages: TypeAlias = Annotated[list[Datagram], msgspec.Meta(max_length=MESSAGES_MAX)]
_datagram_decoder: msgspec.msgpack.Decoder[list[Datagram]] = msgspec.msgpack.Decoder(_Messages)
_frame_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)

encode = _encoder.encode


def join(parts: Sequence[bytes]) -> bytes:
    """Return a datagram's content from encoded messages, at most MESSAGES_MAX."""
    count = len(parts)
    head = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return head + b"".join(parts)


def decode_datagram(data: bytes) -> list[Datagram]:
    """Return a datagram's messages. Errors: BadPacket."""
    try:
        return _datagram_decoder.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadPacket("malformed", str(error)) from None


def decode_frame(data: bytes) -> Frame:
    """Return a stream's message. Errors: BadPacket."""
    try:
        return _frame_decoder.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadPacket("malformed", str(error)) from None
