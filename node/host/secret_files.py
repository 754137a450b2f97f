"""Files in memory for containers: on no disk, in no swap, readable by one user of one container.

Owns: a ramfs (which, unlike tmpfs, is never swapped out) below the agent's directory, one folder a container. Bounded
by what a job's spec may hold. May not know: where the contents come from.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from node.host import mount_calls

MODE = 0o400


class SecretFiles:
    """Folders below one directory. Blocking, for a few files; the mount is made when first needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, container: str, contents: Mapping[str, bytes], owners: Mapping[str, int], first_id: int) -> Path:
        """Return the folder with these files; each belongs to its owner's host id. Raises MountError, OSError."""
        self._ensure_mounted()
        folder = self._directory / container
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)  # whatever the agent's umask is
        os.chown(folder, first_id, first_id)
        for name, content in contents.items():
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
            try:
                os.write(descriptor, content)
                os.fchown(descriptor, first_id + owners[name], first_id + owners[name])
            finally:
                os.close(descriptor)
        return folder

    def discard(self, container: str) -> None:
        """Forget a container's files; idempotent."""
        if os.path.lexists(f"{self._directory}/{container}"):
            shutil.rmtree(self._directory / container, ignore_errors=True)

    def keep_only(self, containers: Iterable[str]) -> None:
        """After a restart: forget the files of all others."""
        kept = set(containers)
        for folder in self._directory.glob("*"):
            if folder.name not in kept:
                self.discard(folder.name)

    def close(self) -> None:
        """Forget everything."""
        self.keep_only(())
        mount_calls.detach(self._directory)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _ensure_mounted(self) -> None:
        self._directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        if not os.path.ismount(self._directory):
            mount_calls.mount("ramfs", self._directory)
        self._directory.chmod(0o711)
