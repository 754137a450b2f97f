"""Processes of this host by their command line, and a process's end together with all that it started."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

TREE_MAX = 4096
STOP_ROUNDS_MAX = 20


def beginning_with(words: Sequence[str]) -> Iterator[int]:
    """Yield the processes whose command line begins with these words."""
    start = "".join(f"{word}\0" for word in words).encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(start):
                yield int(folder.name)


def kill_tree(pid: int) -> None:
    """Kill a process and all below it: they are stopped first, so that none starts another one meanwhile."""
    found: list[int] = []
    for _ in range(STOP_ROUNDS_MAX):
        new = [each for each in _tree(pid) if each not in found]
        if not new:
            break
        for each in new:
            _signal(each, signal.SIGSTOP)
        found += new
    for each in reversed(found):
        _signal(each, signal.SIGKILL)


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        with suppress(OSError):
            found += [int(word) for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
        if len(found) > TREE_MAX:
            break
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
