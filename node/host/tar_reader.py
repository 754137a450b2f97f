"""Reads a tar stream front to back: ustar, pax and GNU long names, in memory that the archive cannot influence.

Yields members unchecked; knows no file system. Python's tarfile is not used, because it reads extended headers of any
length into memory, keeps every member, and older versions loop on negative sizes. The format is POSIX.1-2008, pax,
"ustar Interchange Format" and "pax Extended Header"; base-256 numbers and types L and K are GNU's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

from node.host.canonical_tar import CONFIG_RECORD
from node.host.errors import ArchiveError
from node.host.rootfs_entry import Kind, Member, shown

BLOCK_BYTES = 512
CHUNK_BYTES = 256 * 1024
EXTENDED_HEADER_BYTES_MAX = 1024 * 1024
EXTENDED_HEADERS_IN_A_ROW_MAX = 16

_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER_DEVICE,
    b"4": Kind.BLOCK_DEVICE,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}

_SPARSE = b"GNU.sparse.major"
# All else is dropped while reading, so that headers cannot pile up in memory.
_RECORDS = frozenset(
    (b"path", b"linkpath", b"uid", b"gid", b"mtime", b"size", b"SCHILY.xattr.security.capability", CONFIG_RECORD)
)
_RECORD_LENGTH = re.compile(rb"([0-9]{1,8}) ")
_PAX_NUMBER = re.compile(rb"(-?[0-9]{1,20})(?:\.([0-9]*))?")


class ByteSource(Protocol):
    """What a tar is read from: fewer bytes than asked only at the end."""

    def read(self, size: int, /) -> bytes:
        """Return the next `size` bytes."""
        ...


class TarReader:
    """One pass over one archive."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._unread_bytes = 0  # of the present member, padding included
        self._first = True
        self._global: dict[bytes, bytes] = {}

    @property
    def config(self) -> bytes:
        """The image configuration of a canonical tar, b"" if there is none; complete once all members are read."""
        return self._global.get(CONFIG_RECORD, b"")

    def members(self) -> Iterator[Member]:
        """Yield every member; its content must be read, if at all, before the next one is asked for."""
        while (block := self._next_header()) is not None:
            attributes: dict[bytes, bytes] = {}
            for _ in range(EXTENDED_HEADERS_IN_A_ROW_MAX):
                if block[156:157] not in (b"x", b"X", b"g", b"L", b"K"):
                    break
                self._read_extended(block, attributes)
                next_block = self._next_header()
                if next_block is None:
                    raise ArchiveError("the tar ends after an extended header: it is damaged")
                block = next_block
            else:
                raise ArchiveError(f"more than {EXTENDED_HEADERS_IN_A_ROW_MAX} extended headers in a row in the tar")
            yield self._member(block, self._global | attributes)
        self._read_to_end()

    def _next_header(self) -> bytes | None:
        self._skip(self._unread_bytes)
        self._unread_bytes = 0
        block = self._source.read(BLOCK_BYTES)
        if len(block) == BLOCK_BYTES and not block.strip(b"\0"):
            return None
        if len(block) < BLOCK_BYTES and not self._first:
            raise ArchiveError("the tar ends without its end mark: it is truncated")
        if len(block) < BLOCK_BYTES or not _checksum_matches(block):
            place = "this is no tar archive" if self._first else "a header's checksum is wrong: the tar is damaged"
            raise ArchiveError(f"{place} (plain or compressed with gzip, bzip2, xz or zstd is taken)")
        self._first = False
        return block

    def _read_extended(self, block: bytes, attributes: dict[bytes, bytes]) -> None:
        size_bytes = _number(block[124:136], "size")
        if size_bytes > EXTENDED_HEADER_BYTES_MAX:
            raise ArchiveError(
                f"an extended tar header of {size_bytes} bytes; at most {EXTENDED_HEADER_BYTES_MAX} are taken"
            )
        text = self._read_exactly(size_bytes)
        self._unread_bytes = -size_bytes % BLOCK_BYTES
        kind = block[156:157]
        if kind == b"L":
            attributes[b"path"] = text.rstrip(b"\0")
        elif kind == b"K":
            attributes[b"linkpath"] = text.rstrip(b"\0")
        else:
            (self._global if kind == b"g" else attributes).update(_pax_records(text))

    def _member(self, block: bytes, attributes: dict[bytes, bytes]) -> Member:
        name = attributes.get(b"path") or _name(block)
        type_flag = block[156:157]
        kind = _KINDS.get(type_flag)
        if kind is None or _SPARSE in attributes:
            what = "a sparse file" if kind is not None or type_flag == b"S" else f"of tar type {type_flag!r}"
            raise ArchiveError(f"{shown(name)}: is {what}, which is not taken; pack without such entries")
        if kind is Kind.FILE and name.endswith(b"/"):
            kind = Kind.DIRECTORY  # how tar said it before there was a type for it
        member = Member(
            name=name,
            kind=kind,
            mode=_number(block[100:108], "mode", name) & 0o7777,
            uid=_attribute(attributes, b"uid", block[108:116], name),
            gid=_attribute(attributes, b"gid", block[116:124], name),
            mtime_s=_attribute(attributes, b"mtime", block[136:148], name),
            target=attributes.get(b"linkpath") or block[157:257].partition(b"\0")[0],
            capability=attributes.get(b"SCHILY.xattr.security.capability", b""),
        )
        if kind is Kind.FILE:
            member.size_bytes = _attribute(attributes, b"size", block[124:136], name)
            if member.size_bytes < 0:
                raise ArchiveError(f"{shown(name)}: a negative size in the tar header")
            self._unread_bytes = member.size_bytes + -member.size_bytes % BLOCK_BYTES
            member.content = self._content(member.size_bytes)
        elif kind in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE):
            member.device = (_number(block[329:337], "device"), _number(block[337:345], "device"))
        return member

    def _content(self, size_bytes: int) -> Iterator[bytes]:
        while size_bytes > 0:
            chunk = self._read_exactly(min(size_bytes, CHUNK_BYTES))
            size_bytes -= len(chunk)
            self._unread_bytes -= len(chunk)
            yield chunk

    def _skip(self, size_bytes: int) -> None:
        while size_bytes > 0:
            size_bytes -= len(self._read_exactly(min(size_bytes, CHUNK_BYTES)))

    def _read_to_end(self) -> None:
        # A compressed archive carries its checksum behind what the tar needs.
        while self._source.read(CHUNK_BYTES):
            pass

    def _read_exactly(self, size_bytes: int) -> bytes:
        content = self._source.read(size_bytes)
        if len(content) < size_bytes:
            raise ArchiveError("the tar ends in the middle of an entry: it is truncated")
        return content


