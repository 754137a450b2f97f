"""The one tar that stands for a root file system: same content, same bytes, so its SHA-256 is the image's digest.

The form (version 1, which must never change, or digests would): entries sorted by path as bytes; no entry for the root;
directories end in "/"; ustar headers with empty user and group names and device numbers; a pax header before an entry
exactly for what ustar cannot hold: a path or target over 100 bytes, a number over 7 or 11 octal digits or negative, a
capability; pax records sorted by key; two zero blocks at the end, no padding beyond. An image that says how to run it
(`image_config`) begins with a global pax header of that one record; other tools pass over it.

Pure, but for `CanonicalTar.stream`, which reads the files' content.
"""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from node.host.errors import ImageError
from node.host.rootfs_entry import Entry, Kind, shown

_BLOCK_BYTES = 512
_CHUNK_BYTES = 256 * 1024
END_MARK = bytes(2 * _BLOCK_BYTES)
CONFIG_RECORD = b"FOFOCA.config"
_CARRIER = Entry(b"pax", Kind.FILE, 0o644, 0, 0, 0)


class CanonicalTar:
    """The canonical tar of one root file system on disk; it exists only while it is read."""

    def __init__(self, entries: Sequence[Entry], rootfs: Path, config: bytes = b"") -> None:
        self._entries = entries
        self._root = os.fsencode(rootfs)
        self._head = _extended_header(b"g", {CONFIG_RECORD: config}) if config else b""
        self._starts = list(itertools.accumulate((_length(entry) for entry in entries), initial=len(self._head)))

    @property
    def size_bytes(self) -> int:
        """The length of the whole stream."""
        return self._starts[-1] + len(END_MARK)

    def stream(self, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes from an offset on, in pieces of at most 256 KiB. Blocking.

        Raises ImageError if a file is not what its entry says.
        """
        yield self._head[offset:]
        first = max(0, bisect.bisect_right(self._starts, offset) - 1)
        for entry, start in zip(self._entries[first:], self._starts[first:], strict=False):
            yield from _entry_stream(entry, header(entry), self._root, max(0, offset - start))
        yield END_MARK[max(0, offset - self._starts[-1]) :]


def header(entry: Entry) -> bytes:
    """Return the header blocks of one entry."""
    path = entry.path + b"/" if entry.kind is Kind.DIRECTORY else entry.path
    block = _ustar(path, entry, b"%d" % entry.kind, entry.size_bytes)
    records = _extended(entry, path)
    return _extended_header(b"x", records) + block if records else block


def _extended_header(type_flag: bytes, records: dict[bytes, bytes]) -> bytes:
    text = b"".join(_pax_record(key, value) for key, value in sorted(records.items()))
    return _ustar(_CARRIER.path, _CARRIER, type_flag, len(text)) + text + _padding(len(text))


def _length(entry: Entry) -> int:
    return len(header(entry)) + entry.size_bytes + len(_padding(entry.size_bytes))


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % _BLOCK_BYTES)


def _entry_stream(entry: Entry, head: bytes, root: bytes, offset: int) -> Iterator[bytes]:
    yield head[offset:]
    if entry.size_bytes:
        offset = max(0, offset - len(head))
        yield from _file_content(entry, root + b"/" + entry.path, offset)
        yield _padding(entry.size_bytes)[max(0, offset - entry.size_bytes) :]


def _file_content(entry: Entry, on_disk: bytes, offset: int) -> Iterator[bytes]:
    try:
        file_fd = os.open(on_disk, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise ImageError(f"the stored image is damaged: {shown(entry.path)}: {error.strerror}") from error
    try:
        if os.fstat(file_fd).st_size != entry.size_bytes:
            raise ImageError(f"the stored image is damaged: {shown(entry.path)} has another size than it had")
        while offset < entry.size_bytes:
            chunk = os.pread(file_fd, min(_CHUNK_BYTES, entry.size_bytes - offset), offset)
            if not chunk:
                raise ImageError(f"the stored image is damaged: {shown(entry.path)} became shorter")
            offset += len(chunk)
            yield chunk
    finally:
        os.close(file_fd)


def _extended(entry: Entry, path: bytes) -> dict[bytes, bytes]:
    records = {}
    for key, text in ((b"path", path), (b"linkpath", entry.target)):
        if len(text) > 100:
            records[key] = text
            if not _is_utf8(text):
                records[b"hdrcharset"] = b"BINARY"
    for key, number, digits in (
        (b"uid", entry.uid, 7),
        (b"gid", entry.gid, 7),
        (b"mtime", entry.mtime_s, 11),
        (b"size", entry.size_bytes, 11),
    ):
        if not _fits(number, digits):
            records[key] = b"%d" % number
    if entry.capability:
        records[b"SCHILY.xattr.security.capability"] = entry.capability
    return records


def _ustar(path: bytes, entry: Entry, type_flag: bytes, size_bytes: int) -> bytes:
    block = b"".join(
        (
            path[:100].ljust(100, b"\0"),
            _octal(entry.mode, 7),
            _octal(entry.uid, 7),
            _octal(entry.gid, 7),
            _octal(size_bytes, 11),
            _octal(entry.mtime_s, 11),
            b" " * 8,
            type_flag,
            entry.target[:100].ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),
            _octal(0, 7),
            _octal(0, 7),
            bytes(167),
        )
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _octal(number: int, digits: int) -> bytes:
    # What does not fit stands in the pax header; readers take it from there.
    return b"%0*o\0" % (digits, number if _fits(number, digits) else 0)


def _fits(number: int, digits: int) -> bool:
    return 0 <= number < 1 << 3 * digits


def _pax_record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
