"""What checks of a host look at: files below a root, programs in the PATH, whose process this is. It changes nothing.

A view of another root is a host that exists in a test's directory alone.
"""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

READ_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class HostView:
    """This host, or one below `root`. `programs`: those that there are; None: those in this process's PATH."""

    root: Path = Path("/")
    programs: frozenset[str] | None = None
    is_root: bool = os.geteuid() == 0
    release: str = platform.release()

    def text(self, path: str) -> str | None:
        """A file's content without blanks around it; None where there is none to read."""
        try:
            with (self.root / path.lstrip("/")).open(errors="replace") as file:
                return file.read(READ_BYTES_MAX).strip()
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        return (self.root / path.lstrip("/")).exists()

    def is_mount(self, path: str) -> bool:
        mounts = self.text("/proc/self/mounts") or ""
        return any(line.split(" ")[1:2] == [path] for line in mounts.splitlines())

    def has(self, program: str) -> bool:
        """System administrators' folders count, whether or not they are in the PATH."""
        if self.programs is not None:
            return program in self.programs
        return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None

    def free_bytes(self, path: str) -> int:
        return shutil.disk_usage(self._nearest(path)).free

    def free_files(self, path: str) -> int | None:
        """How many files and folders can still be made there; None where the file system does not count them."""
        status = os.statvfs(self._nearest(path))
        return status.f_favail if status.f_files else None

    def mount_options(self, path: str) -> frozenset[str]:
        """Those of the file system that holds the path."""
        mounts = [line.split(" ") for line in (self.text("/proc/self/mounts") or "").splitlines()]
        above = [(len(words[1]), words[3]) for words in mounts if len(words) > 3 and _holds(words[1], path)]
        return frozenset(max(above, default=(0, ""))[1].split(","))

    def _nearest(self, path: str) -> Path:
        where = self.root / path.lstrip("/")
        while not where.exists():
            where = where.parent
        return where


def _holds(mount: str, path: str) -> bool:
    return mount == "/" or path == mount or path.startswith(f"{mount}/")
