"""Reading and writing of control group files, and removing of their directories."""

from __future__ import annotations

import errno
import os
from pathlib import Path

READ_BYTES_MAX = 65_536


class CgroupError(Exception):
    """The host's control groups cannot do what is asked: names the controller or the file, and the value."""


def write(file: Path | str, value: str) -> None:
    """os.write and not a file object: that one reports the kernel's refusal when nobody listens any more."""
    descriptor = os.open(file, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def read(file: Path | str, size: int = READ_BYTES_MAX) -> str:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, size).decode()
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> bool:
    """rmdir from the leaves up; False where something is still in use."""
    try:
        inner = [entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
        if [entry for entry in inner if not remove_tree(Path(entry))]:
            return False
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True
