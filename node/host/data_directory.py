"""Where an agent keeps what must outlive it: every path of the data directory, in one place.

Owns names and permissions of the top level only; what lies in a folder belongs to the module that is named there.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from node.host.errors import HostError

# Searchable, not listable: a container's mapped root must reach its own overlay below. What is secret lies in
# folders and files that are closed themselves.
_PASSABLE_MODE = 0o711
_PRIVATE_MODE = 0o700


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """One agent's data directory; two agents never share one (the ledger's lock sees to it)."""

    root: Path

    @property
    def ledger(self) -> Path:
        """The ledger's file (node.ledger.sqlite); its lock and log lie beside it."""
        return self.root / "ledger.db"

    @property
    def ledger_spare(self) -> Path:
        """Room set aside for the ledger (node.ledger.spare)."""
        return self.root / "ledger.spare"

    @property
    def images(self) -> Path:
        """The image store (node.host.images)."""
        return self.root / "images"

    @property
    def containers(self) -> Path:
        """One folder a container (node.runtime)."""
        return self.root / "containers"

    @property
    def boot(self) -> Path:
        """The host's boot that the rest tells of (node.host.boot)."""
        return self.root / "boot"

    @property
    def run(self) -> Path:
        """Sockets and other things that a reboot may clear."""
        return self.root / "run"

    def prepare(self) -> None:
        """Create what is missing and close what is private.

        Raises HostError if the directory is a link, belongs to somebody else, or cannot be written.
        """
        for path, mode in (
            (self.root, _PASSABLE_MODE),
            (self.images, _PRIVATE_MODE),
            (self.containers, _PASSABLE_MODE),
            (self.run, _PRIVATE_MODE),
        ):
            _prepare_folder(path, mode)


def _prepare_folder(path: Path, mode: int) -> None:
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise HostError(f"data directory {path}: {error.strerror}; choose one this user can write") from error
    if not stat.S_ISDIR(status.st_mode):
        raise HostError(f"data directory {path}: is not a directory; links are not followed here")
    if status.st_uid != os.geteuid():
        raise HostError(f"data directory {path}: belongs to uid {status.st_uid}, the agent runs as {os.geteuid()}")
    if stat.S_IMODE(status.st_mode) != mode:
        path.chmod(mode)
