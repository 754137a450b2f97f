"""Directories of ended containers, kept for those that come.

A file system remembers for minutes which inodes were freed (ext4 looks at each of them whenever a file is made, lest it
be used again too soon). Where hundreds of short containers a second make and remove half a dozen small files each, that
took more processor time than all else together. So what every container has is used again, and rewritten in place.

A spare is hidden from the moment its container is gone until the next one's spec is in it. What a supervisor says by
the presence of a file lies in a spare under that file's name with a dot, where the next one looks (`supervise.c`).
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from itertools import count
from pathlib import Path

SPARES_MAX = 64
PREFIX = ".spare."
REWRITTEN = frozenset({"spec", "orders"})
SAID_BY_PRESENCE = frozenset({"supervisor", "running", "exit"})
KEPT = REWRITTEN | {f".{name}" for name in SAID_BY_PRESENCE}


class Spares:
    """The spare directories below one runtime's directory. Any thread may take and give."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._free: list[Path] = []
        self._numbers = count()

    def take(self) -> Path | None:
        """Return a spare directory, which the caller renames; None where there is none."""
        try:
            return self._free.pop()
        except IndexError:
            return None

    def give(self, path: Path) -> bool:
        """Make an ended container's directory, if it is there, a spare one; False where there are enough already."""
        if len(self._free) >= SPARES_MAX:
            return False
        spare = self._root / f"{PREFIX}{next(self._numbers)}"
        with suppress(FileNotFoundError):
            os.rename(path, spare)
            _clear(spare)
            self._free.append(spare)
        return True

    def give_back(self, spare: Path) -> None:
        """What was taken was not used."""
        self._free.append(spare)

    def remove_all(self) -> None:
        """Remove what no container uses, of former agents, too."""
        self._free.clear()
        for path in self._root.glob(f"{PREFIX}*"):
            shutil.rmtree(path, ignore_errors=True)


def _clear(spare: Path) -> None:
    """What a container may have written into is left to shutil, which is careful and slow."""
    with os.scandir(spare) as entries:
        found = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    for name, is_directory in found.items():
        if is_directory:
            shutil.rmtree(f"{spare}/{name}")
        elif name in SAID_BY_PRESENCE:
            os.rename(f"{spare}/{name}", f"{spare}/.{name}")
        elif name not in KEPT:
            os.unlink(f"{spare}/{name}")
