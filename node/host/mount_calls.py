"""The system calls of mounts by descriptor: openat2(2), open_tree(2), mount_setattr(2), move_mount(2), umount2(2).

Owns their numbers and flags (the same on every architecture), and the words for their refusals. May not know: what is
mounted where and why. Raw calls, for util-linux learned them late and Python has none of them (Linux 5.12 and later).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path

_OPEN_TREE, _MOVE_MOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 437, 442
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH, _MNT_DETACH, _UMOUNT_NOFOLLOW = 4, 2, 8
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x02, 0x04, 0x08

RDONLY, NOSUID, NODEV, IDMAP = 0x1, 0x2, 0x4, 0x100000
"""Attributes of a mount."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class MountError(Exception):
    """The kernel refused: names the directory, the step and the kernel's reason."""


def open_beneath(directory: int, path: str, *, follow: bool = True) -> int:
    """A descriptor (O_PATH) of a directory at `path` below the directory, wherever its links lead as long as they stay
    below; of none with a link in it unless `follow`. Raises OSError: EXDEV or ELOOP for one that leads out."""
    resolve = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS | (0 if follow else _RESOLVE_NO_SYMLINKS)
    how = ctypes.create_string_buffer(struct.pack("QQQ", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, resolve), 24)
    while True:
        found = _syscall(_OPENAT2, directory, os.fsencode(path), how, 24)
        if found >= 0:
            return found
        # EAGAIN: something was renamed meanwhile, and the kernel can't vouch for the way.
        if (number := ctypes.get_errno()) != errno.EAGAIN:
            raise OSError(number, os.strerror(number), path)


def attach(source: int, shown: str, target: Path, attributes: int, namespace: int = 0) -> None:
    """Mount the directory behind a descriptor at `target`, idmapped by a user namespace's descriptor if there is one.
    Whatever happens to its path meanwhile: it is this directory and no other. Raises MountError."""
    tree = _checked("open", shown, _OPEN_TREE, source, b"", _AT_EMPTY_PATH | _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC)
    try:
        wanted = attributes | (IDMAP if namespace else 0)
        packed = ctypes.create_string_buffer(struct.pack("QQQQ", wanted, 0, 0, namespace), 32)
        _checked("idmap", shown, _MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, packed, 32)
        _checked("attach", shown, _MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)


def detach(target: Path) -> None:
    """Unmount what is mounted there, if anything is; what runs on it keeps its own hold. Raises MountError."""
    if _libc.umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOENT):  # no mount there
            raise MountError(f"cannot unmount {target}: {os.strerror(number)}")


def mount(kind: str, target: Path, options: str = "") -> None:
    """Mount a new file system without a device. Raises MountError."""
    words = [os.fsencode(word) for word in (kind, target, kind)]
    if _libc.mount(*words, ctypes.c_ulong(NOSUID | NODEV), os.fsencode(options)) != 0:
        raise MountError(f"cannot mount {kind} at {target}: {os.strerror(ctypes.get_errno())}")


def _checked(step: str, shown: str, number: int, *arguments: object) -> int:
    result = _syscall(number, *arguments)
    if result < 0:
        raise MountError(f"cannot {step} {shown} for its containers: {os.strerror(ctypes.get_errno())}")
    return result


def _syscall(number: int, *arguments: object) -> int:
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return int(_libc.syscall(ctypes.c_long(number), *converted))
