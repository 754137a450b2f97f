"""Opening a trace, plain or gzip, and counting what is wrong with it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TextIO

from sim.errors import BadTrace

GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BAD_LINES_KEPT = 100


def open_text(path: str | Path) -> TextIO:
    """Open a text file, unpacking gzip by its first bytes and not by its name; raises BadTrace.

    The byte order mark that spreadsheets write first is passed over.
    """
    try:
        raw = Path(path).open("rb")  # noqa: SIM115 - closed by whoever reads
        begins = raw.peek(3)[:3]
    except OSError as error:
        raise BadTrace(str(path), (error.strerror or str(error)).lower()) from None
    if begins[:2] == GZIP_MAGIC:
        import gzip

        return io.TextIOWrapper(gzip.GzipFile(fileobj=raw), encoding="utf-8", errors="replace")
    if begins == BYTE_ORDER_MARK:
        raw.read(3)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="replace")


class BadLines:
    """Counts bad lines and keeps the first of them; with `strict`, the first one is fatal."""

    def __init__(self, path: str, strict: bool) -> None:
        self.path = path
        self.strict = strict
        self.count = 0
        self.first: list[tuple[int, str]] = []

    def add(self, line: int, why: str) -> None:
        """Note a bad line; raises BadTrace when strict."""
        if self.strict:
            raise BadTrace(self.path, why, line)
        self.count += 1
        if len(self.first) < BAD_LINES_KEPT:
            self.first.append((line, why))
