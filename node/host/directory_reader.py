"""Reads a directory as members, like TarReader reads a tar: never through a link, attributes as they are on disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from node.host.errors import ArchiveError
from node.host.rootfs_entry import Bounds, Kind, Member, shown

_CHUNK_BYTES = 256 * 1024
_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHARACTER_DEVICE,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
}
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class DirectoryReader:
    """One pass over one directory tree. Blocking."""

    def __init__(self, folder: Path, bounds: Bounds, pulse: Callable[[], None] = lambda: None) -> None:
        self._folder = folder
        self._bounds = bounds
        self._pulse = pulse
        self._linked: dict[tuple[int, int], bytes] = {}

    def members(self) -> Iterator[Member]:
        """Yield every entry below the folder, parents first; a file's content must be read before the next entry."""
        # Folders are opened one within the other, so that nobody can slip a link in between.
        folder_fd = os.open(self._folder, _FOLDER_FLAGS)
        try:
            yield from self._walk(folder_fd, b"", depth=1)
        finally:
            os.close(folder_fd)

    def _walk(self, folder_fd: int, prefix: bytes, depth: int) -> Iterator[Member]:
        if depth > self._bounds.depth_max:
            raise ArchiveError(f"{shown(prefix)}: more than {self._bounds.depth_max} levels deep")
        for name in sorted(os.fsencode(name) for name in os.listdir(folder_fd)):
            self._pulse()
            path = prefix + name
            try:
                yield from self._entry(folder_fd, name, path, depth)
            except OSError as error:
                raise ArchiveError(f"{shown(path)}: {error.strerror}") from error

    def _entry(self, folder_fd: int, name: bytes, path: bytes, depth: int) -> Iterator[Member]:
        status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
        member = _member(path, status)
        earlier = self._earlier_path(path, status)
        if member.kind is Kind.DIRECTORY:
            yield member
            yield from self._below(folder_fd, name, path, depth)
        elif earlier != path:
            yield Member(path, Kind.HARD_LINK, target=earlier)
        elif member.kind is Kind.FILE:
            yield from self._file(folder_fd, name, path)
        else:
            if member.kind is Kind.SYMLINK:
                member.target = os.readlink(name, dir_fd=folder_fd)
            yield member

    def _earlier_path(self, path: bytes, status: os.stat_result) -> bytes:
        """Return the path under which this content was seen first, `path` itself if it is new."""
        if status.st_nlink == 1:
            return path
        return self._linked.setdefault((status.st_dev, status.st_ino), path)

    def _below(self, folder_fd: int, name: bytes, path: bytes, depth: int) -> Iterator[Member]:
        below_fd = os.open(name, _FOLDER_FLAGS, dir_fd=folder_fd)
        try:
            yield from self._walk(below_fd, path + b"/", depth + 1)
        finally:
            os.close(below_fd)

    def _file(self, folder_fd: int, name: bytes, path: bytes) -> Iterator[Member]:
        file_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder_fd)
        try:
            member = _member(path, os.fstat(file_fd))
            member.content = _chunks(file_fd, self._pulse)
            member.capability = _capability(file_fd)
            yield member
        finally:
            os.close(file_fd)


def _member(path: bytes, status: os.stat_result) -> Member:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        raise ArchiveError(f"{shown(path)}: is of an unknown kind")
    return Member(
        name=path,
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_s=status.st_mtime_ns // 1_000_000_000,
        size_bytes=status.st_size,
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)),
    )


def _chunks(file_fd: int, pulse: Callable[[], None]) -> Iterator[bytes]:
    while chunk := os.read(file_fd, _CHUNK_BYTES):
        pulse()
        yield chunk


def _capability(file_fd: int) -> bytes:
    try:
        return os.getxattr(file_fd, "security.capability")
    except OSError:
        # Absent, or the file system has no such attributes: both mean that there is none.
        return b""
