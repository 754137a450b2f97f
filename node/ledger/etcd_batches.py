"""How a batch of changes becomes transactions of etcd, which take so many operations and bytes each. Pure.

A row is one key. A value too large for one request is kept in parts beside its row, which then says how many there are.
etcd refuses a transaction that touches a key twice, so only the last change of a row is kept, and old parts are removed
from the first one on that is not written anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from scheduler.events import Change, Delete, Put

OPERATIONS_MAX = 100
"""etcd's own bound is 128 by default (--max-txn-ops), the conditions and the tail of the batch included."""
BYTES_MAX = 1 << 20
"""etcd's own is 1.5 MiB by default (--max-request-bytes)."""
PART_BYTES = 512 << 10

WHOLE, PARTED = b"\x00", b"\x01"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[str, str, bytes | None]]).decode


@dataclass(frozen=True, slots=True)
class Write:
    """Set a key; without a value remove it, or all keys to before `end`."""

    key: bytes
    value: bytes | None = None
    end: bytes = b""

    @property
    def size_bytes(self) -> int:
        """How much of a request it takes, about."""
        return len(self.key) + len(self.end) + len(self.value or b"") + 32


def last_changes(changes: Iterable[Change]) -> list[Change]:
    """Return the changes of which no later one has the same row."""
    return list({(change.table, change.key): change for change in changes}.values())


def row_key(table: str, key: str) -> bytes:
    """Return where a row is, below its home's prefix."""
    return f"rows/{table}/{key}".encode()


def read_row_key(name: bytes) -> tuple[str, str]:
    """Return table and key of a row."""
    _, table, key = name.decode().split("/", 2)
    return table, key


def part_key(table: str, key: str, number: int) -> bytes:
    """Return where a part of a large value is; no row's key has a NUL, so no two rows' parts are mixed up."""
    return f"parts/{table}/{key}\0{number:06d}".encode()


def parts_end(table: str, key: str) -> bytes:
    """Return the first key after those that a row's parts may have."""
    return f"parts/{table}/{key}\1".encode()


def read_part_key(name: bytes) -> tuple[str, str]:
    """Return table and key of the row that a part belongs to."""
    return read_row_key(name.rpartition(b"\0")[0])


def groups(changes: Sequence[Change], parted: set[tuple[str, str]]) -> list[list[Write]]:
    """Return the writes of these changes, in groups that fit a transaction each, to be made in this order.

    `parted` has the rows that are in parts by now; it is brought up to date.
    """
    found: list[list[Write]] = [[]]
    size_bytes = 0
    for change in changes:
        for together in _writes(change, parted):
            more = sum(write.size_bytes for write in together)
            if found[-1] and (size_bytes + more > BYTES_MAX or len(found[-1]) + len(together) > OPERATIONS_MAX):
                found.append([])
                size_bytes = 0
            found[-1] += together
            size_bytes += more
    return found if found[-1] else found[:-1]


def _writes(change: Change, parted: set[tuple[str, str]]) -> list[list[Write]]:
    """Return the writes of one change: those of an inner list go together, those of different ones need not."""
    row = (change.table, change.key)
    name = row_key(*row)
    pieces = _pieces(change.value) if isinstance(change, Put) and len(change.value) > PART_BYTES else []
    clear = [Write(part_key(*row, len(pieces)), end=parts_end(*row))] if row in parted else []
    parted.discard(row)
    if isinstance(change, Delete):
        return [[Write(name), *clear]]
    if not pieces:
        return [[Write(name, WHOLE + change.value), *clear]]
    parted.add(row)
    parts = [[Write(part_key(*row, number), piece)] for number, piece in enumerate(pieces)]
    return [*parts, [Write(name, PARTED + str(len(pieces)).encode()), *clear]]


def _pieces(value: bytes) -> list[bytes]:
    return [value[start : start + PART_BYTES] for start in range(0, len(value), PART_BYTES)]


def pack(changes: Iterable[Change]) -> list[bytes]:
    """Return changes as pieces of bytes, each of which fits a transaction."""
    rows = [(change.table, change.key, change.value if isinstance(change, Put) else None) for change in changes]
    return _pieces(_encode(rows))


def unpack(pieces: Iterable[bytes]) -> list[Change]:
    """Return what was packed; msgspec.DecodeError."""
    return [
        Delete(table, key) if value is None else Put(table, key, value)
        for table, key, value in _decode(b"".join(pieces))
    ]
