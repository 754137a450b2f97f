"""Which disk a path is on, as the kernel's block I/O controllers want it: the whole disk's MAJOR:MINOR.

Reads /sys/dev/block; writes nothing. Partitions have no limits of their own. A file system without a device (tmpfs,
overlay, a network's) is on no disk.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

BLOCK = Path("/sys/dev/block")


def whole_disk(path: Path, block: Path = BLOCK) -> str | None:
    """Return the disk of a block device, or the one that holds a file or directory; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    number = found.st_rdev if stat.S_ISBLK(found.st_mode) else found.st_dev
    folder = block / f"{os.major(number)}:{os.minor(number)}"
    if (folder / "partition").exists():
        folder = folder.resolve().parent
    if not (folder / "queue").exists():
        return None
    return (folder / "dev").read_text().strip()


def scheduler(disk: str, block: Path = BLOCK) -> str:
    """Return the name of the disk's I/O scheduler; "none" where it has none."""
    try:
        text = (block / disk / "queue" / "scheduler").read_text()
    except OSError:
        return "none"
    return text.partition("[")[2].partition("]")[0] or "none"
