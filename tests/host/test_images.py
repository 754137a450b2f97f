"""The image store: one content, one digest, however it came; names; use; fetching; crashes."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from node.host import image_fetch, image_folder
from node.host.busybox import build_busybox_rootfs
from node.host.directory_reader import DirectoryReader
from node.host.errors import ArchiveError, FetchInterrupted, HostError, ImageError, ImageInUse
from node.host.images import Image, ImageStore
from node.host.rootfs_entry import Bounds

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def make_source(folder: Path) -> Path:
    """A small root file system with everything an image may hold."""
    source = folder / "source"
    for name in ("bin", "etc", "tmp", "usr/share/doc", "dev"):
        (source / name).mkdir(parents=True)
    (source / "tmp").chmod(0o1777)
    (source / "bin/su").write_bytes(b"#!" + b"s" * 3000)
    (source / "bin/su").chmod(0o4755)
    os.link(source / "bin/su", source / "bin/alias")
    (source / "etc/shadow").write_text("root:*:")
    (source / "etc/shadow").chmod(0o000 if os.geteuid() == 0 else 0o400)  # nobody else could read it back
    (source / "etc/mtab").symlink_to("../proc/self/mounts")
    (source / "etc/resolv.conf").symlink_to("/run/systemd/resolve/stub-resolv.conf")
    (source / os.fsdecode(b"usr/share/doc/\xff\xfe")).write_text("not text")
    (source / "usr/share" / ("long" * 40)).write_text("x")
    (source / "empty").touch()
    for path in source.rglob("*"):
        os.utime(path, (0, 1_600_000_000.75), follow_symlinks=False)
    return source


def tar_of(source: Path, names: list[str] | None = None) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", errors="surrogateescape", encoding="utf-8") as archive:
        for name in names or sorted(os.listdir(source)):
            archive.add(source / name, name)
    return file.getvalue()


async def chunks(content: bytes, size: int = 4096) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        await trio.lowlevel.checkpoint()
        yield content[start : start + size]


async def exported(store: ImageStore, digest: str) -> bytes:
    return b"".join([chunk async for chunk in store.export(digest)])


@pytest.fixture
async def store(tmp_path: Path) -> ImageStore:
    return await ImageStore.open(tmp_path / "images")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path)


async def test_directory_tar_and_export_of_the_same_content_have_one_digest(
    store: ImageStore, source: Path, tmp_path: Path
) -> None:
    image = await store.import_directory("base", source)
    shuffled = tar_of(source, ["usr", "etc", "tmp", "empty", "dev", "bin"])
    for archive in (tar_of(source), shuffled, gzip.compress(shuffled)):
        assert (await store.import_tar("again", chunks(archive))).digest == image.digest
    content = await exported(store, image.digest)
    assert "sha256:" + hashlib.sha256(content).hexdigest() == image.digest
    other = await ImageStore.open(tmp_path / "other")
    assert (await other.import_tar("base", chunks(content))).digest == image.digest
    assert await exported(other, image.digest) == content


@pytest.mark.parametrize("change", ["content", "mode", "link", "time", "name"])
async def test_whatever_matters_to_a_program_changes_the_digest(store: ImageStore, source: Path, change: str) -> None:
    before = (await store.import_directory("base", source)).digest
    if change == "content":
        (source / "empty").write_text("no more")
    elif change == "mode":
        (source / "bin/su").chmod(0o755)
    elif change == "link":
        (source / "etc/mtab").unlink()
        (source / "etc/mtab").symlink_to("/proc/mounts")
    elif change == "time":
        os.utime(source / "empty", (0, 1_600_000_001))
    else:
        (source / "empty").rename(source / "vacant")
    assert (await store.import_directory("base", source)).digest != before


async def test_the_stored_root_has_every_mount_point_and_keeps_what_it_had(store: ImageStore, source: Path) -> None:
    rootfs = store.rootfs((await store.import_directory("base", source)).digest)
    for name in ("dev", "proc", "sys", "tmp", "run", "mnt", "work", "var/tmp"):
        assert stat.S_ISDIR((rootfs / name).lstat().st_mode), name
    for name in ("etc/hosts", "etc/resolv.conf"):
        assert stat.S_ISREG((rootfs / name).lstat().st_mode), name
    assert stat.S_IMODE((rootfs / "tmp").stat().st_mode) == 0o1777
    assert stat.S_IMODE((rootfs / "var/tmp").stat().st_mode) == 0o1777
    assert (rootfs / "bin/su").read_bytes() == (source / "bin/su").read_bytes()
    assert (rootfs / "bin/su").stat().st_ino == (rootfs / "bin/alias").stat().st_ino
    assert (rootfs / "etc/mtab").readlink() == Path("../proc/self/mounts")
    assert (rootfs / "bin/su").stat().st_mtime == 1_600_000_000
    assert (rootfs / "usr").stat().st_mtime == 1_600_000_000


@as_root
async def test_root_keeps_owners_setuid_and_capabilities(store: ImageStore, source: Path, tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(source / "empty", "security.capability", capability)
    os.chown(source / "bin/su", 0, 42)
    (source / "bin/su").chmod(0o6755)
    os.chown(source / "etc/mtab", 7, 8, follow_symlinks=False)
    image = await store.import_directory("base", source)
    rootfs = store.rootfs(image.digest)
    assert stat.S_IMODE((rootfs / "bin/su").stat().st_mode) == 0o6755
    assert (rootfs / "bin/su").stat().st_gid == 42
    assert (rootfs / "etc/mtab").lstat().st_uid == 7
    assert os.getxattr(rootfs / "empty", "security.capability") == capability
    other = await ImageStore.open(tmp_path / "other")
    await other.import_tar("base", store.export(image.digest))
    assert os.getxattr(other.rootfs(image.digest) / "empty", "security.capability") == capability


async def test_the_usual_devices_of_a_distribution_are_left_out(store: ImageStore, source: Path) -> None:
    plain = await store.import_directory("base", source)
    file = io.BytesIO(tar_of(source))
    with tarfile.open(fileobj=file, mode="a") as archive:
        for name, major, minor in (("null", 1, 3), ("tty", 5, 0), ("urandom", 1, 9)):
            info = tarfile.TarInfo(f"./dev/{name}")
            info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, major, minor
            archive.addfile(info)
    assert (await store.import_tar("base", chunks(file.getvalue()))).digest == plain.digest


def as_nobody(function: Callable[[Path], None]) -> None:
    """Run a function in a child without any privilege, in a folder of its own."""
    folder = Path(tempfile.mkdtemp())
    os.chown(folder, 65534, 65534)
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            function(folder)
        except BaseException:  # noqa: BLE001 - a child of fork must not run the parent's tests on
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        shutil.rmtree(folder)


@as_root
def test_without_root_files_belong_to_the_user_but_the_digest_and_export_are_the_same(tmp_path: Path) -> None:
    source = make_source(tmp_path)
    archive = tar_of(source)

    async def imported(folder: Path) -> tuple[Image, bytes, ImageStore]:
        store = await ImageStore.open(folder / "images")
        image = await store.import_tar("base", chunks(archive))
        return image, await exported(store, image.digest), store

    image, content, _ = trio.run(imported, tmp_path)

    def unprivileged(folder: Path) -> None:
        other, other_content, store = trio.run(imported, folder)
        assert other.digest == image.digest
        assert other_content == content
        program = (store.rootfs(other.digest) / "bin/su").stat()
        assert program.st_uid == 65534
        assert not program.st_mode & 0o7000
        trio.run(store.remove, "base")
        assert store.images() == []

    as_nobody(unprivileged)


async def test_names_resolve_with_and_without_tag_and_by_digest(store: ImageStore, source: Path) -> None:
    image = await store.import_directory("web/base:v1", source)
    assert (image.name, image.tag) == ("web/base", "v1")
    assert store.resolve("web/base:v1") == image
    assert store.resolve("web/base") is None
    by_digest = store.resolve(image.digest)
    assert by_digest is not None
    assert by_digest.digest == image.digest
    assert (await store.import_directory("web/base", source)).tag == "latest"
    assert store.resolve("web/base:latest") == store.resolve("web/base")
    assert store.resolve("sha256:" + "0" * 64) is None


@pytest.mark.parametrize(
    "name",
    ["", "Upper", "-x", "a b", "a:", "a:b:c", "a" * 129, "../x", "sha256:12", "a:-t", "a\n", "ä", "a:" + "t" * 129],
)
async def test_an_impossible_name_is_refused_saying_what_would_be_right(
    store: ImageStore, source: Path, name: str
) -> None:
    with pytest.raises(ImageError, match="use 1 to 128"):
        await store.import_directory(name, source)
    with pytest.raises(ImageError, match="use 1 to 128"):
        store.resolve(name)
    assert store.images() == []


async def test_a_name_moves_to_newer_content_and_the_older_stays_by_digest(store: ImageStore, source: Path) -> None:
    old = await store.import_directory("base", source)
    (source / "empty").write_text("new")
    new = await store.import_directory("base", source)
    assert store.resolve("base") == new
    listed = store.images()
    assert [(image.name, image.digest) for image in listed] == [("base", new.digest), ("", old.digest)]
    await store.remove(old.digest)
    assert store.images() == [new]


async def test_everything_is_there_after_reopening(store: ImageStore, source: Path, tmp_path: Path) -> None:
    await store.import_directory("base:v1", source)
    await store.import_directory("base:v2", source)
    again = await ImageStore.open(tmp_path / "images")
    assert again.images() == store.images()
    assert len(again.images()) == 2


async def test_an_image_in_use_is_not_removed_but_a_spare_name_is(store: ImageStore, source: Path) -> None:
    image = await store.import_directory("base", source)
    await store.import_directory("spare", source)
    store.acquire(image.digest)
    store.acquire(image.digest)
    await store.remove("spare")
    store.release(image.digest)
    for reference in ("base", image.digest):
        with pytest.raises(ImageInUse, match="in use by somebody"):
            await store.remove(reference)
    assert store.resolve("base") is not None
    store.release(image.digest)
    await store.remove("base")
    assert store.images() == []
    with pytest.raises(ImageError, match="not on this node"):
        store.acquire(image.digest)
    with pytest.raises(ImageError, match="none of that name"):
        await store.remove("base")


async def test_removing_leaves_nothing_and_touches_nothing_outside(
    store: ImageStore, source: Path, tmp_path: Path
) -> None:
    (source / "trap").symlink_to(tmp_path / "precious", target_is_directory=True)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("kept")
    image = await store.import_directory("base", source)
    await store.remove(image.digest)
    assert (tmp_path / "precious/file").read_text() == "kept"
    assert sorted(path.name for path in (tmp_path / "images").rglob("*")) == ["incoming", "names.json"]


async def test_an_image_with_a_mount_inside_is_not_removed(
    store: ImageStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = await store.import_directory("base", source)
    mounted = f"36 35 8:1 / {store.rootfs(image.digest).resolve()}/mnt/with\\040space rw - ext4 /dev/x rw\n"
    monkeypatch.setattr(image_folder, "mount_table", lambda: mounted)
    with pytest.raises(ImageInUse, match="with space"):
        await store.remove("base")
    assert store.resolve("base") == image
    assert (store.rootfs(image.digest) / "bin/su").exists()


async def test_leftovers_of_a_crash_are_cleared_and_half_images_never_seen(
    store: ImageStore, source: Path, tmp_path: Path
) -> None:
    image = await store.import_directory("base", source)
    images = tmp_path / "images"
    shutil.copytree(images / image.digest.removeprefix("sha256:"), images / "incoming/7.image", symlinks=True)
    (images / "incoming/abc.part").write_text("half")
    (images / ("f" * 64)).mkdir()
    again = await ImageStore.open(images)
    assert again.images() == [image]
    assert list((images / "incoming").iterdir()) == []


async def test_a_cancelled_import_leaves_nothing(store: ImageStore, source: Path, tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield tar_of(source)
        await trio.sleep_forever()

    with trio.move_on_after(0.05) as scope:
        await store.import_tar("base", endless())
    assert scope.cancelled_caught
    assert [path.name for path in (tmp_path / "images").rglob("*")] == ["incoming"]


async def test_two_imports_of_the_same_content_at_once_are_one_image(store: ImageStore, source: Path) -> None:
    async with trio.open_nursery() as nursery:
        for name in ("a", "b", "c"):
            nursery.start_soon(store.import_tar, name, chunks(tar_of(source)))
    assert [image.name for image in store.images()] == ["a", "b", "c"]
    assert len({image.digest for image in store.images()}) == 1


IMPORTER = """
import sys, trio
from pathlib import Path
from node.host.images import ImageStore

