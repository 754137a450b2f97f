"""OCI layouts and docker-archives: layers are laid over each other as the specification says, or refused whole."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node.host.errors import ArchiveError
from node.host.image_config import ImageConfig
from node.host.images import ImageStore
from node.host.rootfs_entry import Bounds
from tests.host.packing import Entry, Layout, configuration, digest, docker_archive, entry, tar

SMALL = Bounds(entries_max=60, total_bytes_max=2**20, depth_max=20, ratio_max=20, ratio_free_bytes=64 * 1024)
DIR, LINK, HARD = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 10_000):
        yield content[start : start + 10_000]


async def stored(tmp_path: Path, archive: bytes, bounds: Bounds | None = None) -> tuple[ImageStore, str]:
    store = await ImageStore.open(tmp_path / "images", bounds)
    return store, (await store.import_tar("app", chunks(archive))).digest


async def refused(tmp_path: Path, archive: bytes, bounds: Bounds = SMALL) -> str:
    """Import, expect a refusal, check that nothing is left, return the message."""
    store = await ImageStore.open(tmp_path / "images", bounds)
    with pytest.raises(ArchiveError) as caught:
        await store.import_tar("evil", chunks(archive))
    assert store.images() == []
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["images", "images/incoming"]
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def files_of(tmp_path: Path, *layers: list[Entry]) -> dict[str, str]:
    """What a user finds below opt/ after these layers: file contents, link targets, "/" for directories."""
    store, image = await stored(tmp_path, Layout([tar(*layer) for layer in layers]).pack())
    root = store.rootfs(image) / "opt"
    return {str(path.relative_to(root)): _shown(path) for path in sorted(root.rglob("*"))}


def _shown(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    return "/" if path.is_dir() else path.read_text()


OLD = [entry("opt", kind=DIR), entry("opt/a", b"old"), entry("opt/d", kind=DIR), entry("opt/d/x", b"x")]


@pytest.mark.parametrize(
    ("upper", "expected"),
    [
        ([entry("opt/a", b"new")], {"a": "new", "d": "/", "d/x": "x"}),
        ([entry("opt/.wh.a")], {"d": "/", "d/x": "x"}),
        ([entry("opt/.wh.d")], {"a": "old"}),
        ([entry("opt/.wh.absent"), entry("absent/.wh.x")], {"a": "old", "d": "/", "d/x": "x"}),
        ([entry("opt/.wh.a"), entry("opt/a", b"new")], {"a": "new", "d": "/", "d/x": "x"}),
        ([entry("opt/a", b"new"), entry("opt/.wh.a")], {"a": "new", "d": "/", "d/x": "x"}),
        ([entry("opt/d", kind=DIR), entry("opt/d/.wh..wh..opq")], {"a": "old", "d": "/"}),
        ([entry("opt/d/y", b"y"), entry("opt/d/.wh..wh..opq")], {"a": "old", "d": "/", "d/y": "y"}),
        ([entry("opt/.wh.d"), entry("opt/d/y", b"y")], {"a": "old", "d": "/", "d/y": "y"}),
        ([entry("opt/d", b"a file now")], {"a": "old", "d": "a file now"}),
        ([entry("opt/d", kind=LINK, linkname="/etc")], {"a": "old", "d": "-> /etc"}),
        ([entry("opt/a", kind=DIR), entry("opt/a/z", b"z")], {"a": "/", "a/z": "z", "d": "/", "d/x": "x"}),
        ([entry("opt/.wh..wh.plnk", kind=DIR), entry("opt/.wh..wh.plnk/1.2", b"")], {"a": "old", "d": "/", "d/x": "x"}),
        ([entry(".wh..wh..opq"), entry("opt/only", b"me")], {"only": "me"}),
        ([entry("opt/b", kind=HARD, linkname="opt/a")], {"a": "old", "b": "old", "d": "/", "d/x": "x"}),
    ],
)
async def test_a_layer_adds_replaces_and_removes(tmp_path: Path, upper: list[Entry], expected: dict[str, str]) -> None:
    assert await files_of(tmp_path, OLD, upper) == expected


async def test_what_one_layer_removed_a_later_one_may_bring_back(tmp_path: Path) -> None:
    assert await files_of(tmp_path, OLD, [entry("opt/.wh.d")], [entry("opt/d", b"file")], [entry("opt/.wh.a")]) == {
        "d": "file"
    }


async def test_replacing_one_of_two_hard_links_leaves_the_other_as_it_was(tmp_path: Path) -> None:
    lower = [entry("opt/a", b"old"), entry("opt/b", kind=HARD, linkname="opt/a")]
    assert await files_of(tmp_path, lower, [entry("opt/a", b"new")]) == {"a": "new", "b": "old"}


CONFIG = {
    "Entrypoint": ["/bin/app"],
    "Cmd": ["serve", "--all"],
    "Env": ["PATH=/app", "A=1=2", "A=last"],
    "User": "www:www",
    "WorkingDir": "/srv",
    "ExposedPorts": {"80/tcp": {}},
}


async def test_every_packing_of_an_image_is_the_same_image_and_tells_how_to_run_it(tmp_path: Path) -> None:
    layers = [tar(*OLD), tar(entry("opt/.wh.a"))]
    docker = docker_archive(layers, **CONFIG)
    archives = [docker, Layout(layers, **CONFIG).pack()]
    archives.append(Layout(layers, [gzip.compress(layers[0]), layers[1]], **CONFIG).pack())
    archives += [compress(docker) for compress in (gzip.compress, lzma.compress, bz2.compress)]
    if program := shutil.which("zstd"):
        zstd = lambda data: subprocess.run([program, "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout  # noqa: E731
        archives += [zstd(docker), Layout(layers, [zstd(layer) for layer in layers], **CONFIG).pack()]
    store = await ImageStore.open(tmp_path / "images")
    digests = {(await store.import_tar("app", chunks(archive))).digest for archive in archives}
    assert len(digests) == 1
    assert store.facts(digests.pop()).config == ImageConfig(
        ("/bin/app",), ("serve", "--all"), (("PATH", "/app"), ("A", "last")), "www:www", "/srv"
    )


async def test_how_an_image_is_run_counts_for_its_digest_and_travels_with_an_export(tmp_path: Path) -> None:
    layers = [tar(*OLD)]
    store, plain = await stored(tmp_path, docker_archive(layers))
    image = (await store.import_tar("app", chunks(docker_archive(layers, **CONFIG)))).digest
    assert plain == (await store.import_tar("bare", chunks(layers[0]))).digest
    assert image != plain
    exported = b"".join([chunk async for chunk in store.export(image)])
    assert digest(exported) == image
    (tmp_path / "exported.tar").write_bytes(exported)
    assert "opt/a" in subprocess.run(["tar", "tf", tmp_path / "exported.tar"], capture_output=True, text=True).stdout
    for offset in (1, 511, 512, 700, 1024, 1536, 2000):
        assert b"".join([chunk async for chunk in store.export(image, offset)]) == exported[offset:], offset
    other = await ImageStore.open(tmp_path / "other")
    assert (await other.import_tar("app", chunks(exported))).digest == image
    again = await ImageStore.open(tmp_path / "other")
    assert again.facts(image).config.command == ("/bin/app", "serve", "--all")


async def test_the_links_of_older_docker_archives_are_followed_within_the_archive(tmp_path: Path) -> None:
    layer = tar(*OLD)
    text = configuration([layer, layer])
    real, alias = "a" * 64, "b" * 64
    manifest = [{"Config": f"{digest(text)[7:]}.json", "Layers": [f"{real}/layer.tar", f"{alias}/layer.tar"]}]
    archive = tar(
        entry(f"{real}/layer.tar", layer),
        entry(f"{alias}/layer.tar", kind=LINK, linkname=f"../{real}/layer.tar"),
        entry(f"{digest(text)[7:]}.json", text),
        entry("manifest.json", json.dumps(manifest).encode()),
    )
    store, image = await stored(tmp_path, archive)
    assert (store.rootfs(image) / "opt/a").read_text() == "old"


async def test_a_root_file_system_that_only_looks_packed_is_one(tmp_path: Path) -> None:
    store, image = await stored(tmp_path, tar(entry("manifest.json", b"[]"), entry("bin/app", b"x")))
    assert (store.rootfs(image) / "manifest.json").read_text() == "[]"
    store, image = await stored(tmp_path, tar(entry("blobs/sha256/" + "0" * 64, b"x")))
    assert (store.rootfs(image) / "blobs").is_dir()


@pytest.mark.parametrize(
    ("reason", "upper"),
    [
        ("'..' in a path", [entry("opt/../../.wh.etc")]),
        ("absolute", [entry("/etc/.wh.passwd")]),
        ("must name one entry", [entry("opt/.wh.")]),
        ("must name one entry", [entry("opt/.wh..")]),
        ("must name one entry", [entry("opt/.wh...")]),
        ("must name one entry", [entry("opt/.wh.d/x")]),
        ("which is a symlink", [entry("opt/l/.wh.passwd")]),
        ("which is a symlink", [entry("opt/l/.wh..wh..opq")]),
        ("which is a symlink", [entry("opt/l/passwd", b"root")]),
        ("which is a file", [entry("opt/a/.wh.x")]),
        ("twice", [entry("opt/a", b"1"), entry("opt/a", b"2")]),
        ("twice", [entry("opt/d/y", b"1"), entry("opt/d", b"2")]),
        ("no earlier entry", [entry("opt/.wh.a"), entry("opt/b", kind=HARD, linkname="opt/a")]),
        ("'..' in a path", [entry("opt/b", kind=HARD, linkname="../../etc/passwd")]),
        ("block device", [entry("dev/sda", kind=tarfile.BLKTYPE, devmajor=8)]),
        ("character device", [entry("opt/a", kind=tarfile.CHRTYPE)]),
        ("fifo", [entry("opt/p", kind=tarfile.FIFOTYPE)]),
        ("more than 60 entries", [entry(f"opt/.wh.{number}") for number in range(60)]),
        ("more than 1048576 bytes", [entry(f"opt/r{number}", os.urandom(200_000)) for number in range(6)]),
        ("must be a directory", [entry(".wh.tmp"), entry("tmp", kind=LINK, linkname="/")]),
    ],
)
async def test_a_hostile_layer_refuses_the_whole_image(tmp_path: Path, reason: str, upper: list[Entry]) -> None:
    lower = [*OLD, entry("opt/l", kind=LINK, linkname="/etc")]
    bounds = replace(SMALL, total_bytes_max=8 * 2**20) if "bytes" not in reason else SMALL
    archive = docker_archive([tar(*lower), tar(*upper)])
    if "bytes" in reason:  # packed, so that it is the content that is too much
        archive = Layout([tar(*lower), tar(*upper)]).pack()
        assert len(archive) > SMALL.total_bytes_max
    message = await refused(tmp_path, archive, bounds)
    assert reason in message or "larger than what is taken" in message
    assert "layer 2 of 2" in message or "must be" in message or "larger" in message


def _layout(change: Callable[[Layout], object], layers: list[bytes] | None = None, **config: Any) -> bytes:
    layout = Layout(layers or [tar(*OLD)], **config)
    change(layout)
    return layout.pack()


def _swap(layout: Layout, which: dict[str, Any], content: bytes) -> None:
    layout.files["blobs/sha256/" + which["digest"].removeprefix("sha256:")] = content


def _remade(layout: Layout, **changes: Any) -> None:
    layout.manifest |= changes
    layout.remanifest()


def _reconfigured(layout: Layout, text: bytes) -> None:
    _remade(layout, config=layout.add(text))


GONE = {"digest": "sha256:" + "0" * 64, "size": 3}
BAD_LAYOUTS: list[tuple[str, Callable[[Layout], object]]] = [
    ("wanted was", lambda each: _swap(each, each.manifest["layers"][0], tar(entry("opt/evil", b"x")))),
    ("wanted was", lambda each: _swap(each, each.manifest["config"], b"{}")),
    ("wanted was", lambda each: _swap(each, each.index["manifests"][0], b"{}")),
    ("its descriptor says", lambda each: _remade(each, layers=[{**each.manifest["layers"][0], "size": 5}])),
    ("does not hold it", lambda each: _remade(each, layers=[GONE])),
    ("only sha256", lambda each: _remade(each, layers=[{**GONE, "digest": "sha512:" + "0" * 128}])),
    ("only sha256", lambda each: _remade(each, layers=[{**GONE, "digest": "sha256:../../index.json"}])),
    ("1 layers and digests of 2", lambda each: _reconfigured(each, configuration([tar(*OLD)] * 2))),
    ("the configuration says", lambda each: _reconfigured(each, configuration([b"other"]))),
    ("is not what an image", lambda each: _reconfigured(each, b'{"rootfs": 7}')),
    ("is not what an image", lambda each: _reconfigured(each, b"[" * 100_000)),
    ("JSON; at most", lambda each: _reconfigured(each, b" " * (5 << 20))),
    ("holds 0 images", lambda each: each.index.update(manifests=[])),
    ("holds 2 images", lambda each: each.index.update(manifests=[*each.index["manifests"], GONE])),
    (
        "holds 0 images for linux",
        lambda each: each.index["manifests"][0].update(platform={"os": "linux", "architecture": "s390x"}),
    ),
    ("is for linux/s390x", lambda each: _reconfigured(each, each.config.replace(b'"linux"', b'"linux"').replace(
        each.config.split(b'"architecture": "')[1].split(b'"')[0], b"s390x"))),
    ("layer 1 of 1", lambda each: _remade(each, layers=[each.add(b"no tar at all")])),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "change"), BAD_LAYOUTS, ids=[f"{n}-{r}" for n, (r, _) in enumerate(BAD_LAYOUTS)])
async def test_a_layout_that_lies_is_refused_whole(
    tmp_path: Path, reason: str, change: Callable[[Layout], object]
) -> None:
    bounds = replace(SMALL, total_bytes_max=16 * 2**20)
    assert reason in await refused(tmp_path, _layout(change), bounds)


async def test_an_endless_chain_of_indexes_ends(tmp_path: Path) -> None:
    layout = Layout([tar(*OLD)])
    for _ in range(5):
        inner = layout.add(json.dumps(layout.index).encode())
        layout.index = {"manifests": [{**inner, "mediaType": "application/vnd.oci.image.index.v1+json"}]}
    assert "more than 3 deep" in await refused(tmp_path, layout.pack())


async def test_a_docker_archive_of_two_images_names_them(tmp_path: Path) -> None:
    assert "2 images (app:1, app:1)" in await refused(tmp_path, docker_archive([tar(*OLD)], images=2))


async def test_links_of_an_archive_lead_nowhere_else(tmp_path: Path) -> None:
    text = configuration([b"x"])
    manifest = [{"Config": f"{digest(text)[7:]}.json", "Layers": ["a" * 64 + "/layer.tar"]}]
    for target in ("/etc/passwd", "../../../etc/passwd", "../" + "a" * 64 + "/layer.tar"):
        archive = tar(
            entry("a" * 64 + "/layer.tar", kind=LINK, linkname=target),
            entry(f"{digest(text)[7:]}.json", text),
            entry("manifest.json", json.dumps(manifest).encode()),
        )
        assert "does not hold it" in await refused(tmp_path, archive)


async def test_a_bomb_in_a_layer_is_refused(tmp_path: Path) -> None:
    bomb = tar(entry("opt/zeros", bytes(4 << 20)))
    message = await refused(
        tmp_path, Layout([bomb], [lzma.compress(bomb)]).pack(), replace(SMALL, total_bytes_max=64 << 20)
    )
    assert "bomb" in message


@pytest.mark.parametrize(
    ("field", "config"),
    [
        ("env", {"Env": ["1A=x"]}),
        ("env", {"Env": ["A=\0"]}),
        ("command", {"Cmd": ["a\0b"]}),
        ("command", {"Cmd": ["a"] * 1001}),
        ("user", {"User": "../../root"}),
        ("user", {"User": "a b"}),
        ("workdir", {"WorkingDir": "srv"}),
        ("workdir", {"WorkingDir": "/srv/../../etc"}),
        ("workdir", {"WorkingDir": "/a\nlxc.mount.entry=x"}),
        ("size", {"Env": ["A=" + "x" * 70_000]}),
    ],
)
async def test_a_configuration_no_container_could_have_is_refused(
    tmp_path: Path, field: str, config: dict[str, Any]
) -> None:
    assert f"configuration: {field}" in await refused(tmp_path, docker_archive([tar(*OLD)], **config))


async def test_a_tar_with_a_forged_configuration_record_is_refused(tmp_path: Path) -> None:
    from node.host.canonical_tar import _extended_header

    for record in (b'{"user": "a b"}', b'{"unknown": 1}', b"no json", b"[" * 90_000):
        forged = _extended_header(b"g", {b"FOFOCA.config": record}) + tar(*OLD)
        assert "configuration" in await refused(tmp_path, forged)
