"""What an operator may write of volumes, and where the way to a folder ends."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import InvalidConfig
from node.host.mount_points import MountPointError, make
from node.host.volumes import VolumeError, VolumeRoot, open_folder, read_roots


def test_a_root_is_read_only_for_everybody_and_makes_nothing_unless_said() -> None:
    (root,) = read_roots({"data": "/srv/data"}).values()
    assert root == VolumeRoot("data", Path("/srv/data"), owners=None)
    assert (root.writable, root.create, root.by_owner) == (False, False, False)


def test_all_options_at_once() -> None:
    (root,) = read_roots({"homes": "/srv/homes:rw,create,by-owner,owners=ana+bob,ids=5000-5999"}).values()
    assert root == VolumeRoot(
        "homes", Path("/srv/homes"), writable=True, create=True, by_owner=True,
        owners=frozenset({"ana", "bob"}), first_id=5000, last_id=5999,
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "", "srv", "/srv:", "/srv:ro", "/srv:rw,rx", "/srv:rw=1", "/srv:owners", "/srv:owners=", "/srv:owners=ana+",
        "/srv:ids=", "/srv:ids=9-5", "/srv:ids=-1", "/srv:ids=0-70000", "/srv:ids=4294967295", "/srv/../etc", "/srv:,",
    ],
)  # fmt: skip
def test_what_an_operator_cannot_have_meant_is_refused(text: str) -> None:
    if text == "/srv:":
        return  # no option at all
    with pytest.raises(InvalidConfig, match=r"files\.volumes\.x"):
        read_roots({"x": text})


@pytest.mark.parametrize("name", ["", "A", "a/b", "a" * 33, "-a", "a,b"])
def test_a_roots_name_is_plain(name: str) -> None:
    with pytest.raises(InvalidConfig):
        read_roots({name: "/srv"})


def test_a_writable_root_that_local_users_reach_is_not_offered(tmp_path: Path) -> None:
    top = Path("/dev/shm") / f"fofoca-{os.getpid()}"
    top.mkdir()
    try:
        top.chmod(0o755)
        nosuid = bool(os.statvfs(top).f_flag & os.ST_NOSUID)
        open_root = VolumeRoot("x", top, writable=True)
        assert (open_root.obstacle() is None) == nosuid
        assert VolumeRoot("x", top).obstacle() is None
        assert VolumeRoot("x", top, writable=True, first_id=5000, last_id=5000).obstacle() is None
        top.chmod(0o700)
        assert open_root.obstacle() is None
    finally:
        top.rmdir()
    assert "no directory" in (VolumeRoot("x", Path("/etc/passwd")).obstacle() or "")
    assert "No such file" in (VolumeRoot("x", tmp_path / "missing").obstacle() or "")


def opened(root: VolumeRoot, folder: str, owner: str = "ana") -> str:
    descriptor = open_folder(root, owner, folder)
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def test_a_link_inside_a_volume_may_lead_anywhere_inside_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "way").symlink_to("a/b")
    (tmp_path / "a" / "b" / "up").symlink_to("../../a")
    assert opened(VolumeRoot("x", tmp_path), "way/up/b") == str(tmp_path / "a" / "b")


@pytest.mark.parametrize("lure", ["/", "/etc", "..", "../..", "/proc/self/root", "/proc/1/cwd"])
def test_no_link_leads_out(tmp_path: Path, lure: str) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "way").symlink_to(lure)
    for create in (False, True):
        for folder in ("way", "way/etc", "way/new"):
            with pytest.raises(VolumeError, match=r"leads out|link where none"):
                opened(VolumeRoot("x", tmp_path / "root", create=create), folder)
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_folders_are_made_where_that_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match="no such folder"):
        opened(VolumeRoot("x", tmp_path), "a/b")
    assert opened(VolumeRoot("x", tmp_path, create=True, by_owner=True), "a/b") == str(tmp_path / "ana" / "a" / "b")
    assert (tmp_path / "ana" / "a").stat().st_mode & 0o777 == 0o700
    with pytest.raises(VolumeError, match="no such folder"):
        opened(VolumeRoot("x", tmp_path, by_owner=True), "", owner="bob")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to("/etc")
    before = len(os.listdir("/proc/self/fd"))
    for folder in ("way", "missing", "a/b/c"):
        for create in (False, True):
            try:
                opened(VolumeRoot("x", tmp_path, create=create, by_owner=create), folder)
            except VolumeError:
                continue
    assert len(os.listdir("/proc/self/fd")) == before


@given(st.lists(st.sampled_from(["a", "b", "..", "up", "out", "loop"]), min_size=1, max_size=6))
def test_whatever_the_folder_it_is_below_the_root_or_refused(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    root = tmp_path_factory.mktemp("volume")
    (root / "a" / "b").mkdir(parents=True)
    for link, target in (("up", "a"), ("a/up", ".."), ("a/out", "../.."), ("out", "/etc"), ("loop", "loop")):
        (root / link).symlink_to(target)
    try:
        where = opened(VolumeRoot("x", root), "/".join(words))
    except VolumeError:
        return
    assert where == str(root) or where.startswith(f"{root}/")


@pytest.fixture
def layers(tmp_path: Path) -> Callable[..., Path]:
    for name in ("layer", "image"):
        (tmp_path / name).mkdir()
    (tmp_path / "image" / "var" / "lib").mkdir(parents=True)
    (tmp_path / "image" / "var").chmod(0o750)
    (tmp_path / "image" / "run").symlink_to("/etc")
    (tmp_path / "image" / "file").write_text("")
    return lambda *targets: make(tmp_path / "layer", [tmp_path / "image"], targets, os.getuid()) or tmp_path / "layer"


def test_mount_points_look_like_what_they_lie_over(layers: Callable[..., Path]) -> None:
    layer = layers("/var/lib/x/y")
    assert (layer / "var/lib/x/y").is_dir()
    assert (layer / "var").stat().st_mode & 0o777 == 0o750
    assert list(layers("/var/lib").iterdir()) == [layer / "var"], "what the image has needs nothing"


@pytest.mark.parametrize("target", ["/run", "/run/x", "/file", "/file/x"])
def test_a_link_or_file_of_the_image_is_never_a_mount_point(layers: Callable[..., Path], target: str) -> None:
    with pytest.raises(MountPointError, match="is a link or a file"):
        layers(target)
