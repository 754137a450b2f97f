"""What the commands that read traces share: which lines count, and telling what was wrong or left out."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from node.cli.failures import Failure

if TYPE_CHECKING:
    from sim.traces.text import BadLines

SHOWN = 5
PIECE_BYTES = 1 << 20

Command = Callable[..., Any]


def filter_option(command: Command) -> Command:
    """Which jobs of a batch trace count."""
    choice = click.Choice(["none", "strong"])
    return click.option(
        "--filter", "strong", type=choice, default="none", show_default=True, help="Which jobs of the trace count."
    )(command)


def strict_option(command: Command) -> Command:
    """Whether bad lines are fatal."""
    return click.option("--strict", is_flag=True, help="End at the first bad line instead of counting them.")(command)


def tell_bad(*files: BadLines) -> None:
    """Name the first bad lines of each file, and say how many there are."""
    for bad in files:
        for line, why in bad.first[:SHOWN]:
            print(f"bad line {bad.path}:{line}: {why}", file=sys.stderr)
        if bad.count > SHOWN:
            print(f"... {bad.count} bad lines in all", file=sys.stderr)


def tell_left_out(left_out: Mapping[str, int]) -> None:
    """Say which jobs do not count, and why."""
    for why, count in left_out.items():
        print(f"left out: {count} jobs ({why})", file=sys.stderr)


def fingerprint(*paths: str | None) -> str:
    """Return a short text that changes with the contents of these files; None and what is no file count for nothing."""
    sum_ = 0
    for path in paths:
        if path is not None and Path(path).is_file():
            try:
                with Path(path).open("rb") as file:
                    while piece := file.read(PIECE_BYTES):
                        sum_ = zlib.crc32(piece, sum_)
            except OSError as error:
                raise Failure(f"{path}: {(error.strerror or str(error)).lower()}") from None
    return f"{sum_:08x}"
