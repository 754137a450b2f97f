"""Copies files into and out of a container as a tar stream, from inside the container's own mount namespace.

Run as `python -I -S inside.py PID GROUP get|put PATH`: PID is the container's first process and GROUP a part of its
control group's path, checked once its namespaces are held; or as `inside.py 0 get|put PATH`, for this very host. What
the container makes of its links and mounts can lead to nothing but its own files, for there is nothing else to see.

The standard library alone, all of it loaded before the namespaces change: afterwards nothing may be imported, nor may
the C library load its name service modules, for they would be the container's. Hence users and groups by number only.
"""

import ctypes
import os
import stat
import sys
import tarfile
from typing import Any

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
PR_SET_DUMPABLE, PR_SET_PDEATHSIG, SIGKILL = 4, 1, 9
BLOCK_BYTES = 64 * 1024
AS_IT_IS: dict[str, Any] = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}
"""Without set-id bits, where Python has filters (3.11.4); before, the container's own root gets what it was sent."""


def enter(pid: int, group: str) -> None:
    """Join the user and mount namespaces of a container, as its root user."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    held = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), kind) for name, kind in KINDS]
    with open(f"/proc/{pid}/cgroup") as file:
        if group not in file.read():
            raise ProcessLookupError("the container has ended")
    for descriptor, kind in held:
        own = os.stat(f"/proc/self/ns/{'user' if kind == CLONE_NEWUSER else 'mnt'}")
        if os.fstat(descriptor).st_ino != own.st_ino and libc.setns(descriptor, kind) < 0:
            raise OSError(ctypes.get_errno(), "cannot join the container")
        os.close(descriptor)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


KINDS = (("user", CLONE_NEWUSER), ("mnt", CLONE_NEWNS))


def get(path: str) -> None:
    """Write what is at the path, a folder with all below it, as a tar whose entries begin with the path's last part."""
    source = path.rstrip("/") or "/"
    kind = stat.S_IFMT(os.lstat(source).st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        raise OSError("neither a file nor a folder")
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", bufsize=BLOCK_BYTES, format=tarfile.PAX_FORMAT) as tar:
        tar.add(source, arcname=os.path.basename(source) or ".", filter=_copied)


def _copied(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Files, folders and links; sockets, pipes and devices have no content to copy."""
    return entry if entry.isreg() or entry.isdir() or entry.issym() or entry.islnk() else None


def put(path: str) -> None:
    """Take a tar with one entry at its top: into the folder at the path, or else in the path's place."""
    folder, name = (path, "") if _is_folder(path) or path.endswith("/") else os.path.split(path)
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|", bufsize=BLOCK_BYTES) as tar:
        for entry in tar:
            if name:
                _, slash, below = entry.name.partition("/")
                entry.name = name + slash + below
            _make_way(os.path.join(folder, entry.name), entry)
            tar.extract(entry, folder or "/", **AS_IT_IS)


def _make_way(path: str, entry: tarfile.TarInfo) -> None:
    """What is copied takes a link's place, wherever that leads."""
    if os.path.islink(path) and not entry.isdir():
        os.unlink(path)


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        return False


def main(words: list[str]) -> int:
    pid = int(words.pop(0))
    try:
        os.umask(0o022)
        tarfile.pwd = tarfile.grp = None  # type: ignore[attr-defined]
        if pid:
            enter(pid, words.pop(0))
        {"get": get, "put": put}[words[0]](words[1])
        sys.stdout.buffer.flush()
    except (OSError, tarfile.TarError) as error:
        print(f"{words[-1]}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