async def main():
    store = await ImageStore.open(Path(sys.argv[1]))
    for number in range(10_000):
        await store.import_directory(f"image:{number % 3}", Path(sys.argv[2]))
        print(number, flush=True)
        if number % 3 == 2:
            await store.remove("image:1")
        (Path(sys.argv[2]) / "empty").write_text(str(number))

trio.run(main)
"""


@pytest.mark.parametrize("run_for_s", [0.0, 0.03, 0.1])
async def test_kill_9_in_the_middle_leaves_whole_images_only(tmp_path: Path, source: Path, run_for_s: float) -> None:
    images = tmp_path / "images"
    importer = subprocess.Popen([sys.executable, "-c", IMPORTER, images, source], stdout=subprocess.PIPE)
    assert importer.stdout is not None
    assert importer.stdout.readline() == b"0\n"
    time.sleep(run_for_s)
    importer.kill()
    importer.communicate()

    store = await ImageStore.open(images)
    assert store.images()
    assert len(list(images.iterdir())) == len({image.digest for image in store.images()}) + 2
    for image in store.images():
        content = await exported(store, image.digest)
        assert "sha256:" + hashlib.sha256(content).hexdigest() == image.digest


async def test_imports_and_removals_of_the_same_content_at_once_never_lose_it(store: ImageStore, source: Path) -> None:
    async def remove_now_and_then() -> None:
        while True:
            await trio.sleep(0)
            with suppress(ImageError):
                await store.remove("base")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(remove_now_and_then)
        for _ in range(15):
            image = await store.import_directory("base", source)
            if store.resolve(image.digest) is not None:
                assert (store.rootfs(image.digest) / "bin/su").exists()
        nursery.cancel_scope.cancel()
    image = await store.import_directory("base", source)
    assert (store.rootfs(image.digest) / "bin/su").exists()


async def test_a_full_disk_is_said_and_nothing_is_stored(
    store: ImageStore, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("node.host.rootfs_builder.os.write", full)
    with pytest.raises(ArchiveError, match="no space left on the disk"):
        await store.import_directory("base", source)
    monkeypatch.undo()
    monkeypatch.setattr("node.host.image_folder.os.fsync", full)
    with pytest.raises(ImageError, match="no space left on the disk"):
        await store.import_directory("base", source)
    monkeypatch.undo()
    assert [image.name for image in store.images()] in ([], [""])
    await store.import_directory("base", source)
    again = await ImageStore.open(tmp_path / "images")
    assert again.images() == store.images()


class Peer:
    """A peer's export, that breaks where told."""

    def __init__(self, content: bytes, breaks_at: tuple[int, ...] = ()) -> None:
        self.content = content
        self.breaks_at = list(breaks_at)
        self.offsets: list[int] = []
        self.sent_bytes = 0

    async def open(self, offset: int) -> AsyncIterator[bytes]:
        self.offsets.append(offset)
        end = self.breaks_at.pop(0) if self.breaks_at else None
        async for chunk in chunks(self.content[offset:end], 1000):
            self.sent_bytes += len(chunk)
            yield chunk
        if end is not None:
            raise FetchInterrupted("the line broke")


