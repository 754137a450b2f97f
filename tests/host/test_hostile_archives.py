"""Archives that mean harm are refused whole, with the entry's name, and leave nothing behind."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import struct
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from node.host.errors import ArchiveError
from node.host.images import ImageStore
from node.host.rootfs_entry import Bounds

SMALL = Bounds(
    entries_max=50, total_bytes_max=2**20, path_bytes_max=300, depth_max=20, ratio_max=20, ratio_free_bytes=64 * 1024
)


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **attributes: object
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, content


def tar(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


async def chunks(content: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def census(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


async def refuse(tmp_path: Path, archive: bytes, bounds: Bounds = SMALL) -> str:
    """Import, expect a refusal, check that nothing is left, return the message."""
    store = await ImageStore.open(tmp_path / "images", bounds)
    (tmp_path / "outside").write_text("untouched")
    with pytest.raises(ArchiveError) as caught:
        await store.import_tar("evil", chunks(archive))
    assert store.images() == []
    assert census(tmp_path) == ["images", "images/incoming", "outside"]
    assert (tmp_path / "outside").read_text() == "untouched"
    return str(caught.value)


FILE = entry("bin/true", content=b"x")


@pytest.mark.parametrize(
    ("culprit", "entries", "reason"),
    [
        ("../outside", [entry("../outside", content=b"x")], "'..'"),
        ("a/../../outside", [entry("a/../../outside", content=b"x")], "'..'"),
        ("./a/..", [entry("./a/..", tarfile.DIRTYPE)], "'..'"),
        ("/etc/cron.d/x", [entry("/etc/cron.d/x", content=b"x")], "absolute"),
        ("//etc/x", [entry("//etc/x", content=b"x")], "absolute"),
        ("a/x", [entry("a", tarfile.SYMTYPE, linkname="/tmp"), entry("a/x", content=b"x")], "symlink"),
        ("a/x", [entry("a", tarfile.SYMTYPE, linkname=".."), entry("a/x", tarfile.DIRTYPE)], "symlink"),
        ("a/b/x", [entry("a", tarfile.SYMTYPE, linkname="bin"), entry("a/b/x", content=b"x")], "symlink"),
        ("a", [entry("a", tarfile.SYMTYPE, linkname="/outside"), entry("a", content=b"x")], "twice"),
        ("a", [entry("a", content=b"x"), entry("a", content=b"y")], "twice"),
        ("a", [entry("a", tarfile.DIRTYPE), entry("a", tarfile.SYMTYPE, linkname="/")], "twice"),
        ("a/x", [entry("a", content=b"x"), entry("a/x", content=b"x")], "file"),
        ("a", [entry("a", tarfile.LNKTYPE, linkname="../../../outside")], "'..'"),
        ("a", [entry("a", tarfile.LNKTYPE, linkname="/etc/passwd")], "absolute"),
        ("a", [entry("a", tarfile.LNKTYPE, linkname="etc/shadow")], "no earlier entry"),
        ("a", [entry("a", tarfile.LNKTYPE, linkname="a")], "no earlier entry"),
        ("b", [entry("a", tarfile.DIRTYPE), entry("b", tarfile.LNKTYPE, linkname="a")], "directory"),
        (
            "b",
            [entry("a", tarfile.SYMTYPE, linkname="/etc"), entry("b", tarfile.LNKTYPE, linkname="a/passwd")],
            "no earlier",
        ),
        ("sda", [entry("sda", tarfile.BLKTYPE, devmajor=8)], "block device"),
        ("dev/sda", [entry("dev/sda", tarfile.BLKTYPE, devmajor=8)], "block device"),
        ("dev/mem", [entry("dev/mem", tarfile.CHRTYPE, devmajor=1, devminor=1)], "character device"),
        ("dev/null", [entry("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=1)], "character device"),
        ("etc/null", [entry("etc/null", tarfile.CHRTYPE, devmajor=1, devminor=3)], "character device"),
        ("pipe", [entry("pipe", tarfile.FIFOTYPE)], "fifo"),
        (".", [entry(".", tarfile.SYMTYPE, linkname="/")], "root must be a directory"),
        ("a", [entry("a", tarfile.SYMTYPE, linkname="")], "symlink's target"),
        ("a", [entry("a", tarfile.SYMTYPE, linkname="x" * 400)], "symlink's target"),
        ("n" * 100, [entry("n" * 256, content=b"")], "too long"),
        ("d/d/d", [entry("d/" * 21 + "x", content=b"")], "too long"),
        ("p/pp", [entry("/".join(["p", *["pp" * 40] * 4]), content=b"")], "too long"),
        ("tmp", [entry("tmp", tarfile.SYMTYPE, linkname="../../outside")], "must be a directory"),
        ("dev", [entry("dev", content=b"x")], "must be a directory"),
        ("var", [entry("var", tarfile.SYMTYPE, linkname="/")], "symlink"),
        ("etc/hosts", [entry("etc/hosts", tarfile.DIRTYPE)], "must be a file"),
        ("a", [entry("a", content=b"x", uid=2**32 - 1)], "out of range"),
        ("a", [entry("a", content=b"x", uid=-1)], "out of range"),
        ("a", [entry("a", content=b"x", mtime=2**50)], "out of range"),
        ("cont", [entry("cont", b"M", b"x")], "tar type"),
        ("sparse", [entry("sparse", tarfile.GNUTYPE_SPARSE)], "sparse"),
        ("a", [entry("a", content=b"x", pax_headers={"GNU.sparse.major": "1"})], "sparse"),
        ("f48", [entry(f"f{number:02}") for number in range(51)], "more than 50 entries"),
        (
            "big2",
            [entry(f"big{number}", content=os.urandom(200_000).hex().encode()) for number in range(3)],
            "more than 1048576 bytes",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_hostile_entry_refuses_the_whole_archive(
    tmp_path: Path, culprit: str, entries: list[tuple[tarfile.TarInfo, bytes]], reason: str
) -> None:
    form = tarfile.GNU_FORMAT if any(info.uid < 0 for info, _ in entries) else tarfile.PAX_FORMAT
    archive = gzip.compress(tar(FILE, *entries, form=form))
    message = await refuse(tmp_path, archive, replace(SMALL, ratio_free_bytes=4 * 2**20))
    assert culprit in message
    assert reason in message
    assert "\n" not in message


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda content: subprocess.run(["zstd", "-q", "-c"], input=content, capture_output=True, check=True).stdout,
}
needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd on this host")
KINDS = ["gzip", "bzip2", "xz", pytest.param("zstd", marks=needs_zstd)]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path, kind: str) -> None:
    bomb = COMPRESSORS[kind](tar(FILE, entry("zeros", content=bytes(900_000))))
    assert len(bomb) * SMALL.ratio_max < 900_000
    assert "refused as a bomb" in await refuse(tmp_path, bomb)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_truncated_compressed_archive_is_refused(tmp_path: Path, kind: str) -> None:
    packed = COMPRESSORS[kind](tar(FILE, entry("data", content=os.urandom(100_000))))
    assert "truncated" in await refuse(tmp_path, packed[:-30_000])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_damaged_compressed_archive_is_refused(tmp_path: Path, kind: str) -> None:
    packed = bytearray(COMPRESSORS[kind](tar(FILE, entry("data", content=os.urandom(100_000)))))
    packed[50_000:50_040] = bytes(40)
    assert await refuse(tmp_path, bytes(packed))


@pytest.mark.parametrize("length", [0, 1, 511, 512, 600, 1024, 1500])
async def test_a_plain_archive_cut_anywhere_is_refused(tmp_path: Path, length: int) -> None:
    archive = tar(entry("data", content=b"d" * 700))
    message = await refuse(tmp_path, archive[:length])
    assert "truncated" in message or "no tar" in message


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(2000), os.urandom(5000), b"{}" * 600])
async def test_what_is_no_tar_is_called_so(tmp_path: Path, content: bytes) -> None:
    assert "no tar archive" in await refuse(tmp_path, content)


async def test_an_archive_without_files_is_refused(tmp_path: Path) -> None:
    assert "holds no files" in await refuse(tmp_path, tar())
    shutil.rmtree(tmp_path / "images")
    assert "holds no files" in await refuse(tmp_path, tar(entry("./", tarfile.DIRTYPE)))


def with_checksum(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        (slice(124, 136), b"\xff" * 12, "negative size"),
        (slice(124, 136), b"12x45678901\0", "no number"),
        (slice(124, 136), b"\x80" + b"\x7f" * 11, "truncated"),
        (slice(100, 108), b"zzzzzzz\0", "no number"),
        (slice(136, 148), b"\x80" + b"\x7f" * 11, "out of range"),
    ],
)
async def test_impossible_numbers_in_a_header_are_refused(
    tmp_path: Path, field: slice, value: bytes, reason: str
) -> None:
    archive = bytearray(tar(entry("a", content=b"x" * 10)))
    block = bytearray(archive[:512])
    block[field] = value
    assert reason in await refuse(tmp_path, with_checksum(block) + bytes(archive[512:]))


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
async def test_an_extended_header_cannot_fill_the_memory(tmp_path: Path, kind: bytes) -> None:
    info = entry("header", kind)[0]
    info.size = 2**33 - 1
    archive = info.tobuf(tarfile.USTAR_FORMAT) + bytes(4096)
    assert "extended tar header of" in await refuse(tmp_path, archive)


async def test_endless_extended_headers_are_refused(tmp_path: Path) -> None:
    header = entry("long", tarfile.GNUTYPE_LONGNAME, b"name\0")[0].tobuf(tarfile.GNU_FORMAT) + b"name\0".ljust(
        512, b"\0"
    )
    assert "in a row" in await refuse(tmp_path, header * 100 + tar(FILE))


@pytest.mark.parametrize("text", [b"999 path=x\n", b"path=x\n", b"-5 path=x\n", b"10 path=xx", b"6 path\n", b"0 x=\n"])
async def test_damaged_pax_records_are_refused(tmp_path: Path, text: bytes) -> None:
    info = entry("pax", b"x")[0]
    info.size = len(text)
    archive = info.tobuf(tarfile.USTAR_FORMAT) + text.ljust(512, b"\0") + tar(FILE)
    assert "damaged" in await refuse(tmp_path, archive)


async def test_a_pax_path_is_checked_like_any_other(tmp_path: Path) -> None:
    message = await refuse(tmp_path, tar(FILE, entry("harmless", content=b"x", pax_headers={"path": "../outside"})))
    assert "../outside" in message


async def test_a_name_with_control_characters_cannot_forge_the_message(tmp_path: Path) -> None:
    message = await refuse(tmp_path, tar(entry("../\n\x1b[31mall is well\x07", content=b"x")))
    assert "\n" not in message
    assert "\x1b" not in message


async def test_an_xz_archive_that_wants_all_the_memory_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1024 * 2**20}]
    # The dictionary's size stands in the header; packing a little does not need it.
    packed = bytearray(lzma.compress(tar(FILE), filters=[{**filters[0], "dict_size": 2**20}]))
    header_at = packed.index(bytes([0x21, 0x01]), 12)
    packed[header_at + 2] = 38  # 2**31 bytes
    header_bytes = (packed[12] + 1) * 4
    crc = struct.pack("<I", __import__("zlib").crc32(bytes(packed[12 : 12 + header_bytes - 4])))
    packed[12 + header_bytes - 4 : 12 + header_bytes] = crc
    assert "damaged" in await refuse(tmp_path, bytes(packed))


async def test_a_directory_with_a_device_or_a_fifo_is_refused_like_an_archive(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "ok").write_text("x")
    os.mkfifo(source / "pipe")
    store = await ImageStore.open(tmp_path / "images", SMALL)
    with pytest.raises(ArchiveError, match=r"'pipe': is a fifo"):
        await store.import_directory("evil", source)
    assert store.images() == []
    assert census(tmp_path / "images") == ["incoming"]


async def test_a_link_in_place_of_the_source_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    store = await ImageStore.open(tmp_path / "images", SMALL)
    for path in (tmp_path / "link", tmp_path / "absent", Path(__file__)):
        with pytest.raises(ArchiveError, match="is no directory"):
            await store.import_directory("evil", path)


async def test_the_store_does_not_swallow_itself(tmp_path: Path) -> None:
    store = await ImageStore.open(tmp_path / "images", SMALL)
    with pytest.raises(ArchiveError, match="holds the image store itself"):
        await store.import_directory("evil", tmp_path)
