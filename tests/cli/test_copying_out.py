"""`fofoca cp` out of a task whose tar stream lies, on Pythons whose tarfile has filters and on those before."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from node.cli.commands.cp import Unpacking


@pytest.fixture(autouse=True, params=["with filters", "before 3.11.4"])
def filters(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "before 3.11.4":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    elif not hasattr(tarfile, "data_filter"):
        pytest.skip("this Python has none")


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, mode
    made.size = 4 if kind == tarfile.REGTYPE else 0
    return made


def unpack(target: Path, *entries: tarfile.TarInfo) -> Unpacking:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for each in entries:
            tar.addfile(each, io.BytesIO(b"data"))
    reader, writer = os.pipe()
    unpacking = Unpacking(reader, target)
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(stream.getvalue())
    unpacking.join()
    return unpacking


def test_files_and_links_come_out_under_the_new_name(tmp_path: Path) -> None:
    inside = (
        entry("old", tarfile.DIRTYPE, mode=0o755),
        entry("old/link", tarfile.SYMTYPE, "file"),
        entry("old/file"),
        entry("old/twin", tarfile.LNKTYPE, "old/file"),
        entry("old/none", tarfile.SYMTYPE, "not/there"),
    )
    assert unpack(tmp_path / "new", *inside).failed is None
    assert (tmp_path / "new/link").read_bytes() == b"data"
    assert os.readlink(tmp_path / "new/link") == "file"
    assert (tmp_path / "new/twin").stat().st_ino == (tmp_path / "new/file").stat().st_ino
    assert os.readlink(tmp_path / "new/none") == "not/there"


@pytest.mark.parametrize(
    "hostile",
    [
        (entry("../out"),),
        (entry("top/../../out"),),
        (entry("top/twin", tarfile.LNKTYPE, "../../out"),),
        (entry("top/pipe", tarfile.FIFOTYPE),),
        (entry("top/device", tarfile.CHRTYPE),),
    ],
    ids=["above", "around", "hard link", "pipe", "device"],
)
def test_nothing_leads_out_of_the_target(tmp_path: Path, hostile: tuple[tarfile.TarInfo, ...]) -> None:
    target = tmp_path / "deep" / "target"
    target.mkdir(parents=True)
    (tmp_path / "out").write_bytes(b"untouched")
    assert unpack(target, *hostile).failed is not None
    nothing_was_touched(tmp_path)


@pytest.mark.parametrize(
    "links",
    [
        (entry("top/link", tarfile.SYMTYPE, "../../.."), entry("top/link/out")),
        (entry("top/link", tarfile.SYMTYPE, "/"),),
        (entry("top/a", tarfile.SYMTYPE, "."), entry("top/a/b", tarfile.SYMTYPE, "../../../out")),
        (entry("top/b", tarfile.SYMTYPE, "a/../../out"), entry("top/a", tarfile.SYMTYPE, ".")),
    ],
    ids=["through a link", "absolute link", "link in a link", "by a later link"],
)
def test_links_that_lead_out_are_left_out_and_all_else_comes(
    tmp_path: Path, links: tuple[tarfile.TarInfo, ...]
) -> None:
    """Logs of an image may be a link to /dev/stdout; the folder is wanted all the same."""
    target = tmp_path / "deep" / "target"
    target.mkdir(parents=True)
    (tmp_path / "out").write_bytes(b"untouched")
    unpacked = unpack(target, *links, entry("top/file"))
    assert unpacked.failed is None
    assert len(unpacked.left_out) == 1
    assert (target / "top/file").read_bytes() == b"data"
    nothing_was_touched(tmp_path)


def nothing_was_touched(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    assert (tmp_path / "out").read_bytes() == b"untouched"
    assert [path.name for path in tmp_path.iterdir()] in (["deep", "out"], ["out", "deep"])
    links = [path for path in target.rglob("*") if path.is_symlink()]
    assert all(Path(os.path.realpath(path)).is_relative_to(target) for path in links)


def test_no_set_id_bit_comes_out(tmp_path: Path) -> None:
    assert unpack(tmp_path, entry("tool", mode=0o6755)).failed is None
    assert (tmp_path / "tool").stat().st_mode & 0o7000 == 0
