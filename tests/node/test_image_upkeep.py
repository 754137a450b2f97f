"""What a cluster may do without: copies that another node keeps, and what lost its name; never the last of a name."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import trio

from node import image_exchange
from node.host import image_fetch
from node.host.errors import ImageError
from node.host.images import ImageStore
from node.image_exchange import ImageExchange
from node.image_names import ImageNames
from scheduler.images import decode, prefix
from tests.node.shell import Wire


class Cluster:
    """Two nodes in memory, with stores on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wire = Wire()
        self.nodes: dict[str, ImageExchange] = {}

    async def add(self, name: str, disk_bytes_max: int = 1 << 20) -> ImageExchange:
        store = await ImageStore.open(self.folder / name / "images", disk_bytes_max=disk_bytes_max)
        names = ImageNames(self.folder / name / "names")
        others = lambda: [each for each in self.nodes if each != name]  # noqa: E731
        self.nodes[name] = ImageExchange(store, names, self.wire.join(name), others)
        return self.nodes[name]

    async def put(self, at: str, name: str, tag: str = "latest", text: str = "x") -> str:
        source = self.folder / "source"
        source.mkdir(exist_ok=True)
        (source / "content").write_text(text.ljust(1000))
        for path in (source / "content", source):
            os.utime(path, (1_700_000_000, 1_700_000_000))  # the same content is the same image at any second
        staging = await ImageStore.open(self.folder / "staging")
        image = await staging.import_directory("staged", source)
        return (await self.nodes[at].put(name, tag, staging.export(image.digest))).digest


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(image_fetch, "BACKOFF_S", 0.0)
    monkeypatch.setattr(image_exchange, "TELL_TIMEOUT_S", 30.0)  # the disk may be slow, and nobody is really away
    cluster = Cluster(tmp_path)
    for name in ("n1", "n2"):
        await cluster.add(name)
    return cluster


def shown(node: ImageExchange) -> list[tuple[str, str, bool]]:
    return [(image.name, image.tag, image.fetched) for image in node.list()]


async def test_a_fetched_image_is_listed_by_all_its_names_where_it_was_fetched(cluster: Cluster) -> None:
    digest = await cluster.put("n1", "app", "1")
    await cluster.put("n1", "app", "2")
    await cluster.nodes["n2"].ensure(digest)
    assert shown(cluster.nodes["n2"]) == [("app", "1", True), ("app", "2", True)]
    await cluster.put("n1", "app", "2", text="other")
    assert shown(cluster.nodes["n2"]) == [("app", "1", True)]


async def test_prune_removes_copies_that_another_node_keeps_and_nothing_else(cluster: Cluster) -> None:
    digest = await cluster.put("n1", "app")
    await cluster.nodes["n2"].ensure(digest)
    assert await cluster.nodes["n1"].prune(0, dry_run=False) == []
    assert [idle.digest for idle in await cluster.nodes["n2"].prune(0, dry_run=True)] == [digest]
    assert shown(cluster.nodes["n2"]) != []
    assert await cluster.nodes["n2"].prune(60, dry_run=False) == []
    cluster.wire.cut = {"n1"}
    assert await cluster.nodes["n2"].prune(0, dry_run=False) == [], "nobody who answers has it"
    cluster.wire.cut = set()
    cluster.nodes["n2"].store.acquire(digest)
    assert await cluster.nodes["n2"].prune(0, dry_run=False) == [], "it is used"
    cluster.nodes["n2"].store.release(digest)
    assert len(await cluster.nodes["n2"].prune(0, dry_run=False)) == 1
    assert (shown(cluster.nodes["n1"]), shown(cluster.nodes["n2"])) == ([("app", "latest", False)], [])


async def test_a_copy_that_is_imported_as_well_is_kept_from_then_on(cluster: Cluster, tmp_path: Path) -> None:
    digest = await cluster.put("n1", "app")
    await cluster.nodes["n2"].ensure(digest)
    await cluster.put("n2", "mine")
    assert await cluster.nodes["n2"].prune(0, dry_run=False) == []
    again = await ImageStore.open(tmp_path / "n2/images")
    assert not again.facts(digest).fetched


