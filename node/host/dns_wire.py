"""The few parts of DNS messages that a resolver of our own names needs (RFC 1035). Pure; whatever is malformed is None.

No compression in questions, no message beyond its transport's size: what does not fit into a datagram is cut with the
TC flag, and asked again over TCP.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

HEADER = struct.Struct("!HHHHHH")
A, AAAA, ANY, INTERNET = 1, 28, 255, 1
NO_ERROR, SERVER_FAILED, NO_NAME, REFUSED = 0, 2, 3, 5
RESPONSE, AUTHORITATIVE, CUT, RECURSION_AVAILABLE = 0x8000, 0x0400, 0x0200, 0x0080
COPIED_FLAGS = 0x7900
"""Opcode and "recursion desired" go back as they came."""
TTL_S = 5
DATAGRAM_BYTES_MAX = 512
NAME_BYTES_MAX = 255


@dataclass(frozen=True, slots=True)
class Question:
    """One question; the name in small letters without the last dot."""

    id: int
    flags: int
    name: str
    kind: int
    raw: bytes
    """The question's own bytes, which every answer repeats."""


def parse(message: bytes) -> Question | None:
    """Read a query of one question."""
    if len(message) < HEADER.size:
        return None
    id_, flags, questions, *_ = HEADER.unpack_from(message)
    if flags & RESPONSE or questions != 1:
        return None
    labels, at = [], HEADER.size
    while at < len(message) and message[at]:
        end = at + 1 + message[at]
        if message[at] > 63 or end > len(message) or end - HEADER.size > NAME_BYTES_MAX:
            return None
        labels.append(message[at + 1 : end].decode("ascii", "replace").lower())
        at = end
    if at + 5 > len(message):
        return None
    kind, class_ = struct.unpack_from("!HH", message, at + 1)
    if class_ != INTERNET:
        return None
    return Question(id_, flags, ".".join(labels), kind, message[HEADER.size : at + 5])


def answer(question: Question, code: int, addresses: Sequence[str] = (), bytes_max: int = DATAGRAM_BYTES_MAX) -> bytes:
    """Return the answer; of the addresses those of the kind that was asked for, all or none of them."""
    records = []
    for address in map(ip_address, addresses):
        kind = A if address.version == 4 else AAAA
        if question.kind in (kind, ANY):
            packed = address.packed
            records.append(struct.pack("!HHHIH", 0xC000 | HEADER.size, kind, INTERNET, TTL_S, len(packed)) + packed)
    flags = RESPONSE | AUTHORITATIVE | RECURSION_AVAILABLE | (question.flags & COPIED_FLAGS) | code
    body = b"".join(records)
    if HEADER.size + len(question.raw) + len(body) > bytes_max:
        flags, records, body = flags | CUT, [], b""
    return HEADER.pack(question.id, flags, 1, len(records), 0, 0) + question.raw + body
