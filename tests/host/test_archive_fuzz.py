"""Whatever bytes or members come: an ArchiveError or a root file system, never anything else, and never outside."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from node.host.canonical_tar import CanonicalTar
from node.host.errors import ArchiveError
from node.host.rootfs_builder import RootfsBuilder
from node.host.rootfs_entry import Bounds, Kind, Member
from node.host.tar_reader import TarReader

BOUNDS = Bounds(entries_max=60, total_bytes_max=100_000)


def sample_tar() -> bytearray:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind in (("bin", tarfile.DIRTYPE), ("bin/" + "long" * 40, tarfile.REGTYPE), ("l", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.mtime, info.linkname = kind, 1.5, "bin"
            info.size = 10 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"0123456789"))
    return bytearray(file.getvalue())


SAMPLE = sample_tar()


def summed(archive: bytearray) -> bytes:
    """Put the right checksum into every block that may be a header, so that damage gets past the first check."""
    for start in range(0, len(archive) - 511, 512):
        block = archive[start : start + 512]
        if any(block):
            block[148:156] = b" " * 8
            archive[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    return bytes(archive)


def refusal(archive: bytes) -> str:
    """Read an archive to its end; return why it was refused, "" if it was not."""
    try:
        for member in TarReader(io.BytesIO(archive)).members():
            b"".join(member.content)
    except ArchiveError as error:
        return str(error)
    return ""


@given(
    st.lists(
        st.tuples(st.integers(0, len(SAMPLE) // 512 - 1), st.integers(0, 345), st.binary(min_size=1, max_size=12)),
        max_size=6,
    )
)
@settings(max_examples=300, deadline=None)
@example([(2, 0, b"--5 mtime=1\n")])
def test_a_damaged_tar_is_read_or_refused(damage: list[tuple[int, int, bytes]]) -> None:
    archive = bytearray(SAMPLE)
    for block, place, value in damage:
        archive[block * 512 + place : block * 512 + place + len(value)] = value
    for content in (summed(bytearray(archive)), bytes(archive)):
        assert "\n" not in refusal(content)


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
@example(b"13 mtime=--5\n")
@example(b"11 mtime=.\n")
@example(b"0 \n")
@example(b"3 =")
@example(b"00000009 a=b\n")
def test_any_extended_header_is_read_or_refused(text: bytes) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = b"x", len(text)
    archive = info.tobuf(tarfile.USTAR_FORMAT) + text + bytes(-len(text) % 512) + bytes(SAMPLE)
    assert "\n" not in refusal(archive)


def test_an_extended_header_of_many_small_records_is_read_in_linear_time() -> None:
    text = b"4 =\n" * 250_000
    info = tarfile.TarInfo("pax")
    info.type, info.size = b"x", len(text)
    archive = info.tobuf(tarfile.USTAR_FORMAT) + text + bytes(-len(text) % 512) + bytes(SAMPLE)
    assert len(list(TarReader(io.BytesIO(archive)).members())) == 3


names = st.lists(
    st.sampled_from([b"a", b"b", b"..", b".", b"", b"dev", b"etc", b"tmp", b"null", b"hosts"]), min_size=1, max_size=4
).map(b"/".join)
members = st.builds(
    lambda name, kind, target, mode: Member(name, kind, mode, target=target, content=iter([b"content"])),
    names,
    st.sampled_from([Kind.FILE, Kind.FILE, Kind.SYMLINK, Kind.HARD_LINK, Kind.DIRECTORY, Kind.FIFO]),
    st.one_of(names, st.sampled_from([b"/", b"../..", b"/etc/passwd"])),
    st.integers(0, 0o7777),
)


@given(st.lists(members, min_size=1, max_size=12), st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_sequence_of_members_leaves_the_root_or_stores_what_an_image_must_not_hold(
    sequence: list[Member], privileged: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "outside").write_text("untouched")
        builder = RootfsBuilder(folder / "rootfs", BOUNDS, privileged=privileged and os.geteuid() == 0)
        try:
            for member in sequence:
                builder.add(member)
            entries = builder.finish()
        except ArchiveError:
            pass
        else:
            found = {
                os.fsencode(path.relative_to(folder / "rootfs")): path.lstat() for path in folder.rglob("rootfs/**/*")
            }
            assert set(found) == {entry.path for entry in entries}
            for entry in entries:
                kind = stat.S_IFMT(found[entry.path].st_mode)
                assert kind in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
            content = b"".join(CanonicalTar(entries, folder / "rootfs").stream())
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                assert len(archive.getmembers()) == len(entries)
        assert sorted(os.listdir(folder)) == ["outside", "rootfs"]
        assert (folder / "outside").read_text() == "untouched"


@pytest.mark.parametrize("repeated", ["a/", "dev/null", "."])
def test_endless_repetition_is_bounded_too(tmp_path: Path, repeated: str) -> None:
    builder = RootfsBuilder(tmp_path / "rootfs", BOUNDS)
    kind = Kind.CHARACTER_DEVICE if repeated == "dev/null" else Kind.DIRECTORY
    for _ in range(60):
        builder.add(Member(repeated.encode(), kind, device=(1, 3)))
    with pytest.raises(ArchiveError, match="more than 60 entries"):
        builder.add(Member(repeated.encode(), kind, device=(1, 3)))
