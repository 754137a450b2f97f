"""Empty directories for a runtime to mount on, made in a container's own layer above its image.

Owns: that no link of an image is ever followed on the host. A runtime that makes a missing mount point itself would
follow the image's links with the host's eyes. What is made here looks like what it lies over: same owner, same mode.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from node.host.errors import HostError

MODE = 0o755


class MountPointError(HostError):
    """An image in which something else is where a mount should go."""


def make(layer: Path, images: Sequence[Path], targets: Iterable[str], owner: int) -> None:
    """Make every target (absolute inside the container) in the layer, unless an image has it as a directory.

    `images`: uppermost first, as the host sees them, ids mapped. Raises MountPointError, OSError.
    """
    for target in targets:
        parts = target.strip("/").split("/")
        chain = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        below = [_below(images, path) for path in chain]
        own = [_status(layer / path) for path in chain]
        for path, *found in zip(chain, below, own, strict=True):
            if any(status is not None and not stat.S_ISDIR(status.st_mode) for status in found):
                raise MountPointError(f"{target} can't be mounted: in the image /{path} is a link or a file")
        if own[-1] is None and below[-1] is None:
            _make(layer, chain, below, owner)


def _make(layer: Path, chain: Sequence[str], below: Sequence[os.stat_result | None], owner: int) -> None:
    for path, status in zip(chain, below, strict=True):
        made = layer / path
        if made.exists():
            continue
        made.mkdir()
        made.chmod(stat.S_IMODE(status.st_mode) if status else MODE)  # whatever the agent's umask is
        os.chown(made, *((status.st_uid, status.st_gid) if status else (owner, owner)))


def _below(images: Sequence[Path], path: str) -> os.stat_result | None:
    return next((status for image in images if (status := _status(image / path)) is not None), None)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
