"""Directories become a tar; tars of any usual compression go as they are."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from node import rootfs
from node.errors import InvalidValue


def tar_of(names: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(name)
            tar.addfile(entry, io.BytesIO(name.encode()))
    return buffer.getvalue()


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_goes_as_it_is_whatever_it_is_called(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "image.anything"
    path.write_bytes(compress(tar_of(["bin/sh", "etc/passwd"])))
    assert b"".join(rootfs.read(path)) == path.read_bytes()


def test_a_directory_becomes_a_tar_without_devices_and_names_of_users(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").write_text("x" * 1_000_000)
    (tmp_path / "link").symlink_to("bin/sh")
    os.mkfifo(tmp_path / "pipe")
    data = b"".join(rootfs.read(tmp_path))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert sorted(tar.getnames()) == [".", "./bin", "./bin/sh", "./link"]
        assert {entry.uname for entry in tar} == {""}
        assert tar.getmember("./bin/sh").size == 1_000_000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "neither|directory or a tar"),
        (b"hello" * 200, "directory or a tar"),
        (gzip.compress(b"x" * 600, mtime=0), "a tar"),
    ],
)
def test_what_is_no_tar_is_refused_at_once(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InvalidValue, match=said):
        rootfs.read(path)


def test_a_damaged_compression_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "image.tar.gz"
    path.write_bytes(gzip.compress(tar_of(["x"] * 50), mtime=0)[:40])
    with pytest.raises(InvalidValue, match="undamaged"):
        rootfs.read(path)


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="No such file"):
        rootfs.read(tmp_path / "nothing")


def test_giving_up_early_leaves_no_thread_stuck(tmp_path: Path) -> None:
    import threading

    (tmp_path / "big").write_bytes(bytes(5_000_000))
    before = threading.active_count()
    chunks = rootfs.read(tmp_path)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and thread.daemon:
            thread.join(2)
    assert threading.active_count() <= before
