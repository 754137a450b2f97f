"""One lab operation at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from node.lab import layout
from node.lab.errors import LabFailure


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Hold the lab's lock: one operation at a time. The lock's file goes with the lab."""
    path = layout.lock_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _take_lock(path)
    try:
        yield
        if not layout.state_folder().exists():
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _take_lock(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have removed the file: then this lock keeps nobody out.
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise LabFailure("another lab command is at work; try again when it is done") from None
        except FileNotFoundError:
            pass
        os.close(descriptor)
