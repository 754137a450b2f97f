"""Builds a root file system on disk from members nobody has checked yet, and the list of what it holds.

The rules, all of them here or in `rootfs_entry`:
- an entry's parents are directories of this same archive, so nothing is ever written through a link;
- a hard link shares the content of an entry that came earlier in this archive;
- no path comes twice, except directories, whose last attributes count;
- devices, fifos and sockets are refused; the eight devices that every Debian /dev holds are left out instead, because
  a container gets a /dev of its own;
- setuid and setgid bits are kept: the programs run in a user namespace, and the store is closed to other users;
- a symlink's text is stored as it is, wherever it points: it is followed inside the container only.

The folder must be private to this process: the checks are made on the list in memory, which is only as good as the
promise that nobody else changes the folder meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.host.errors import ArchiveError, not_stored
from node.host.rootfs_entry import Bounds, Entry, Kind, Member, check_attributes, checked_path, shown

USUAL_DEVICES = {
    b"dev/null": (1, 3),
    b"dev/zero": (1, 5),
    b"dev/full": (1, 7),
    b"dev/random": (1, 8),
    b"dev/urandom": (1, 9),
    b"dev/tty": (5, 0),
    b"dev/console": (5, 1),
    b"dev/ptmx": (5, 2),
}
# What a container gets mounted must exist already: the image is read-only. Part of the image, so of its digest.
MOUNT_DIRECTORIES = {
    b"dev": 0o755,
    b"proc": 0o555,
    b"sys": 0o555,
    b"tmp": 0o1777,
    b"run": 0o755,
    b"mnt": 0o755,
    b"work": 0o755,
    b"var/tmp": 0o1777,
}
MOUNT_FILES = (b"etc/hosts", b"etc/resolv.conf")


@dataclass(slots=True)
class Node:
    """What one or, with hard links, several paths name."""

    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_s: int
    size_bytes: int = 0
    target: bytes = b""
    capability: bytes = b""

    def entry(self, path: bytes, first_path: bytes) -> Entry:
        """Return what is stored for a path; the first path of a hard-linked group carries the content."""
        if path != first_path:
            return Entry(path, Kind.HARD_LINK, self.mode, self.uid, self.gid, self.mtime_s, target=first_path)
        return Entry(
            path, self.kind, self.mode, self.uid, self.gid, self.mtime_s, self.size_bytes, self.target, self.capability
        )


def _node_of(member: Member) -> Node:
    # A symlink's mode means nothing and differs between tools.
    mode = 0o777 if member.kind is Kind.SYMLINK else member.mode & 0o7777
    target = member.target if member.kind is Kind.SYMLINK else b""
    capability = member.capability if member.kind is Kind.FILE else b""
    return Node(member.kind, mode, member.uid, member.gid, member.mtime_s, 0, target, capability)


class RootfsBuilder:
    """Takes members one by one; `finish` returns the entries sorted by path. Blocking: call it from a thread."""

    def __init__(self, folder: Path, bounds: Bounds | None = None, *, privileged: bool | None = None) -> None:
        self._root = os.fsencode(folder)
        self._bounds = bounds or Bounds()
        # Without root, files belong to the user and only the list remembers their owners and special bits.
        self._privileged = os.geteuid() == 0 if privileged is None else privileged
        self._nodes: dict[bytes, Node] = {}
        self._total_bytes = 0
        self._total_entries = 0
        os.mkdir(self._root, 0o700)

    def add(self, member: Member) -> None:
        """Create one entry; raises ArchiveError, after which the whole folder is to be thrown away."""
        self._count_entry(member.name)
        path = checked_path(member.name, self._bounds)
        check_attributes(member)
        if not path and member.kind is not Kind.DIRECTORY:
            raise ArchiveError(f"{shown(member.name)}: the root must be a directory, not a {member.kind.label}")
        usual_device = member.kind is Kind.CHARACTER_DEVICE and USUAL_DEVICES.get(path) == member.device
        if not path or usual_device:
            return
        with naming(member.name):
            self._create_parents(path)
            self._create(path, member)

    def finish(self) -> list[Entry]:
        """Add the mount points that are missing, set the directories' attributes and return what is there."""
        if not self._nodes:
            raise ArchiveError("the archive holds no files")
        self._create_mount_points()
        for path in sorted(self._nodes, reverse=True):
            node = self._nodes[path]
            if node.kind is Kind.DIRECTORY:
                with naming(path):
                    self._set_directory_attributes(path, node)
        os.chmod(self._root, 0o755)  # noqa: S103 - the root of a container's file system; the store around it is closed
        os.utime(self._root, (0, 0))
        return self._entries()

    def _create_parents(self, path: bytes) -> None:
        end = path.find(b"/")
        while end >= 0:
            parent = path[:end]
            node = self._nodes.get(parent)
            if node is None:
                self._count_entry(path)
                self._create(parent, Member(parent, Kind.DIRECTORY))
            elif node.kind is not Kind.DIRECTORY:
                raise ArchiveError(f"{shown(path)}: lies below {shown(parent)}, which is a {node.kind.label}")
            end = path.find(b"/", end + 1)

    def _create(self, path: bytes, member: Member) -> None:
        known = self._nodes.get(path)
        if known is not None and known.kind is Kind.DIRECTORY and member.kind is Kind.DIRECTORY:
            self._keep(path, _node_of(member))
            return
        if known is not None:
            self._make_way(path)
        if member.kind is Kind.DIRECTORY:
            os.mkdir(self._on_disk(path), 0o700)
            self._keep(path, _node_of(member))
        elif member.kind is Kind.FILE:
            self._create_file(path, member)
        elif member.kind is Kind.SYMLINK:
            self._create_symlink(path, member)
        elif member.kind is Kind.HARD_LINK:
            self._create_hard_link(path, member)
        else:
            raise ArchiveError(f"{shown(path)}: is a {member.kind.label}; an image holds none")

    def _make_way(self, path: bytes) -> None:
        """Remove what is at a path, where something else comes now; here, nothing may."""
        raise ArchiveError(f"{shown(path)}: appears twice; an archive with overwritten entries is not taken")

    def _keep(self, path: bytes, node: Node) -> None:
        self._nodes[path] = node

    def _create_file(self, path: bytes, member: Member) -> None:
        node = _node_of(member)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        file_fd = os.open(self._on_disk(path), flags, 0o600)
        try:
            for chunk in member.content:
                self._count_bytes(path, len(chunk))
                node.size_bytes += len(chunk)
                _write_all(file_fd, chunk)
            self._set_file_attributes(file_fd, node)
        finally:
            os.close(file_fd)
        self._keep(path, node)

    def _count_entry(self, name: bytes) -> None:
        self._total_entries += 1
        if self._total_entries > self._bounds.entries_max:
            raise ArchiveError(f"{shown(name)}: more than {self._bounds.entries_max} entries")

    def _count_bytes(self, path: bytes, count: int) -> None:
        self._total_bytes += count
        if self._total_bytes > self._bounds.total_bytes_max:
            most = self._bounds.total_bytes_max
            raise ArchiveError(f"{shown(path)}: more than {most} bytes of files in all (images.disk_bytes_max)")

    def _set_file_attributes(self, file_fd: int, node: Node) -> None:
        if self._privileged:
            os.fchown(file_fd, node.uid, node.gid)
            os.fchmod(file_fd, node.mode)
            if node.capability:
                os.setxattr(file_fd, "security.capability", node.capability)
        else:
            os.fchmod(file_fd, node.mode & 0o777 | 0o400)
        os.utime(file_fd, (node.mtime_s, node.mtime_s))

    def _create_symlink(self, path: bytes, member: Member) -> None:
        if not 0 < len(member.target) <= self._bounds.path_bytes_max or b"\0" in member.target:
            raise ArchiveError(
                f"{shown(path)}: a symlink's target has 1 to {self._bounds.path_bytes_max} bytes and no NUL"
            )
        node = _node_of(member)
        on_disk = self._on_disk(path)
        os.symlink(node.target, on_disk)
        if self._privileged:
            os.chown(on_disk, node.uid, node.gid, follow_symlinks=False)
        os.utime(on_disk, (node.mtime_s, node.mtime_s), follow_symlinks=False)
        self._keep(path, node)

    def _create_hard_link(self, path: bytes, member: Member) -> None:
        target = checked_path(member.target, self._bounds)
        node = self._nodes.get(target)
        if node is None or node.kind is Kind.DIRECTORY:
            found = "is a directory" if node else "is no earlier entry of the archive"
            raise ArchiveError(f"{shown(path)}: a hard link to {shown(member.target)}, which {found}")
        os.link(self._on_disk(target), self._on_disk(path), follow_symlinks=False)
        self._keep(path, node)

    def _set_directory_attributes(self, path: bytes, node: Node) -> None:
        on_disk = self._on_disk(path)
        if self._privileged:
            os.chown(on_disk, node.uid, node.gid, follow_symlinks=False)
        os.chmod(on_disk, node.mode if self._privileged else node.mode & 0o1777 | 0o700)
        os.utime(on_disk, (node.mtime_s, node.mtime_s))

    def _create_mount_points(self) -> None:
        for path, mode in MOUNT_DIRECTORIES.items():
            node = self._nodes.get(path)
            if node is None:
                self.add(Member(path, Kind.DIRECTORY, mode))
            elif node.kind is not Kind.DIRECTORY:
                raise ArchiveError(
                    f"{shown(path)}: is a {node.kind.label}; it must be a directory, containers get a mount there"
                )
        for path in MOUNT_FILES:
            node = self._nodes.get(path)
            if node is not None and node.kind is Kind.SYMLINK:
                # Usual for resolv.conf, and nothing could be mounted there.
                os.unlink(self._on_disk(path))
                del self._nodes[path]
                node = None
            if node is None:
                self.add(Member(path, Kind.FILE, 0o644))
            elif node.kind is not Kind.FILE:
                raise ArchiveError(f"{shown(path)}: is a {node.kind.label}; it must be a file")

    def _entries(self) -> list[Entry]:
        first_path: dict[int, bytes] = {}
        entries = []
        for path in sorted(self._nodes):
            node = self._nodes[path]
            first = first_path.setdefault(id(node), path)
            entries.append(node.entry(path, first))
        return entries

    def _on_disk(self, path: bytes) -> bytes:
        return self._root + b"/" + path


def _write_all(file_fd: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(file_fd, view) :]


@contextmanager
def naming(name: bytes) -> Iterator[None]:
    """Turn the operating system's refusal into one that names the entry."""
    try:
        yield
    except OSError as error:
        raise not_stored(shown(name), error) from error
