"""What containers wrote, kept after they are gone.

One file a stream, `DIRECTORY/ID.stdout`; its first line has the offset of its first byte and the stream's whole size.
Bounded by count and bytes: the oldest outputs are forgotten first. `adopt` works in a thread, one at a time, beside
`read` in the loop: a file appears whole and under its name in one step, and a reader finds it, or nothing.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import BinaryIO

from node.runtime.protocol import LogChunk, Runtime, Stream, UnknownContainerError

STREAMS: tuple[Stream, ...] = ("stdout", "stderr")
COPY_BYTES = 256 * 1024
_UNFINISHED = ".new"


class OutputStore:
    """The kept output of this node's ended containers. Not durable on purpose: a lost output costs no job."""

    def __init__(self, directory: Path, count_max: int, bytes_max: int) -> None:
        self._directory = directory
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._adopting = threading.Lock()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for unfinished in directory.glob(f"*{_UNFINISHED}"):
            unfinished.unlink()
        entries = sorted((entry.stat().st_mtime, entry.name, entry.stat().st_size) for entry in directory.iterdir())
        self._sizes: OrderedDict[str, int] = OrderedDict((name, size) for _, name, size in entries)
        self._bytes = sum(self._sizes.values())

    @staticmethod
    def is_any(runtime: Runtime, name: str) -> bool:
        """Whether an ended container has written anything; most are not worth the way to a thread."""
        try:
            return any(runtime.read_log(name, stream, 0, 0).size for stream in STREAMS)
        except UnknownContainerError:
            return False

    def adopt(self, runtime: Runtime, name: str) -> None:
        """Copy an ended container's streams out of the runtime, which is about to forget it; OSError."""
        with self._adopting:
            for stream in STREAMS:
                try:
                    self._copy(runtime, name, stream)
                except UnknownContainerError:
                    return
            self._prune()

    def read(self, name: str, stream: Stream, offset: int, bytes_max: int) -> LogChunk:
        """Return a piece of a kept stream; an empty one where nothing was written or it is forgotten."""
        try:
            with (self._directory / f"{name}.{stream}").open("rb") as source:
                first, size = (int(word) for word in source.readline().split())
                offset = max(offset, first)
                source.seek(offset - first, os.SEEK_CUR)
                return LogChunk(offset=offset, data=source.read(bytes_max), size=size)
        except FileNotFoundError:
            return LogChunk(offset=offset, data=b"", size=0)

    def _copy(self, runtime: Runtime, name: str, stream: Stream) -> None:
        chunk = runtime.read_log(name, stream, 0, COPY_BYTES)
        if not chunk.size:
            return
        target = self._directory / f"{name}.{stream}"
        unfinished = target.with_name(target.name + _UNFINISHED)
        try:
            with unfinished.open("wb") as file:
                _write_stream(file, runtime, name, stream, chunk)
                size = file.tell()
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
        self._bytes += size - self._sizes.pop(target.name, 0)
        self._sizes[target.name] = size

    def _prune(self) -> None:
        while self._sizes and (len(self._sizes) > self._count_max or self._bytes > self._bytes_max):
            name, size = self._sizes.popitem(last=False)
            self._bytes -= size
            (self._directory / name).unlink(missing_ok=True)


def _write_stream(file: BinaryIO, runtime: Runtime, name: str, stream: Stream, chunk: LogChunk) -> None:
    """Write a stream from its first chunk on, piece by piece.

    One whose middle was dropped is kept from there on: the end is what people look for.
    """
    expected = -1
    while chunk.data:
        if chunk.offset != expected:
            file.seek(0)
            file.truncate()
            file.write(b"%d %d\n" % (chunk.offset, chunk.size))
        file.write(chunk.data)
        expected = chunk.offset + len(chunk.data)
        chunk = runtime.read_log(name, stream, expected, COPY_BYTES)
