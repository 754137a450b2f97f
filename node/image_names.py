"""What an image's name means in the cluster: a last-writer-wins map from NAME:TAG to a digest.

Every node keeps the whole map. A name that is given again gets a higher version, so that the newest import wins
everywhere, whatever the order in which nodes hear of it; a removed name stays as a tombstone until a bound pushes the
oldest ones out. Versions are milliseconds of the importing node's clock, raised above what it already knows.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

NAMES_MAX = 10_000


class NamedImage(msgspec.Struct, frozen=True, array_like=True):
    """One name's newest meaning; an empty digest says that the name was removed."""

    name: str
    digest: str
    version: int
    size_bytes: int = 0


_decode = msgspec.msgpack.Decoder(list[NamedImage]).decode


def decode(data: bytes) -> list[NamedImage]:
    """Read what `encode` wrote; ValueError for anything else."""
    return _decode(data)


def encode(entries: Iterable[NamedImage]) -> bytes:
    """Return entries as bytes for another node or the disk."""
    return msgspec.msgpack.encode(list(entries))


class ImageNames:
    """One node's copy of the map, kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries = {entry.name: entry for entry in decode(path.read_bytes())} if path.exists() else {}

    def digest(self, name: str) -> str | None:
        """Return the digest a name means now, None for an unknown or removed one."""
        entry = self._entries.get(name)
        return entry.digest or None if entry else None

    def entries(self) -> list[NamedImage]:
        """Return everything that is known, tombstones included."""
        return list(self._entries.values())

    def give(self, name: str, digest: str, size_bytes: int, unix_ms: int) -> NamedImage:
        """Make a name mean this digest (or nothing, for an empty one) from now on; return the new entry."""
        known = self._entries.get(name)
        entry = NamedImage(name, digest, max(unix_ms, known.version + 1 if known else 0), size_bytes)
        self.merge([entry])
        return entry

    def merge(self, entries: Iterable[NamedImage]) -> list[NamedImage]:
        """Take over what is newer; return those entries."""
        newer = [entry for entry in entries if self._supersedes(entry)]
        if newer:
            self._entries.update({entry.name: entry for entry in newer})
            self._prune()
            self._write()
        return newer

    def _supersedes(self, entry: NamedImage) -> bool:
        known = self._entries.get(entry.name)
        return known is None or (entry.version, entry.digest) > (known.version, known.digest)

    def _prune(self) -> None:
        surplus = len(self._entries) - NAMES_MAX
        if surplus > 0:
            oldest = sorted(self._entries.values(), key=lambda entry: (entry.digest != "", entry.version))
            for entry in oldest[:surplus]:
                del self._entries[entry.name]

    def _write(self) -> None:
        temporary = self._path.with_suffix(".new")
        with temporary.open("wb") as file:
            file.write(encode(self._entries.values()))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
