"""Takes the compression off an archive, whatever it is, without trusting how much comes out.

Owns the choice by magic number, the bound on the ratio and on the memory of a decoder; knows nothing of tar.
zstd comes from the interpreter (3.14 and later) or from the `zstd` program.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import os
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from node.host.errors import ArchiveError
from node.host.rootfs_entry import Bounds
from node.host.tar_reader import ByteSource

XZ_MEMORY_BYTES_MAX = 256 * 2**20
_INPUT_CHUNK_BYTES = 64 * 1024
_DAMAGE = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


class _Streams:
    """Reads one or more compressed streams that follow each other, as xz and bzip2 allow."""

    def __init__(self, packed: IO[bytes], make: Callable[[], _Decompressor]) -> None:
        self._packed = packed
        self._make = make
        self._decompressor = make()
        self._pending = b""

    def read(self, size: int) -> bytes:
        pieces: list[bytes] = []
        while size > 0 and (piece := self._read_some(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _read_some(self, size: int) -> bytes:
        while True:
            if self._decompressor.eof:
                self._pending = (self._decompressor.unused_data or self._packed.read(_INPUT_CHUNK_BYTES)).lstrip(b"\0")
                if not self._pending:
                    return b""
                self._decompressor = self._make()
            if self._decompressor.needs_input and not self._pending:
                self._pending = self._packed.read(_INPUT_CHUNK_BYTES)
                if not self._pending:
                    raise EOFError("the compressed data ends early")
            data, self._pending = self._pending, b""
            piece = self._decompressor.decompress(data, size)
            if piece:
                return piece


class _Metered:
    """Passes bytes on, and stops when far too many come out of far too few."""

    def __init__(self, inner: ByteSource, packed_bytes: int, bounds: Bounds, pulse: Callable[[], None]) -> None:
        self._inner = inner
        self._read_bytes = 0
        self._pulse = pulse
        allowed = max(bounds.ratio_free_bytes, bounds.ratio_max * packed_bytes)
        # Headers and padding come on top of the content; a million entries need 2 GiB of them.
        self._bytes_max = min(allowed, 2 * bounds.total_bytes_max + 4 * 2**30)
        self._packed_bytes = packed_bytes

    def read(self, size: int, /) -> bytes:
        self._pulse()
        try:
            content = self._inner.read(size)
        except _DAMAGE as error:
            raise ArchiveError(f"the compressed archive is damaged or truncated: {error}") from error
        except OSError as error:
            raise ArchiveError(f"the archive cannot be read: {error.strerror or error}") from error
        self._read_bytes += len(content)
        if self._read_bytes > self._bytes_max:
            raise ArchiveError(
                f"more than {self._bytes_max} bytes come out of {self._packed_bytes} packed ones: refused as a bomb"
            )
        return content


@contextmanager
def unpacked(archive: Path, bounds: Bounds, pulse: Callable[[], None] = lambda: None) -> Iterator[ByteSource]:
    """Open an archive and give its content without compression; `pulse` is called before each read. Blocking."""
    packed_bytes = archive.stat().st_size
    with archive.open("rb") as packed:
        magic = packed.read(8)
        packed.seek(0)
        with _opened(packed, magic) as content:
            yield _Metered(content, packed_bytes, bounds, pulse)


@contextmanager
def _opened(packed: IO[bytes], magic: bytes) -> Iterator[ByteSource]:
    if magic.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=packed) as content:
            yield content
    elif magic.startswith(b"\xfd7zXZ\0"):
        yield _Streams(packed, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES_MAX))
    elif magic.startswith(b"BZh"):
        yield _Streams(packed, bz2.BZ2Decompressor)
    elif magic.startswith(b"\x28\xb5\x2f\xfd"):
        with _zstd(packed) as content:
            yield content
    else:
        yield packed


@contextmanager
def _zstd(packed: IO[bytes]) -> Iterator[ByteSource]:
    try:
        module = importlib.import_module("compression.zstd")
    except ImportError:
        program = shutil.which("zstd")
        if program is None:
            raise ArchiveError(
                "the archive is compressed with zstd, which this host cannot read;"
                " install the package zstd, or pack it with gzip or xz"
            ) from None
        with _zstd_program(program, packed) as content:
            yield content
    else:
        with module.ZstdFile(packed) as content:
            yield content


class _ProgramOutput:
    """The output of a decompressing program; its failure shows at the end of it."""

    def __init__(self, program: subprocess.Popen[bytes]) -> None:
        self._program = program

    def read(self, size: int, /) -> bytes:
        assert self._program.stdout is not None
        content = self._program.stdout.read(size)
        if len(content) < size and self._program.wait() != 0:
            raise EOFError("zstd refused it")
        return content


@contextmanager
def _zstd_program(path: str, packed: IO[bytes]) -> Iterator[ByteSource]:
    os.lseek(packed.fileno(), 0, os.SEEK_SET)  # the program does not see what our buffer has read already
    command = [path, "--decompress", "--stdout", "--quiet", "--memory=256MB"]
    program = subprocess.Popen(command, stdin=packed, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield _ProgramOutput(program)
    finally:
        program.kill()
        program.wait()
        assert program.stdout is not None
        program.stdout.close()