def _checksum_matches(block: bytes) -> bool:
    try:
        expected = _number(block[148:156], "checksum")
    except ArchiveError:
        return False
    summed = block[:148] + b" " * 8 + block[156:]
    # Some old tools summed signed characters.
    return expected == sum(summed) or expected == sum(summed) - 256 * sum(byte > 127 for byte in summed)


def _number(text: bytes, what: str, name: bytes = b"") -> int:
    if text[0] in (0x80, 0xFF):
        return int.from_bytes(bytes([text[0] & 0x7F if text[0] == 0x80 else 0xFF]) + text[1:], "big", signed=True)
    digits = text.strip(b" \0").partition(b"\0")[0]
    if digits.strip(b"01234567"):
        raise ArchiveError(f"{shown(name) + ': ' if name else ''}a tar header's {what} is no number: {text!r}")
    return int(digits or b"0", 8)


def _attribute(attributes: dict[bytes, bytes], key: bytes, text: bytes, name: bytes) -> int:
    value = attributes.get(key)
    if not value:
        return _number(text, key.decode(), name)
    found = _PAX_NUMBER.fullmatch(value)
    if found is None:
        raise ArchiveError(f"{shown(name)}: an extended header's {key.decode()} is no number: {value[:40]!r}")
    # Downwards, as the whole seconds of a file's time are counted.
    return int(found[1]) - (value.startswith(b"-") and bool((found[2] or b"").strip(b"0")))


def _name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0]
    # GNU's own format keeps times where POSIX has the prefix.
    return prefix + b"/" + name if prefix and block[257:263] == b"ustar\0" else name


def _pax_records(text: bytes) -> dict[bytes, bytes]:
    """Return those records that say something about a root file system."""
    records = {}
    start = 0
    while start < len(text) and text[start]:
        found = _RECORD_LENGTH.match(text, start)
        end = start + int(found[1]) if found else 0
        key, equals, value = text[found.end() : end - 1].partition(b"=") if found else (b"", b"", b"")
        if not equals or end > len(text) or text[end - 1 : end] != b"\n":
            raise ArchiveError("an extended tar header is damaged")
        if key in _RECORDS:
            records[key] = value
        elif key.startswith(b"GNU.sparse."):
            records[_SPARSE] = value
        start = end
    return records
