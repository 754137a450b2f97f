"""Small files that are replaced whole and survive power loss: the content first, then the name, then the folder."""

from __future__ import annotations

import os
from pathlib import Path

from node.host.image_folder import sync_folder


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file in one step. Blocks for two syncs: call it in a thread. Raises OSError and leaves the old one."""
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
