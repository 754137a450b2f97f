"""Makes the lab's image: one static busybox, a link for each of its commands, and nothing to download.

Two hosts with the same busybox build the same image, digest included.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

from node.host.errors import HostError

BUSYBOX_PATHS = (Path("/bin/busybox"), Path("/usr/bin/busybox"), Path("/usr/lib/busybox/busybox"))
INIT_LXC_PATH = Path("/usr/sbin/init.lxc.static")
_FOLDERS = ("bin", "sbin", "usr/bin", "usr/sbin", "etc", "root", "dev", "proc", "sys", "run", "mnt", "work", "home")
_OPEN_FOLDERS = ("tmp", "var/tmp")
_ETC_FILES = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
    "hosts": "",
    "resolv.conf": "",
}
_PROGRAM_INTERPRETER = 3  # ELF's PT_INTERP: a dynamically linked program has one


def build_busybox_rootfs(dest: Path) -> None:
    """Create `dest` with a root file system of a few MB.

    Raises HostError if this host has no static busybox, or `dest` exists.
    """
    busybox = _find_static_busybox()
    listed = subprocess.run([busybox, "--list-full"], check=True, capture_output=True, text=True, timeout=10)
    try:
        dest.mkdir(parents=True)
    except FileExistsError:
        raise HostError(f"{dest} exists already; name a new directory for the busybox image") from None
    _make_folders(dest)
    _copy_program(busybox, dest / "bin/busybox")
    for command in listed.stdout.split():
        _link_command(dest, command)
    if INIT_LXC_PATH.exists():
        _copy_program(INIT_LXC_PATH, dest / "sbin/init.lxc.static")
    for name, text in _ETC_FILES.items():
        (dest / "etc" / name).write_text(text)
    _forget_times(dest)


def _find_static_busybox() -> Path:
    found = [path for path in BUSYBOX_PATHS if path.exists()]
    for path in found:
        if _is_static(path):
            return path
    problem = f"{found[0]} is linked dynamically" if found else "this host has no busybox"
    raise HostError(f"{problem}, but the built-in image needs a static one; install the package busybox-static")


def _is_static(path: Path) -> bool:
    """Say whether an ELF program needs no interpreter, so that it runs in an otherwise empty root."""
    content = path.read_bytes()
    if content[:4] != b"\x7fELF":
        return False
    order = "<" if content[5] == 1 else ">"
    if content[4] == 2:  # 64 bits
        (table,) = struct.unpack_from(order + "Q", content, 32)
        entry_bytes, count = struct.unpack_from(order + "HH", content, 54)
    else:
        (table,) = struct.unpack_from(order + "I", content, 28)
        entry_bytes, count = struct.unpack_from(order + "HH", content, 42)
    kinds = (struct.unpack_from(order + "I", content, table + index * entry_bytes)[0] for index in range(count))
    return _PROGRAM_INTERPRETER not in kinds


def _make_folders(dest: Path) -> None:
    for name in _FOLDERS + _OPEN_FOLDERS:
        (dest / name).mkdir(parents=True)
    for name in _OPEN_FOLDERS:
        (dest / name).chmod(0o1777)


def _copy_program(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    target.chmod(0o755)


def _link_command(dest: Path, command: str) -> None:
    """Link one of busybox's commands, relatively, so that the tree works wherever it lies."""
    link = dest / command
    if link.exists() or ".." in link.parts:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("../" * (len(Path(command).parts) - 1) + "bin/busybox")


def _forget_times(dest: Path) -> None:
    """Let every host with this busybox build the same image: digests cover modification times."""
    for path in [*dest.rglob("*"), dest]:
        os.utime(path, (0, 0), follow_symlinks=False)
