"""What commands print: plain tables, amounts, JSON. Nothing here needs more than the standard library."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_COLOURS = {
    "succeeded": "32", "alive": "32", "running": "36", "pending": "33", "suspect": "33",
    "frozen": "34", "healthy": "32", "starting": "33", "unhealthy": "31",
    "failed": "31", "lost": "31", "down": "33", "cancelled": "35", "left": "90",
}  # fmt: skip
_BAR = "▏▎▍▌▋▊▉█"


def print_json(value: Any) -> None:
    """Exactly one JSON document."""
    print(json.dumps(value, indent=2))


def print_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Aligned columns; numbers to the right. In a pipe the same, without colours."""
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(head), *texts]) for column in range(len(head))]
    right = [bool(texts) and all(_is_number(row[column]) for row in texts) for column in range(len(head))]
    for line, row in enumerate([list(head), *texts]):
        cells = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        print("  ".join(coloured(cell) if line else cell for cell in cells).rstrip())


def coloured(cell: str) -> str:
    """A state's word in its colour, on a terminal that wants colours."""
    colour = _COLOURS.get(cell.strip())
    if colour is None or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return cell
    return f"\x1b[{colour}m{cell}\x1b[0m"


def cores(milli: int) -> str:
    """`250m`, `1.5`, `16`."""
    return f"{milli}m" if 0 < milli < 1000 else f"{milli / 1000:g}"


def size(count: int) -> str:
    """`64M`, `1.5G`; powers of 1024."""
    for unit, factor in (("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if count >= factor:
            return f"{count / factor:.4g}{unit}"
    return str(count)


def age(since_unix_s: float) -> str:
    """How long ago: `12s`, `3m`, `5h`, `2d`."""
    return duration(time.time() - since_unix_s)


def duration(seconds: float) -> str:
    """`12s`, `3m`, `5h`, `2d`."""
    whole = max(0, int(seconds))
    for unit, factor in (("d", 86_400), ("h", 3600), ("m", 60)):
        if whole >= 2 * factor:
            return f"{whole // factor}{unit}"
    return f"{whole}s"


def bar(fraction: float, width: int = 10) -> str:
    """A filled bar; more than full is full."""
    eighths = round(max(0.0, min(1.0, fraction)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_BAR[rest - 1] if rest else "")).ljust(width, "·")


def fraction(part: Mapping[str, int], whole: Mapping[str, int], name: str) -> float:
    """part/whole of one resource; 0 where the whole is nothing."""
    return part.get(name, 0) / whole[name] if whole.get(name) else 0.0


def _is_number(text: str) -> bool:
    return not text or text.replace(".", "", 1).removesuffix("%").isdigit()
