"""Small files that are replaced whole and survive power loss: the content first, then the name, then the folder."""

from __future__ import annotations

import os
from pathlib import Path

from node.host.image_folder import sync_folder


def write_durably(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Replace a file in one step. Blocks for two syncs: call it in a thread. Raises OSError and leaves the old one.

    `mode`: the new file's permissions, less the process's umask.
    """
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
