"""What long simulations on a terminal share: progress, interruption, and where results go."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from node.cli.failures import Failure

REFRESH_S = 0.1


def check_writable(option: str, path: str | None) -> None:
    """Say now, and not after a long replay, that a result has no place to go."""
    if path is not None and (Path(path).is_dir() or not Path(path).absolute().parent.is_dir()):
        raise Failure(f"{option}: {path} cannot be written; name a file in a folder that exists")


@contextmanager
def open_result(path: str, several: str = "") -> Iterator[Any]:
    """Open a result; with several policies, each one's name goes before the suffix."""
    target = Path(path)
    if several:
        target = target.with_name(f"{target.stem}-{several}{target.suffix}")
    try:
        with target.open("w", encoding="utf-8") as out:
            yield out
    except OSError as error:
        raise Failure(f"{target}: cannot be written: {error.strerror}") from None


@contextmanager
def watching(title: str, total: int) -> Iterator[Callable[[int, float], bool]]:
    """A watcher that shows progress on a terminal and ends the replay on Ctrl-C."""
    stopped = []
    before = signal.signal(signal.SIGINT, lambda _number, _frame: stopped.append(True))
    shows = sys.stderr.isatty()
    began = shown = time.monotonic()

    def watch(done: int, virtual_s: float) -> bool:
        nonlocal shown
        now = time.monotonic()
        if shows and now - shown >= REFRESH_S:
            shown = now
            sys.stderr.write("\r" + _progress(title, done, total, now - began, virtual_s) + "\x1b[K")
            sys.stderr.flush()
        return not stopped

    try:
        yield watch
    finally:
        signal.signal(signal.SIGINT, before)
        if shown > began:
            sys.stderr.write("\r\x1b[K")


def _progress(title: str, done: int, total: int, passed_s: float, virtual_s: float) -> str:
    from node.cli.show import bar

    speed = done / passed_s if passed_s else 0.0
    left_s = (total - done) / speed if speed else 0.0
    share = done / total if total else 1.0
    day = f"  day {virtual_s / 86_400:,.1f}" if virtual_s else ""
    return f"{title} {bar(share, 20)} {share:4.0%}  {done:,} of {total:,}  {speed:,.0f}/s{day}  ETA {left_s:.0f}s"
