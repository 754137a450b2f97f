"""The files of an archive that packs an image, not a root file system: an OCI layout, or what `docker save` writes.

Owns the question which of the two kinds of archive this is, by the names in it alone, and the copy of the packed files
on disk, each with its digest. Knows nothing of what the files say (`oci`).
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from node.host.errors import ArchiveError
from node.host.rootfs_entry import Bounds, Kind, Member, checked_path, shown

FILES_MAX = 4_096
LINKS_MAX = 8
TEXT_BYTES_MAX = 4 * 2**20
OCI_MARK, OCI_INDEX, DOCKER_MANIFEST = "oci-layout", "index.json", "manifest.json"

_HEX = r"(sha256:)?[0-9a-f]{64}"
_PACKED = re.compile(
    rf"{OCI_MARK}|{OCI_INDEX}|{DOCKER_MANIFEST}|repositories|ingest|blobs(/sha256(/[0-9a-f]{{64}})?)?"
    rf"|{_HEX}(\.json|\.config|\.tar|\.tar\.gz|/layer\.tar|/VERSION|/json)?"
)


@dataclass(frozen=True, slots=True)
class PackedFile:
    """One file of the archive, copied to disk."""

    name: str
    path: Path
    digest: str
    size_bytes: int

    def text(self) -> bytes:
        """Return the content of a small file; raises ArchiveError for a large one."""
        if self.size_bytes > TEXT_BYTES_MAX:
            raise ArchiveError(f"{self.name}: {self.size_bytes} bytes of JSON; at most {TEXT_BYTES_MAX} are taken")
        return self.path.read_bytes()


class PackedFiles:
    """What an archive packs, by name."""

    def __init__(self, files: dict[str, PackedFile], links: dict[str, str]) -> None:
        self._files = files
        self._links = links

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def get(self, name: str) -> PackedFile:
        """Return a file, found through the archive's own links; raises ArchiveError if it is not there."""
        at = name
        for _ in range(LINKS_MAX):
            if at in self._files or at not in self._links:
                break
            at = self._links[at]
        if at not in self._files:
            raise ArchiveError(f"{name[:200]!r} is named by the image's manifest, but the archive does not hold it")
        return self._files[at]


def collect(members: Iterable[Member], folder: Path, bounds: Bounds) -> PackedFiles | None:
    """Copy the files of a packed image into a new folder; None as soon as something else turns up in the archive.

    Raises ArchiveError. Names of the archive never become names on disk.
    """
    folder.mkdir(mode=0o700)
    files: dict[str, PackedFile] = {}
    links: dict[str, str] = {}
    room_bytes = bounds.total_bytes_max
    for member in members:
        path = checked_path(member.name, bounds)
        name = path.decode("ascii", "replace")
        if path and not _PACKED.fullmatch(name):
            return None
        if member.kind is Kind.FILE:
            if name in files or name in links:
                raise ArchiveError(f"{shown(path)}: appears twice")
            files[name] = _copied(member, name, folder / str(len(files)), room_bytes)
            room_bytes -= files[name].size_bytes
        elif member.kind in (Kind.SYMLINK, Kind.HARD_LINK):
            links[name] = _target(name, member)
        elif member.kind is not Kind.DIRECTORY:
            return None
        if len(files) + len(links) > FILES_MAX:
            raise ArchiveError(f"a packed image of more than {FILES_MAX} files")
    packed = PackedFiles(files, links)
    return packed if OCI_MARK in packed or DOCKER_MANIFEST in packed else None


def _target(name: str, member: Member) -> str:
    text = member.target.decode("ascii", "replace")
    return text if member.kind is Kind.HARD_LINK else posixpath.normpath(posixpath.join(posixpath.dirname(name), text))


def _copied(member: Member, name: str, path: Path, room_bytes: int) -> PackedFile:
    digest, size_bytes = hashlib.sha256(), 0
    with path.open("xb") as file:
        for chunk in member.content:
            size_bytes += len(chunk)
            if size_bytes > room_bytes:
                raise ArchiveError(f"{name}: the packed image is larger than what is taken")
            digest.update(chunk)
            file.write(chunk)
    return PackedFile(name, path, f"sha256:{digest.hexdigest()}", size_bytes)
