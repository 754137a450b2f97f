"""State: what every node says about itself, as versioned keys that only the owner writes.

Owns the values of all nodes, their versions and digests. It knows nothing of who is alive, packets or timers. After
Scuttlebutt (van Renesse, Dumitriu, Gough, Thomas 2008): an owner numbers its writes, the newest version of a key
wins, and replicas that compare digests exchange only what differs. Versions count within one boot of the owner; a
newer boot replaces everything. A deleted key stays as a version without value until the next boot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from operator import xor
from typing import Final

from cluster.config import ENTRY_BYTES_MAX, KEY_CHARS_MAX, STATE_BYTES_MAX, STATE_KEYS_MAX
from cluster.errors import InvalidState
from cluster.wire import BUCKETS_MAX, Entry


class _Owner:
    __slots__ = ("boot_epoch", "digest", "entries")

    def __init__(self, boot_epoch: int) -> None:
        self.boot_epoch = boot_epoch
        self.entries: dict[str, Entry] = {}
        self.digest = 0


def _digest(name: str, boot_epoch: int, entry: Entry) -> int:
    text = f"{name} {boot_epoch} {entry.key} {entry.version}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def _size(entries: Mapping[str, Entry]) -> int:
    return sum(len(entry.key) + len(entry.value or b"") for entry in entries.values())


class StateStore:
    """The state of all nodes, this one included; bounded by members x (STATE_KEYS_MAX, STATE_BYTES_MAX)."""

    def __init__(self) -> None:
        self._owners: dict[str, _Owner] = {}

    def values(self, name: str) -> Mapping[str, bytes]:
        """Return a node's keys and values; empty for one never heard."""
        owner = self._owners.get(name)
        if owner is None:
            return {}
        return {entry.key: entry.value for entry in owner.entries.values() if entry.value is not None}

    def entries(self, name: str) -> tuple[Entry, ...]:
        """Return a node's entries with versions, deleted ones included."""
        owner = self._owners.get(name)
        return () if owner is None else tuple(owner.entries.values())

    def digest(self, name: str) -> int:
        """Return 63 bits that differ whenever two stores hold different versions of the node's state."""
        owner = self._owners.get(name)
        return 0 if owner is None else owner.digest

    def write(self, name: str, boot_epoch: int, key: str, value: bytes | None) -> Entry | None:
        """Write a key of the own state; None when it already has that value. Errors: InvalidState."""
        if not 1 <= len(key) <= KEY_CHARS_MAX:
            raise InvalidState(f"state key: {key[:80]!r} is not valid; use 1 to {KEY_CHARS_MAX} characters")
        owner = self._owners.setdefault(name, _Owner(boot_epoch))
        present = owner.entries.get(key)
        if (present.value if present is not None else None) == value:
            return None
        version = 1 + max((entry.version for entry in owner.entries.values()), default=0)
        entry = Entry(key, version, value)
        self._check_room(owner, entry)
        self._put(name, owner, entry)
        return entry

    def merge(self, name: str, boot_epoch: int, entries: tuple[Entry, ...]) -> list[Entry]:
        """Take in what is newer of another node's state and return just that; an older boot's writes are ignored."""
        owner = self._owners.get(name)
        if owner is None or owner.boot_epoch < boot_epoch:
            owner = self._owners[name] = _Owner(boot_epoch)
        elif owner.boot_epoch > boot_epoch:
            return []
        news: list[Entry] = []
        for entry in entries:
            present = owner.entries.get(entry.key)
            if (present is None or present.version < entry.version) and self._fits(owner, entry):
                self._put(name, owner, entry)
                news.append(entry)
        return news

    def rebase(self, name: str, boot_epoch: int) -> None:
        """Move the own state to another boot, keeping values and versions."""
        old = self._owners.get(name)
        if old is not None:
            owner = self._owners[name] = _Owner(boot_epoch)
            for entry in old.entries.values():
                self._put(name, owner, entry)

    def forget(self, name: str) -> tuple[str, ...]:
        """Drop a node's state; return the keys that had a value."""
        keys = tuple(self.values(name))
        self._owners.pop(name, None)
        return keys

    @staticmethod
    def _put(name: str, owner: _Owner, entry: Entry) -> None:
        present = owner.entries.get(entry.key)
        if present is not None:
            owner.digest ^= _digest(name, owner.boot_epoch, present)
        owner.digest ^= _digest(name, owner.boot_epoch, entry)
        owner.entries[entry.key] = entry

    @staticmethod
    def _fits(owner: _Owner, entry: Entry) -> bool:
        # A peer that breaks the bound loses the write, not our memory. Replacing may pass in any order of arrival,
        # hence the factor: an honest owner's keys may overlap while old and new values mix.
        if entry.key not in owner.entries and len(owner.entries) >= STATE_KEYS_MAX:
            return False
        return _size(owner.entries) + len(entry.key) + len(entry.value or b"") <= 2 * STATE_BYTES_MAX

    @staticmethod
    def _check_room(owner: _Owner, entry: Entry) -> None:
        after = {**owner.entries, entry.key: entry}
        if len(after) > STATE_KEYS_MAX:
            raise InvalidState(f"state key {entry.key!r}: would be one more than the {STATE_KEYS_MAX} keys a node has")
        if _size({entry.key: entry}) > ENTRY_BYTES_MAX:
            raise InvalidState(f"state key {entry.key!r}: with its value, at most {ENTRY_BYTES_MAX} bytes")
        if _size(after) > STATE_BYTES_MAX:
            raise InvalidState(
                f"state value of {entry.key!r}: would make {_size(after)} bytes of state; a node has {STATE_BYTES_MAX}"
            )


class Buckets:
    """Digests of the whole table in BUCKETS_MAX buckets, kept up to date by exclusive-or, folded to fewer on demand."""

    COUNT: Final = BUCKETS_MAX

    def __init__(self) -> None:
        self._digests: dict[int, int] = {}
        self._buckets = [0] * self.COUNT
        self.root = 0

    def put(self, short_id: int, digest: int) -> None:
        """Put in or replace a member's digest; 0 takes it out."""
        change = self._digests.get(short_id, 0) ^ digest
        if digest:
            self._digests[short_id] = digest
        else:
            self._digests.pop(short_id, None)
        self._buckets[short_id % self.COUNT] ^= change
        self.root ^= change

    def get(self, short_id: int) -> int:
        """Return a member's digest, 0 for one that isn't in."""
        return self._digests.get(short_id, 0)

    def fold(self, count: int) -> tuple[int, ...]:
        """Return the digests of `count` (a power of two, at most COUNT) buckets."""
        folded = self._buckets
        while len(folded) > count:
            half = len(folded) // 2
            folded = list(map(xor, folded[:half], folded[half:]))
        return tuple(folded)

    def members(self, count: int, buckets: set[int]) -> list[tuple[int, int]]:
        """Return (short id, digest) of the members in some of `count` buckets."""
        return [item for item in self._digests.items() if item[0] % count in buckets]
