"""Which paths of /proc and /sys read as empty in containers, as this host's kernel has them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from node.host.errors import HostError

MASKED = (
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/slabinfo",
    "/proc/timer_list",
    "/proc/vmallocinfo",
    "/proc/acpi",
    "/proc/asound",
    "/proc/scsi",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
)
"""What proc:mixed leaves open. The kernel guards most files against mapped roots, but not on every version, and not
/proc/keys, which counts and names what others keep in the kernel. Of the folders: firmware tables, devices, and energy
counters, from which neighbours' secrets have been measured."""


class MaskError(HostError):
    """A path that can't be masked."""


def files_and_folders(more: Iterable[str], root: Path = Path("/")) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what to mask, files and folders: LXC tells a job's output what is not there. Raises MaskError."""
    files: list[str] = []
    folders: list[str] = []
    for path in sorted({*MASKED, *more}):
        try:
            mode = os.lstat(root / path[1:]).st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(mode):
            raise MaskError(f"{path} can't be masked: it is a link; mask what it leads to")
        if not any(path.startswith(f"{folder}/") for folder in folders):
            (folders if stat.S_ISDIR(mode) else files).append(path)
    return tuple(files), tuple(folders)
