"""Reads a container's output, which its supervisor keeps as a head and a sliding tail.

    stdout           the head: bytes 0 .. size
    stdout.OFFSET    segments of the tail, at most two, each beginning at OFFSET of the stream

What lay between was dropped (or lost to a full disk). Offsets are the stream's own, so a reader that asks on from
where it stopped either gets the next byte or learns, from the chunk's offset, how much it missed.
"""

from __future__ import annotations

import os
from pathlib import Path

from node.runtime.protocol import LogChunk, Stream


def read_log(directory: Path, stream: Stream, offset: int, bytes_max: int) -> LogChunk:
    """The first kept bytes at or after offset, of one segment. Empty data: nothing more so far."""
    segments = _segments(directory, stream)
    size = max((start + length for start, length, _ in segments), default=0)
    for start, length, path in segments:
        if offset < start + length:
            begin = max(start, offset)
            data = _read(path, begin - start, min(bytes_max, start + length - begin))
            return LogChunk(begin, data, max(size, begin + len(data)))
    return LogChunk(min(max(offset, 0), size), b"", size)


def _segments(directory: Path, stream: Stream) -> list[tuple[int, int, Path]]:
    """(offset of the first byte, bytes, file), in order."""
    found = []
    for entry in os.scandir(directory):
        name, _, start = entry.name.partition(".")
        if name == stream and (start.isdigit() or not start):
            try:
                found.append((int(start or 0), entry.stat().st_size, Path(entry.path)))
            except FileNotFoundError:  # the tail slid on while we looked
                continue
    return sorted(found)


def _read(path: Path, offset: int, count: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(descriptor, max(0, count), offset)
    finally:
        os.close(descriptor)
