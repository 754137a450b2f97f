"""
Reading an image's source as a stream: a directory (a root file system, or an OCI layout) as a tar, a tar as it is,
whatever its compression.

What is inside is checked by the node that receives it, not here. Memory is bounded by a few chunks.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from node.errors import InvalidValue

CHUNK_BYTES = 256 * 1024
TAR_MAGIC_OFFSET = 257
_GZIP, _BZIP2, _XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPED_TYPES = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)


def read(path: Path) -> Iterator[bytes]:
    """A directory's tar, or a tar file as it is, in chunks. Raises InvalidValue at once where the path is neither."""
    try:
        if path.is_dir():
            os.listdir(path)
            return _directory(path)
        _check_archive(path)
        return _file(path.open("rb"), path)
    except OSError as error:
        raise _bad(path, f"a readable directory or tar ({error.strerror or error})") from None


def _bad(path: Path, expected: str) -> InvalidValue:
    return InvalidValue("path", str(path), f"expected {expected}")


def _check_archive(path: Path) -> None:
    """Raise InvalidValue for what is surely no tar; how sound it is, the node that unpacks it finds out."""
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(_ZSTD):
        return
    openers: dict[bytes, Callable[[Path], object]] = {_GZIP: gzip.open, _BZIP2: bz2.open, _XZ: lzma.open}
    opener = next((each for magic, each in openers.items() if start.startswith(magic)), None)
    try:
        with cast(BinaryIO, opener(path) if opener else path.open("rb")) as source:
            if not _is_tar(source):
                raise _bad(path, "a directory or a tar (plain, gz, bz2, xz or zstd)")
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, ValueError) as error:
        raise _bad(path, f"an undamaged tar ({error})") from None


def _is_tar(source: BinaryIO) -> bool:
    head = source.read(tarfile.BLOCKSIZE)
    return len(head) == tarfile.BLOCKSIZE and head[TAR_MAGIC_OFFSET:].startswith(b"ustar")


def _file(source: BinaryIO, path: Path) -> Iterator[bytes]:
    try:
        with source:
            while chunk := source.read(CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise _bad(path, f"a readable file ({error.strerror or error})") from None


def _directory(path: Path) -> Iterator[bytes]:
    reader, writer = os.pipe()
    trouble: list[OSError] = []

    def write() -> None:
        try:
            with os.fdopen(writer, "wb") as pipe, tarfile.open(fileobj=pipe, mode="w|", bufsize=CHUNK_BYTES) as tar:
                tar.add(path, arcname=".", filter=_plain)
        except BrokenPipeError:
            pass  # the reader gave up, and knows why
        except OSError as error:
            trouble.append(error)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    with os.fdopen(reader, "rb") as pipe:
        while chunk := pipe.read(CHUNK_BYTES):
            yield chunk
    thread.join()
    if trouble:
        raise _bad(path, f"readable files only ({trouble[0].filename}: {trouble[0].strerror})")


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave devices and pipes out; what belongs to the importing user belongs to the image's root."""
    if entry.type in _SKIPPED_TYPES:
        return None
    if os.geteuid() != 0 and entry.uid == os.geteuid():
        entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
