"""The store stays within its bound, loses only what it may, and survives kill -9 in the middle of it."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from node.host.errors import ImageError, ImageInUse
from node.host.images import ImageStore

KIB = 1 << 10


class Shelf:
    """A store of five kibibytes and sources of one each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keep: set[str] = set()

    async def open(self, disk_bytes_max: int = 5 * KIB) -> ImageStore:
        store = await ImageStore.open(self.folder / "images", disk_bytes_max=disk_bytes_max)

        async def expendable(digest: str) -> bool:
            return digest not in self.keep

        store.room.expendable = expendable
        return store

    def source(self, name: str, size_bytes: int = KIB) -> Path:
        folder = self.folder / name
        folder.mkdir()
        (folder / "content").write_bytes(name.encode().ljust(size_bytes, b"."))
        return folder


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


async def test_what_was_used_longest_ago_makes_room(shelf: Shelf) -> None:
    store = await shelf.open()
    digests = []
    for number in range(5):
        digests.append((await store.import_directory(f"i:{number}", shelf.source(str(number)))).digest)
        await trio.sleep(0.002)
    store.acquire(digests[0])
    store.release(digests[0])
    await store.import_directory("new", shelf.source("new", 2 * KIB))
    assert {each.tag for each in store.images() if each.name == "i"} == {"0", "3", "4"}
    assert store.stored_bytes <= 5 * KIB


async def test_what_could_never_be_kept_is_not_unpacked_to_the_end(shelf: Shelf) -> None:
    """A terabyte of zeros in a sparse file would fill the disk first."""
    store = await shelf.open()
    endless = shelf.source("endless")
    os.truncate(endless / "content", 1 << 40)
    with trio.fail_after(30), pytest.raises(ImageError, match=r"images\.disk_bytes_max"):
        await store.import_directory("endless", endless)
    assert not list((shelf.folder / "images" / "incoming").iterdir())


async def test_the_order_of_use_is_remembered_over_a_restart(shelf: Shelf) -> None:
    store = await shelf.open()
    digests = []
    for number in range(5):
        digests.append((await store.import_directory(f"i:{number}", shelf.source(str(number)))).digest)
        await trio.sleep(0.01)
    store.acquire(digests[0])
    again = await shelf.open()
    assert [idle.digest for idle in again.idle()] == [*digests[1:], digests[0]]


async def test_what_is_used_or_must_be_kept_never_goes_and_the_import_is_refused_whole(shelf: Shelf) -> None:
    store = await shelf.open()
    used = await store.import_directory("used", shelf.source("used", 2 * KIB))
    kept = await store.import_directory("kept", shelf.source("kept", 2 * KIB))
    store.acquire(used.digest, "12.0.1")
    shelf.keep = {kept.digest}
    with pytest.raises(ImageError, match=r"images\.disk_bytes_max"):
        await store.import_directory("new", shelf.source("new", 2 * KIB))
    assert [each.name for each in store.images()] == ["kept", "used"]
    assert list((shelf.folder / "images/incoming").iterdir()) == []
    with pytest.raises(ImageInUse, match=r"in use by 12\.0\.1"):
        await store.remove(used.digest)
    store.release(used.digest, "12.0.1")
    await store.import_directory("new", shelf.folder / "new")
    assert [each.name for each in store.images()] == ["kept", "new"]


async def test_the_same_content_again_needs_no_room(shelf: Shelf) -> None:
    store = await shelf.open()
    await store.import_directory("a", shelf.source("a", 4 * KIB))
    await store.import_directory("b", shelf.folder / "a")
    assert [each.name for each in store.images()] == ["a", "b"]


async def test_many_imports_at_once_stay_within_the_bound(shelf: Shelf) -> None:
    store = await shelf.open()
    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(store.import_directory, f"i:{number}", shelf.source(str(number)))
    assert store.stored_bytes <= 5 * KIB
    assert len(store.images()) == 5


async def test_an_image_that_goes_is_let_go_of_first(shelf: Shelf) -> None:
    store = await shelf.open()
    image = await store.import_directory("a", shelf.source("a"))
    told: list[tuple[Path, bool]] = []
    store.removing = lambda rootfs: told.append((rootfs, (rootfs / "content").exists()))
    await store.remove("a")
    assert told == [(shelf.folder / "images" / image.digest.removeprefix("sha256:") / "rootfs", True)]


async def test_an_image_that_cannot_be_let_go_of_stays_whole(shelf: Shelf) -> None:
    store = await shelf.open()
    image = await store.import_directory("a", shelf.source("a"))

    def refuse(rootfs: Path) -> None:
        raise ImageError("mounted")

    store.removing = refuse
    with pytest.raises(ImageError, match="mounted"):
        await store.remove("a")
    assert store.resolve("a") == image
    assert store.rootfs(image.digest).is_dir()


CHURN = """
import sys, trio
from pathlib import Path
from node.host.images import ImageStore

async def main():
    source = Path(sys.argv[2])
    store = await ImageStore.open(Path(sys.argv[1]), disk_bytes_max=5000)
    async def expendable(digest): return True
    store.room.expendable = expendable
    for number in range(10_000):
        (source / "content").write_bytes(b"%d" % number + b"." * 1000)
        image = await store.import_directory(f"image:{number % 7}", source)
        if number % 3 == 0:
            for idle in store.idle():
                await store.remove_idle(idle.digest)
        print(number, flush=True)

trio.run(main)
"""


@pytest.mark.parametrize("seed", range(4))
async def test_kill_9_between_imports_evictions_and_prunes_breaks_nothing(shelf: Shelf, seed: int) -> None:
    images, source = shelf.folder / "images", shelf.source("source")
    for _ in range(2):
        churn = subprocess.Popen([sys.executable, "-c", CHURN, images, source], stdout=subprocess.PIPE)
        assert churn.stdout is not None
        assert churn.stdout.readline() == b"0\n"
        time.sleep(random.Random(seed).uniform(0, 0.12))
        churn.kill()
        churn.communicate()
    store = await shelf.open(disk_bytes_max=5000)
    assert store.stored_bytes <= 5000, f"seed {seed}"
    stored = {image.digest for image in store.images()}
    assert {entry for entry in os.listdir(images) if len(entry) == 64} == {digest[7:] for digest in stored}
    assert os.listdir(images / "incoming") == []
    for digest in stored:
        content = b"".join([chunk async for chunk in store.export(digest)])
        assert "sha256:" + hashlib.sha256(content).hexdigest() == digest, f"seed {seed}"
    await store.import_directory("after", source)
