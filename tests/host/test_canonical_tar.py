"""The canonical tar: other tools read it, our reader reads it back, and every offset continues it."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.host import canonical_tar
from node.host.canonical_tar import CanonicalTar
from node.host.errors import ImageError
from node.host.rootfs_builder import RootfsBuilder
from node.host.rootfs_entry import Entry, Kind, Member
from node.host.tar_reader import TarReader

names = st.binary(min_size=1, max_size=255).filter(lambda name: name not in (b".", b"..") and not {0, 47} & set(name))
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)
numbers = st.one_of(st.integers(0, 2**32 - 2), st.integers(2**21 - 2, 2**21 + 2))
times = st.one_of(st.integers(-(2**40), 2**40), st.sampled_from([0, -1, 8**11 - 1, 8**11]))
entries = st.one_of(
    st.builds(
        Entry,
        paths,
        st.just(Kind.FILE),
        st.integers(0, 0o7777),
        numbers,
        numbers,
        times,
        st.just(0),
        st.just(b""),
        st.binary(max_size=64),
    ),
    st.builds(Entry, paths, st.just(Kind.DIRECTORY), st.integers(0, 0o7777), numbers, numbers, times),
    st.builds(Entry, paths, st.just(Kind.SYMLINK), st.just(0o777), numbers, numbers, times, st.just(0), paths),
    st.builds(Entry, paths, st.just(Kind.HARD_LINK), st.just(0o600), numbers, numbers, times, st.just(0), paths),
)


@given(st.lists(entries, min_size=1, max_size=5))
@settings(max_examples=150, deadline=None)
def test_our_reader_reads_back_what_the_header_says(listed: list[Entry]) -> None:
    content = b"".join(canonical_tar.header(entry) for entry in listed) + canonical_tar.END_MARK
    members = list(TarReader(io.BytesIO(content)).members())
    for entry, member in zip(listed, members, strict=True):
        assert member.name.rstrip(b"/") == entry.path.rstrip(b"/")
        assert (member.kind, member.mode, member.uid, member.gid) == (entry.kind, entry.mode, entry.uid, entry.gid)
        assert (member.mtime_s, member.target, member.capability) == (entry.mtime_s, entry.target, entry.capability)


@given(st.lists(entries, min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_python_s_tarfile_reads_the_same(listed: list[Entry]) -> None:
    content = b"".join(canonical_tar.header(entry) for entry in listed) + canonical_tar.END_MARK
    with tarfile.open(fileobj=io.BytesIO(content), encoding="utf-8", errors="surrogateescape") as archive:
        infos = archive.getmembers()
    for entry, info in zip(listed, infos, strict=True):
        assert info.name.encode("utf-8", "surrogateescape").rstrip(b"/") == entry.path.rstrip(b"/")
        assert (info.mode, info.uid, info.gid) == (entry.mode, entry.uid, entry.gid)
        assert int(info.mtime) == entry.mtime_s
        assert info.linkname.encode("utf-8", "surrogateescape") == entry.target


@given(st.lists(entries, min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_tarfile_and_our_reader_agree_on_what_tarfile_writes(listed: list[Entry]) -> None:
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
            for entry in listed:
                info = tarfile.TarInfo(os.fsdecode(entry.path))
                info.type, info.mode = b"%d" % entry.kind, entry.mode
                info.uid, info.gid, info.mtime = entry.uid, entry.gid, abs(entry.mtime_s)
                info.linkname = os.fsdecode(entry.target)
                archive.addfile(info)
        members = list(TarReader(io.BytesIO(file.getvalue())).members())
        for entry, member in zip(listed, members, strict=True):
            assert member.name.rstrip(b"/") == entry.path.rstrip(b"/")
            assert (member.kind, member.uid, member.mtime_s) == (entry.kind, entry.uid, abs(entry.mtime_s))
            assert member.target == entry.target


def built(folder: Path) -> tuple[list[Entry], Path]:
    builder = RootfsBuilder(folder / "rootfs")
    builder.add(Member(b"bin/small", Kind.FILE, content=iter([b"hello"])))
    builder.add(Member(b"bin/block", Kind.FILE, content=iter([b"b" * 512])))
    builder.add(Member(b"bin/other", Kind.HARD_LINK, target=b"bin/block"))
    builder.add(Member(b"n" * 180, Kind.FILE, content=iter([b"c" * 700, b"d" * 301])))
    return builder.finish(), folder / "rootfs"


def test_every_offset_continues_the_same_stream(tmp_path: Path) -> None:
    listed, rootfs = built(tmp_path)
    whole = b"".join(CanonicalTar(listed, rootfs).stream())
    assert CanonicalTar(listed, rootfs).size_bytes == len(whole)
    for offset in [*range(0, len(whole), 97), *range(0, len(whole) + 1024, 512), len(whole) - 1]:
        assert b"".join(CanonicalTar(listed, rootfs).stream(offset)) == whole[offset:], offset


@pytest.mark.skipif(os.geteuid() != 0, reason="owners and modes are on disk for root only; the tar has them always")
def test_gnu_tar_finds_no_difference_to_the_folder(tmp_path: Path) -> None:
    listed, rootfs = built(tmp_path)
    archive = tmp_path / "image.tar"
    archive.write_bytes(b"".join(CanonicalTar(listed, rootfs).stream()))
    compared = subprocess.run(
        ["tar", "--compare", "--file", archive, "--directory", rootfs], capture_output=True, text=True, check=False
    )
    assert (compared.returncode, compared.stdout, compared.stderr) == (0, "", "")


def test_the_form_is_fixed_to_the_byte() -> None:
    """Digests are names: whatever changes here makes every stored image another one."""
    plain = canonical_tar.header(Entry(b"etc/motd", Kind.FILE, 0o644, 0, 5, 1_700_000_000, 11))
    assert plain[:108] == b"etc/motd".ljust(100, b"\0") + b"0000644\0"
    assert plain[108:157] == b"0000000\x000000005\x0000000000013\x0014524770400\x00010707\x00 0"
    assert plain[157:] == bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\x000000000\0" + bytes(167)
    long = canonical_tar.header(Entry(b"d" * 101, Kind.DIRECTORY, 0o755, 2**21, 0, -1))
    assert len(long) == 3 * 512
    assert long[512:1024].rstrip(b"\0") == b"12 mtime=-1\n112 path=" + b"d" * 101 + b"/\n15 uid=2097152\n"
    assert hashlib.sha256(long).hexdigest() == "ed608cbfaf48ac536b972337ad24bd88c978a39e346801795e84332a8d44d01d"


@pytest.mark.parametrize("damage", ["shorter", "longer", "absent", "link"])
def test_a_file_that_changed_is_noticed(tmp_path: Path, damage: str) -> None:
    listed, rootfs = built(tmp_path)
    target = rootfs / "bin/small"
    if damage == "shorter":
        target.write_bytes(b"hell")
    elif damage == "longer":
        target.write_bytes(b"hello world")
    else:
        target.unlink()
    if damage == "link":
        (rootfs / "same size").write_bytes(b"other")
        target.symlink_to(rootfs / "same size")
    with pytest.raises(ImageError, match="bin/small"):
        list(CanonicalTar(listed, rootfs).stream())


trees = st.dictionaries(
    st.lists(st.sampled_from([b"a", b"b", b"\xc3\xa9", b"\xff", b"a-b"]), min_size=1, max_size=3).map(b"/".join),
    st.one_of(st.binary(max_size=1500), st.just(None)),
    min_size=1,
    max_size=8,
)


@given(trees, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_of_an_archive_does_not_matter_and_building_again_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[bytes, bytes | None], random: object
) -> None:
    prefixes = {path[:end] for path in tree for end in range(len(path)) if path[end : end + 1] == b"/"}
    files = {path: content for path, content in tree.items() if content is not None and path not in prefixes}
    order = list(files) or [b"only"]

    def image(order: list[bytes]) -> bytes:
        folder = tmp_path_factory.mktemp("built")
        builder = RootfsBuilder(folder / "rootfs")
        for path in order:
            builder.add(Member(path, Kind.FILE, content=iter([files.get(path, b"")])))
        return b"".join(CanonicalTar(builder.finish(), folder / "rootfs").stream())

    first = image(order)
    random.shuffle(order)  # type: ignore[attr-defined]
    assert image(order) == first
    again = tmp_path_factory.mktemp("again")
    builder = RootfsBuilder(again / "rootfs")
    for member in TarReader(io.BytesIO(first)).members():
        builder.add(member)
    assert b"".join(CanonicalTar(builder.finish(), again / "rootfs").stream()) == first
