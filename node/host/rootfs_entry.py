"""The nouns of a root file system: what a source tells (Member), what is stored (Entry), and the bounds on both.

Pure values. Names are bytes throughout: a file name need not be text.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from node.host.errors import ArchiveError

CAPABILITY_BYTES_MAX = 64
MTIME_S_MAX = 2**40
ID_MAX = 2**32 - 2  # the last one means "leave it" to chown


class Kind(enum.IntEnum):
    """What an entry is. Only the first four are ever stored."""

    FILE = 0
    HARD_LINK = 1
    SYMLINK = 2
    DIRECTORY = 5
    CHARACTER_DEVICE = 3
    BLOCK_DEVICE = 4
    FIFO = 6
    SOCKET = 7

    @property
    def label(self) -> str:
        """The kind in words."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large a root file system may be: what keeps a bomb from filling disk or memory."""

    entries_max: int = 500_000
    total_bytes_max: int = 64 * 2**30
    path_bytes_max: int = 1024
    depth_max: int = 100
    ratio_max: int = 200
    """Unpacked bytes for each packed one, enforced from `ratio_free_bytes` on."""
    ratio_free_bytes: int = 256 * 2**20


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One stored entry; `path` is relative, without "." or "..", and unique."""

    path: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_s: int
    size_bytes: int = 0
    target: bytes = b""
    """A symlink's text, or the path of the entry that a hard link shares its content with."""
    capability: bytes = b""
    """The extended attribute security.capability; no other attribute is kept."""


@dataclass(slots=True)
class Member:
    """One entry as its source tells it: nothing in it is checked yet."""

    name: bytes
    kind: Kind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime_s: int = 0
    size_bytes: int = 0
    target: bytes = b""
    capability: bytes = b""
    device: tuple[int, int] = (0, 0)
    content: Iterator[bytes] = field(default_factory=lambda: iter(()))


def shown(name: bytes) -> str:
    """Return a name as it may stand in a message: on one line, whatever it holds, and not endless."""
    text = name.decode("utf-8", "backslashreplace")
    text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return f"'{text}'" if len(text) <= 120 else f"'{text[:100]}...'"


def checked_path(name: bytes, bounds: Bounds) -> bytes:
    """Return the path that a name means, b"" for the root itself.

    A leading "./", doubled slashes and a trailing slash are harmless and dropped. A leading slash and ".." are
    refused: no tool that writes a root file system produces them, so somebody means harm or packed the wrong thing.
    """
    if name.startswith(b"/"):
        raise ArchiveError(f"{shown(name)}: an absolute path; entries must be relative to the root file system")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ArchiveError(f"{shown(name)}: '..' in a path; entries must stay inside the root file system")
    if b"\0" in name:
        raise ArchiveError(f"{shown(name)}: a NUL in a path")
    path = b"/".join(parts)
    if len(path) > bounds.path_bytes_max or len(parts) > bounds.depth_max or any(len(part) > 255 for part in parts):
        raise ArchiveError(
            f"{shown(name)}: the path is too long; at most {bounds.path_bytes_max} bytes,"
            f" {bounds.depth_max} levels and 255 bytes a name are taken"
        )
    return path


def check_attributes(member: Member) -> None:
    """Raise ArchiveError for numbers that no file can have."""
    if not (0 <= member.uid <= ID_MAX and 0 <= member.gid <= ID_MAX):
        raise ArchiveError(f"{shown(member.name)}: owner {member.uid}:{member.gid} is out of range")
    if abs(member.mtime_s) > MTIME_S_MAX:
        raise ArchiveError(f"{shown(member.name)}: modification time {member.mtime_s} is out of range")
    if len(member.capability) > CAPABILITY_BYTES_MAX:
        raise ArchiveError(f"{shown(member.name)}: security.capability of {len(member.capability)} bytes")
