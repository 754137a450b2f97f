"""What an image's name means in the cluster: a last-writer-wins map from NAME:TAG to a digest.

Every node keeps the whole map. A name that is given again gets a higher version, so that the newest import wins
everywhere, whatever the order in which nodes hear of it; a removed name stays as a tombstone until a bound pushes the
oldest ones out. Versions are milliseconds of the importing node's clock, raised above what it already knows.
What is known changes in memory at once; `keep` makes it durable, in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import trio

from node.host.durable_file import write_durably
from node.host.errors import HostError, ImageError
from node.host.image_name import is_digest, parse_image_name

NAMES_MAX = 10_000
VERSION_MAX = 1 << 53


class NamedImage(msgspec.Struct, frozen=True, array_like=True):
    """One name's newest meaning; an empty digest says that the name was removed."""

    name: str
    digest: str
    version: int
    size_bytes: int = 0

    @property
    def sound(self) -> bool:
        """Whether this is something that a node could have said: others' errors must not spread."""
        try:
            named = str(parse_image_name(self.name)) == self.name
        except ImageError:
            return False
        return named and (not self.digest or is_digest(self.digest)) and 0 <= self.version <= VERSION_MAX


_decode = msgspec.msgpack.Decoder(list[NamedImage]).decode


def decode(data: bytes) -> list[NamedImage]:
    """Read what `encode` wrote, less what no node would say; ValueError for anything else."""
    return [entry for entry in _decode(data) if entry.sound]


def encode(entries: Iterable[NamedImage]) -> bytes:
    """Return entries as bytes for another node or the disk."""
    return msgspec.msgpack.encode(list(entries))


class ImageNames:
    """One node's copy of the map, kept in a file; HostError for a damaged one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries = _read(path)
        self._kept = True
        self._keeping = trio.Lock()

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
        newer: dict[str, NamedImage] = {}
        for entry in entries:
            if self._supersedes(entry):
                self._entries[entry.name] = newer[entry.name] = entry
        if newer:
            self._kept = False
            self._prune()
        return list(newer.values())

    async def keep(self) -> None:
        """Make what is known now durable, if it is not; OSError."""
        async with self._keeping:
            if not self._kept:
                self._kept = True
                try:
                    await trio.to_thread.run_sync(write_durably, self._path, encode(self._entries.values()))
                except BaseException:
                    self._kept = False
                    raise

    def by_digest(self) -> dict[str, list[str]]:
        """Return the names of each digest that has any."""
        found: dict[str, list[str]] = {}
        for entry in sorted(self._entries.values(), key=lambda entry: entry.name):
            if entry.digest:
                found.setdefault(entry.digest, []).append(entry.name)
        return found

    def means(self, digest: str) -> bool:
        """Whether any name means this digest."""
        return any(entry.digest == digest for entry in self._entries.values())

    def _supersedes(self, entry: NamedImage) -> bool:
        known = self._entries.get(entry.name)
        return known is None or (entry.version, entry.digest) > (known.version, known.digest)

    def _prune(self) -> None:
        surplus = len(self._entries) - NAMES_MAX
        if surplus > 0:
            oldest = sorted(self._entries.values(), key=lambda entry: (entry.digest != "", entry.version))
            for entry in oldest[:surplus]:
                del self._entries[entry.name]


def _read(path: Path) -> dict[str, NamedImage]:
    try:
        return {entry.name: entry for entry in decode(path.read_bytes())}
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise HostError(f"{path} is damaged ({error}); remove it: names come back from other nodes") from None
