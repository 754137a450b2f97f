"""Idmapped read-only mounts: one image's files, owned by root on disk, appear as owned by a range of host ids.

Owns: the directory of such mounts, one for each (directory, first id), shared by all containers of that range.
May not know: containers, LXC. Raw system calls (open_tree, mount_setattr, move_mount; Linux 5.12 and later), since
util-linux learned them late. A mount lives in the agent's mount namespace; `ensure` makes it anew where it is missing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NODEV, MOUNT_ATTR_IDMAP = 0x1, 0x4, 0x100000
MOVE_MOUNT_F_EMPTY_PATH, MNT_DETACH = 4, 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class MountError(Exception):
    """The kernel refused: names the directory, the step and the kernel's reason."""


class IdmappedMounts:
    """Mounts below one directory, made when first asked for."""

    def __init__(self, directory: Path, width: int) -> None:
        self._directory = directory
        self._width = width

    def path(self, source: Path, first_id: int) -> Path:
        status = source.stat()
        return self._directory / f"{status.st_dev:x}-{status.st_ino:x}-{first_id}"

    def ensure(self, source: Path, first_id: int) -> Path:
        """The mount of source for ids first_id and up. Blocks for some milliseconds when it has to be made.
        Raises MountError, FileNotFoundError."""
        target = self.path(source, first_id)
        if not is_mounted(target, source):
            target.mkdir(parents=True, exist_ok=True)
            target.parent.chmod(0o711)  # whatever the agent's umask is: mapped roots walk through
            namespace = _user_namespace(first_id, self._width)
            try:
                _mount(source, target, namespace)
            finally:
                os.close(namespace)
        return target

    def release(self, source: Path) -> None:
        """Unmounts the source's mounts; what runs on them keeps its own hold."""
        status = source.stat()
        for target in self._directory.glob(f"{status.st_dev:x}-{status.st_ino:x}-*"):
            _unmount(target)

    def release_all(self) -> None:
        for target in self._directory.glob("*"):
            _unmount(target)
        with suppress(OSError):
            self._directory.rmdir()


def is_mounted(target: Path, source: Path) -> bool:
    try:
        there, wanted = target.stat(), source.stat()
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino)


def _unmount(target: Path) -> None:
    if _libc.umount2(os.fsencode(target), MNT_DETACH) != 0 and ctypes.get_errno() != errno.EINVAL:
        raise MountError(f"cannot unmount {target}: {os.strerror(ctypes.get_errno())}")  # EINVAL: no mount there
    with suppress(OSError):
        target.rmdir()


def _user_namespace(first_id: int, width: int) -> int:
    """A descriptor of a user namespace that maps 0.. to first_id... Its only process is ended again; a helper
    program and no fork, for the agent has threads."""
    with subprocess.Popen(
        ["unshare", "--user", "--", "sh", "-c", "echo; read line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as helper:
        assert helper.stdout is not None, "asked for above"
        helper.stdout.readline()
        try:
            for file in ("uid_map", "gid_map"):
                Path(f"/proc/{helper.pid}/{file}").write_text(f"0 {first_id} {width}\n")
            return os.open(f"/proc/{helper.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise MountError(f"cannot map ids from {first_id}: {error.strerror}") from error


def _mount(source: Path, target: Path, namespace: int) -> None:
    tree = _call("open", source, OPEN_TREE, AT_FDCWD, os.fsencode(source), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
    try:
        flags = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_IDMAP
        attributes = ctypes.create_string_buffer(struct.pack("QQQQ", flags, 0, 0, namespace))
        _call("idmap", source, MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, attributes, 32)
        _call("attach", source, MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)


def _call(step: str, source: Path, number: int, *arguments: object) -> int:
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *converted))
    if result < 0:
        raise MountError(f"cannot {step} {source} for its containers: {os.strerror(ctypes.get_errno())}")
    return result
