"""Whatever layers say, in whatever order: a root file system as the rules make it, or the image is refused."""

from __future__ import annotations

import json
import os
import stat
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from node.host import image_sources
from node.host.errors import ArchiveError
from node.host.layered_builder import LayeredBuilder
from node.host.rootfs_builder import MOUNT_DIRECTORIES, MOUNT_FILES
from node.host.rootfs_entry import Bounds, Kind, Member
from tests.host.packing import Layout, docker_archive, entry, tar

BOUNDS = Bounds(entries_max=200, total_bytes_max=200_000)
PARTS = ("a", "b", "a", "b", "c", ".wh.a", ".wh.b", ".wh..wh..opq")
names = st.lists(st.sampled_from(PARTS), min_size=1, max_size=3).map("/".join)
members = st.builds(
    lambda name, kind, text: Member(name.encode(), kind, target=text.encode(), content=iter([text.encode()])),
    names,
    st.sampled_from([Kind.FILE, Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.HARD_LINK]),
    st.sampled_from(["a", "b", "a/b", "/etc", ".."]),
)
layers = st.lists(st.lists(members, max_size=6), min_size=1, max_size=4)


def model(tree: dict[str, str], layer: list[Member]) -> dict[str, str]:
    """The specification in its plainest form: first everything that goes, then everything that comes."""
    below = dict(tree)
    for member in layer:
        folder, _, name = member.name.decode().rpartition("/")
        place = f"{folder}/" if folder else ""
        if name == ".wh..wh..opq":
            below = {path: what for path, what in below.items() if not path.startswith(place) or path == folder}
        elif name.startswith(".wh."):
            gone = place + name[4:]
            below = {path: what for path, what in below.items() if path != gone and not path.startswith(gone + "/")}
    for member in layer:
        path = member.name.decode()
        if any(part.startswith(".wh.") for part in path.split("/")):
            continue
        if member.kind is not Kind.DIRECTORY:
            below = {each: what for each, what in below.items() if not each.startswith(path + "/")}
        parents = path.split("/")
        for depth in range(1, len(parents)):
            below.setdefault("/".join(parents[:depth]), "directory")
        below[path] = "directory" if member.kind is Kind.DIRECTORY else "other"
    return below


@given(layers)
@settings(max_examples=400, deadline=None)
def test_layers_make_what_the_specification_says_or_are_refused(drawn: list[list[Member]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "rootfs"
        builder, expected = LayeredBuilder(root, BOUNDS), dict[str, str]()
        try:
            for layer in drawn:
                builder.begin_layer()
                for member in layer:
                    builder.add(member)
                expected = model(expected, layer)
            entries = builder.finish()
        except ArchiveError:
            assert os.listdir(folder) == ["rootfs"]
            return
        ours = {path.decode() for path in (*MOUNT_DIRECTORIES, *MOUNT_FILES)} | {"var", "etc"}
        built = {each.path.decode(): each.kind for each in entries if each.path.decode() not in ours}
        assert {path: "directory" if kind is Kind.DIRECTORY else "other" for path, kind in built.items()} == expected
        on_disk = {str(path.relative_to(root)) for path in root.rglob("*")} - ours
        assert on_disk == set(built)
        for path, kind in built.items():
            mode = (root / path).lstat().st_mode
            assert stat.S_ISDIR(mode) == (kind is Kind.DIRECTORY)


LAYER = tar(entry("opt", kind=tarfile.DIRTYPE), entry("opt/a", b"x" * 100), entry("opt/.wh.b"))
SAMPLES = (Layout([LAYER, LAYER]).pack(), docker_archive([LAYER, LAYER], Cmd=["/bin/sh"]))


@given(st.sampled_from(SAMPLES), st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=4))
@settings(max_examples=200, deadline=None)
def test_a_damaged_packed_image_is_refused_or_whole(sample: bytes, damage: list[tuple[float, bytes]]) -> None:
    archive = bytearray(sample)
    for share, value in damage:
        at = int(share * (len(archive) - len(value)))
        archive[at : at + len(value)] = value
    with tempfile.TemporaryDirectory() as folder:
        path, root = Path(folder) / "archive", Path(folder) / "rootfs"
        path.write_bytes(archive)
        with suppress(ArchiveError):
            image_sources.from_archive(path, BOUNDS)(root, lambda: None)
        assert set(os.listdir(folder)) <= {"archive", "rootfs"}


KEYS = st.sampled_from(["manifests", "digest", "size", "config", "layers", "rootfs", "diff_ids", "Config", "Layers"])
LEAVES = st.none() | st.integers() | st.text(max_size=5)
documents = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner))


@given(documents)
@settings(max_examples=150, deadline=None)
def test_any_json_in_the_place_of_a_manifest_is_refused(document: object) -> None:
    text = json.dumps(document).encode()
    for name in ("index.json", "manifest.json"):
        mark = [entry("oci-layout", b"{}")] if name == "index.json" else []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "archive"
            path.write_bytes(tar(*mark, entry(name, text)))
            try:
                image_sources.from_archive(path, BOUNDS)(Path(folder) / "rootfs", lambda: None)
            except ArchiveError:
                continue
            raise AssertionError(f"{name} with {text!r} made an image")
