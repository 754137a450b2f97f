"""Where the helper is that copies files in and out of a container, and how a container's first process is found."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

HELPER = Path(__file__).with_name("inside.py")


def first_process(inside: Iterable[int]) -> int | None:
    """Of the processes of a container's control groups the one that is number 1 of its own namespace."""
    return next((pid for pid in sorted(inside) if _is_first(pid)), None)


def _is_first(pid: int) -> bool:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    numbers = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])
    return len(numbers) > 1 and numbers[-1] == "1"