@pytest.fixture
async def peer(tmp_path: Path, source: Path) -> tuple[str, Peer]:
    store = await ImageStore.open(tmp_path / "peer")
    image = await store.import_directory("base", source)
    return image.digest, Peer(await exported(store, image.digest))


async def test_a_fetched_image_is_the_peer_s(store: ImageStore, peer: tuple[str, Peer]) -> None:
    digest, line = peer
    image = await store.fetch(digest, line.open, "base:v3")
    assert (image.name, image.tag, image.digest) == ("base", "v3", digest)
    assert await exported(store, digest) == line.content
    await store.fetch(digest, line.open)
    assert line.offsets == [0], "what is here is not fetched again"


async def test_many_waiters_share_one_download(store: ImageStore, peer: tuple[str, Peer]) -> None:
    digest, line = peer
    images = []

    async def wait() -> None:
        images.append(await store.fetch(digest, line.open))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(wait)
    assert line.offsets == [0]
    assert {image.digest for image in images} == {digest}
    assert len(images) == 20


async def test_a_broken_transfer_goes_on_where_it_stopped(
    store: ImageStore, peer: tuple[str, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_fetch, "BACKOFF_S", 0)
    digest, line = peer
    line.breaks_at = [3000, 3000, 9000]
    await store.fetch(digest, line.open)
    assert line.offsets == [0, 3000, 3000, 9000]
    assert line.sent_bytes == len(line.content)


async def test_a_broken_transfer_goes_on_where_it_stopped_after_a_restart_too(
    store: ImageStore, peer: tuple[str, Peer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(image_fetch, "BACKOFF_S", 0)
    digest, line = peer
    line.breaks_at = [3000] * image_fetch.ATTEMPTS_MAX
    with pytest.raises(FetchInterrupted):
        await store.fetch(digest, line.open)
    again = await ImageStore.open(tmp_path / "images")
    await again.fetch(digest, line.open)
    assert line.offsets[-1] == 3000
    assert await exported(again, digest) == line.content


async def test_a_fetch_that_fails_for_good_tells_all_waiters_and_a_later_one_resumes(
    store: ImageStore, peer: tuple[str, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_fetch, "BACKOFF_S", 0)
    digest, line = peer
    line.breaks_at = [2000] * image_fetch.ATTEMPTS_MAX
    failures = []

    async def wait() -> None:
        with pytest.raises(FetchInterrupted, match="broke 5 times"):
            await store.fetch(digest, line.open)
        failures.append(1)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
    assert len(failures) == 3
    await store.fetch(digest, line.open)
    assert line.offsets[-1] == 2000


async def test_when_the_fetching_caller_is_cancelled_a_waiter_takes_over(
    store: ImageStore, peer: tuple[str, Peer]
) -> None:
    digest, line = peer

    async def stuck(offset: int) -> AsyncIterator[bytes]:
        yield line.content[:5000]
        await trio.sleep_forever()

    fetched = []

    async def wait() -> None:
        fetched.append(await store.fetch(digest, line.open))

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def first() -> None:
            with scope:
                await store.fetch(digest, stuck)

        nursery.start_soon(first)
        await trio.sleep(0.05)
        nursery.start_soon(wait)
        await trio.sleep(0.01)
        scope.cancel()
    assert line.offsets == [5000]
    assert fetched[0].digest == digest


@pytest.mark.parametrize("lie", ["other content", "no tar", "truncated", "other order"])
async def test_a_peer_that_lies_is_found_out_and_nothing_is_stored(
    store: ImageStore, peer: tuple[str, Peer], lie: str, source: Path, tmp_path: Path
) -> None:
    digest, line = peer
    honest = line.content
    if lie == "other content":
        line.content = honest.replace(b"sss", b"sst", 1)
    elif lie == "no tar":
        line.content = b"<html>" * 1000
    elif lie == "truncated":
        line.content = honest[:-2048]
    else:
        line.content = tar_of(source).replace(b"root:*:", b"root::")
    with pytest.raises(ArchiveError):
        await store.fetch(digest, line.open)
    assert store.images() == []
    assert [path.name for path in (tmp_path / "images").rglob("*")] == ["incoming"]
    line.content = honest
    await store.fetch(digest, line.open)


async def test_a_fetch_is_bounded(tmp_path: Path, peer: tuple[str, Peer]) -> None:
    digest, line = peer
    store = await ImageStore.open(tmp_path / "images", Bounds(total_bytes_max=5000))
    with pytest.raises(ArchiveError, match="more than 5000 bytes"):
        await store.fetch(digest, line.open)
    with pytest.raises(ImageError, match="64 hexadecimal"):
        await store.fetch("sha256:../../etc", line.open)


async def test_an_image_is_not_removed_while_it_is_exported(store: ImageStore, source: Path) -> None:
    image = await store.import_directory("base", source)
    stream = store.export(image.digest)
    await anext(stream)
    with pytest.raises(ImageInUse):
        await store.remove("base")
    await stream.aclose()
    await store.remove("base")


async def test_an_import_never_holds_the_loop_up(store: ImageStore, tmp_path: Path) -> None:
    big = tmp_path / "big"
    for folder in range(20):
        (big / str(folder)).mkdir(parents=True)
        for number in range(60):
            (big / str(folder) / str(number)).write_bytes(os.urandom(4000))
    (big / "large").write_bytes(os.urandom(20_000_000))
    lags_s: list[float] = []

    async def watch() -> None:
        while True:
            before = time.perf_counter()
            await trio.sleep(0.001)
            lags_s.append(time.perf_counter() - before - 0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        image = await store.import_directory("big", big)
        async for _ in store.export(image.digest):
            pass
        nursery.cancel_scope.cancel()
    lags_s.sort()
    print("loop lag ms: median", lags_s[len(lags_s) // 2] * 1e3, "worst", lags_s[-1] * 1e3)
    # The bound aimed at is 10 ms; the median keeps a noisy machine out of the test's verdict.
    assert lags_s[len(lags_s) // 2] < 0.010


def test_a_reader_never_follows_a_link_slipped_in(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "a").mkdir(parents=True)
    (source / "a/file").write_text("x")
    (source / "b").write_text("x")
    members = DirectoryReader(source, Bounds()).members()
    assert next(members).name == b"a"
    (source / "a").rename(tmp_path / "moved")
    (source / "a").symlink_to("/etc")
    with pytest.raises(ArchiveError, match="'a'"):
        list(members)


needs_busybox = pytest.mark.skipif(not Path("/bin/busybox").exists(), reason="no busybox on this host")


@needs_busybox
async def test_the_built_in_busybox_image_is_the_same_on_every_host(store: ImageStore, tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        await trio.to_thread.run_sync(build_busybox_rootfs, tmp_path / name)
        digests.add((await store.import_directory(name, tmp_path / name)).digest)
    assert len(digests) == 1
    rootfs = store.rootfs(digests.pop())
    ran = await trio.run_process([str(rootfs / "bin/sh"), "-c", "echo $((6*7))"], capture_stdout=True)
    assert ran.stdout == b"42\n"


@needs_busybox
def test_an_existing_directory_is_not_filled_with_busybox(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="exists already"):
        build_busybox_rootfs(tmp_path)


def test_a_dynamic_busybox_is_refused_naming_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.host.busybox.BUSYBOX_PATHS", (Path("/bin/ls"),))
    with pytest.raises(HostError, match="install the package busybox-static"):
        build_busybox_rootfs(tmp_path / "x")
    monkeypatch.setattr("node.host.busybox.BUSYBOX_PATHS", (tmp_path / "absent",))
    with pytest.raises(HostError, match="no busybox"):
        build_busybox_rootfs(tmp_path / "x")
    assert not (tmp_path / "x").exists()
