"""
What a host needs to run containers, checked one by one. It looks, and changes nothing.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KERNEL_OLDEST = (5, 12)  # idmapped mounts
DISK_FREE_BYTES_MIN = 2 << 30
SUB_IDS = (Path("/etc/subuid"), Path("/etc/subgid"))
DEBIAN_PACKAGES = "lxc uidmap iproute2 nftables"


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `advice` is empty where nothing is to do."""

    what: str
    ok: bool
    advice: str = ""
    needed: bool = True


def findings() -> list[Finding]:
    """Everything looked at, needed things first."""
    return sorted(_look(), key=lambda each: not each.needed)


def _look() -> Iterator[Finding]:
    yield _finding(f"Python {platform.python_version()}", sys.version_info >= (3, 11), "install Python 3.11 or newer")
    kernel = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    yield _finding(f"Linux {platform.release()}", kernel >= KERNEL_OLDEST, "idmapped images need Linux 5.12 or newer")
    yield _finding("root", os.geteuid() == 0, "run the agent as root; without it tasks are plain processes")
    for tool, package in (("lxc-execute", "lxc"), ("ip", "iproute2")):
        yield _finding(tool, shutil.which(tool) is not None, f"apt-get install {package}")
    yield _finding("cgroups", _cgroup_layout() != "", "mount cgroup2 on /sys/fs/cgroup")
    if layout := _cgroup_layout():
        yield Finding(f"cgroup layout: {layout}", ok=True, needed=False)
    yield _finding("user namespaces", Path("/proc/self/ns/user").exists(), "use a kernel with CONFIG_USER_NS")
    yield _finding("overlay file system", _has_overlay(), "modprobe overlay")
    yield _sub_ids()
    yield _finding("nft", shutil.which("nft") is not None, "apt-get install nftables (published ports)", needed=False)
    free = shutil.disk_usage("/var/lib").free
    yield _finding("2G free in /var/lib", free >= DISK_FREE_BYTES_MIN, "images and logs need room", needed=False)


def _finding(what: str, ok: bool, advice: str, needed: bool = True) -> Finding:
    return Finding(what, ok, "" if ok else advice, needed)


def _cgroup_layout() -> str:
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return "v2"
    if (root / "memory").is_dir():
        return "v1 beside v2" if (root / "unified").is_dir() else "v1"
    return ""


def _has_overlay() -> bool:
    return "\toverlay\n" in Path("/proc/filesystems").read_text()


def _sub_ids() -> Finding:
    """With newuidmap installed LXC obeys these files, and refuses root where it isn't listed."""
    if shutil.which("newuidmap") is None:
        return Finding("sub-ids (newuidmap is not installed: not asked for)", ok=True)
    lacking = [str(path) for path in SUB_IDS if not _lists_root(path)]
    advice = f"echo root:100000:65536000 >> {' and >> '.join(lacking)}"
    return _finding("sub-ids of root", not lacking, advice)


def _lists_root(path: Path) -> bool:
    try:
        return any(line.startswith(("root:", "0:")) for line in path.read_text().splitlines())
    except OSError:
        return False
