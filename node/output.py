"""What containers wrote, kept after they are gone.

One small file a stream, `DIRECTORY/ID.stdout`, with the offset of its first byte and the stream's whole size in the
name of a sidecar-free header line. Bounded by count and bytes: the oldest outputs are forgotten first.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

from node.runtime.protocol import LogChunk, Runtime, Stream, UnknownContainerError

STREAMS: tuple[Stream, ...] = ("stdout", "stderr")
COPY_BYTES = 256 * 1024


class OutputStore:
    """The kept output of this node's ended containers. Not durable on purpose: a lost output costs no job."""

    def __init__(self, directory: Path, count_max: int, bytes_max: int) -> None:
        self._directory = directory
        self._count_max = count_max
        self._bytes_max = bytes_max
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        entries = sorted((entry.stat().st_mtime, entry.name, entry.stat().st_size) for entry in directory.iterdir())
        self._sizes: OrderedDict[str, int] = OrderedDict((name, size) for _, name, size in entries)
        self._bytes = sum(self._sizes.values())

    def adopt(self, runtime: Runtime, name: str) -> None:
        """Copy a container's streams out of the runtime, which is about to forget it."""
        for stream in STREAMS:
            try:
                self._copy(runtime, name, stream)
            except UnknownContainerError:
                return
        self._prune()

    def read(self, name: str, stream: Stream, offset: int, bytes_max: int) -> LogChunk:
        """Return a piece of a kept stream; an empty one where nothing was written or it is forgotten."""
        file = self._directory / f"{name}.{stream}"
        if file.name not in self._sizes:
            return LogChunk(offset=offset, data=b"", size=0)
        with file.open("rb") as source:
            first, size = (int(word) for word in source.readline().split())
            offset = max(offset, first)
            source.seek(offset - first, os.SEEK_CUR)
            return LogChunk(offset=offset, data=source.read(bytes_max), size=size)

    def _copy(self, runtime: Runtime, name: str, stream: Stream) -> None:
        chunk = runtime.read_log(name, stream, 0, COPY_BYTES)
        if not chunk.size:
            return
        file = self._directory / f"{name}.{stream}"
        with file.open("wb") as target:
            # A stream whose middle was dropped is kept from its tail on: the end is what people look for.
            first, pieces = chunk.offset, [chunk.data]
            while chunk.offset + len(chunk.data) < chunk.size and chunk.data:
                chunk = runtime.read_log(name, stream, chunk.offset + len(chunk.data), COPY_BYTES)
                expected = first + sum(map(len, pieces))
                if chunk.offset != expected:
                    first, pieces = chunk.offset, []
                pieces.append(chunk.data)
            target.write(b"%d %d\n" % (first, chunk.size))
            target.writelines(pieces)
            self._remember(file.name, target.tell())

    def _remember(self, name: str, size: int) -> None:
        self._bytes += size - self._sizes.pop(name, 0)
        self._sizes[name] = size

    def _prune(self) -> None:
        while self._sizes and (len(self._sizes) > self._count_max or self._bytes > self._bytes_max):
            name, size = self._sizes.popitem(last=False)
            self._bytes -= size
            (self._directory / name).unlink(missing_ok=True)