async def test_what_lost_its_name_is_collected_in_time_and_goes_at_once_when_pruned(cluster: Cluster) -> None:
    node = cluster.nodes["n1"]
    old = await cluster.put("n1", "app")
    await cluster.put("n1", "app", text="new")
    assert [(image.name, image.digest == old) for image in node.list()] == [("app", False), ("", True)]
    assert await node.upkeep.sweep() == [], "a waiting job may still mean it"
    node.store._uses.remember(old, time.time() - 2 * 86_400)
    assert [idle.digest for idle in await node.upkeep.sweep()] == [old]
    middle = await cluster.put("n1", "app", text="newer still")
    await cluster.put("n2", "app", text="given elsewhere")
    assert len(await node.prune(0, dry_run=False)) == 2
    assert node.store.resolve(middle) is None
    assert node.list() == []


async def test_a_fetch_makes_room_by_what_others_keep(cluster: Cluster) -> None:
    small = await cluster.add("n3", disk_bytes_max=2_500)
    digests = [await cluster.put("n1", f"app{number}", text=str(number)) for number in range(4)]
    for digest in digests:
        await small.ensure(digest)
        await trio.sleep(0.002)
    assert [image.name for image in small.list()] == ["app2", "app3"]
    own = [await cluster.put("n3", f"own{number}", text=f"own {number}") for number in range(2)]
    with pytest.raises(ImageError, match="no room"):
        await small.ensure(digests[0])
    assert {image.digest for image in small.list()} == set(own)


async def test_a_stack_is_fetched_whole_and_held_whole_or_not_at_all(cluster: Cluster) -> None:
    digests = [await cluster.put("n1", name, text=name) for name in ("app", "jdk", "base")]
    assert await cluster.nodes["n2"].digest_of("app;jdk;base") == ";".join(digests)
    node = cluster.nodes["n2"]
    await node.acquire(digests, "7.0.1")
    assert [node.store.users(digest) for digest in digests] == [["7.0.1"]] * 3
    assert node.stack(digests).roots == tuple(node.store.rootfs(digest) for digest in digests)
    for digest in digests:
        node.store.release(digest, "7.0.1")
    with pytest.raises(ImageError, match="no node that answers has it"):
        await node.acquire([*digests, "sha256:" + "0" * 64], "7.0.1")
    assert [node.store.users(digest) for digest in digests] == [[]] * 3


async def test_an_image_on_its_way_is_listed_with_how_far_it_is(cluster: Cluster) -> None:
    digest = await cluster.put("n1", "app", text="x" * 100_000)
    node, seen = cluster.nodes["n2"], []
    stream = node._stream

    async def slow(*args: object, **more: object):  # type: ignore[no-untyped-def]
        seen.append([(image.name, image.percent) for image in node.list()])
        async for chunk in stream(*args, **more):  # type: ignore[arg-type]
            yield chunk[:60_000]
            seen.append([(image.name, image.percent) for image in node.list()])
            yield chunk[60_000:]

    node._stream = slow  # type: ignore[method-assign, assignment]
    await node.ensure(digest)
    assert [each[0][0] for each in seen] == ["app", "app"]
    assert seen[0][0][1] == 0
    assert 50 <= seen[1][0][1] <= 60
    assert [(image.name, image.percent) for image in node.list()] == [("app", 100)]


async def test_the_older_tags_of_a_name_are_outdated(cluster: Cluster) -> None:
    for tag in ("3", "1", "2"):
        await cluster.put("n1", "app", tag, text=tag)
        await trio.sleep(0.002)
    await cluster.put("n1", "other")
    assert cluster.nodes["n2"].outdated_names(1) == ["app:1", "app:3"]
    assert cluster.nodes["n2"].outdated_names(3) == []


async def test_everybody_hears_what_a_node_has_when_it_changes(cluster: Cluster) -> None:
    said: list[frozenset[bytes]] = []
    node = cluster.nodes["n2"]
    node.announce(lambda value: said.append(decode(value)))
    digest = await cluster.put("n1", "app")
    await node.ensure(digest)
    await node.prune(0, dry_run=False)
    assert said == [frozenset(), frozenset((prefix(digest),)), frozenset()]
