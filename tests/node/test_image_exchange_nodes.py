"""Images between nodes, on real stores and a wire in memory: a name is known everywhere, content is checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import trio

from node import image_exchange
from node.errors import NotFound, PeerRefused, UnknownImage
from node.host import image_fetch
from node.host.errors import ImageError
from node.host.images import ImageStore
from node.image_exchange import ImageExchange
from node.image_names import ImageNames
from tests.node.shell import Wire


@dataclass
class Cluster:
    """Nodes that are all alive to each other."""

    folder: Path
    wire: Wire
    nodes: dict[str, ImageExchange]

    async def add(self, name: str) -> ImageExchange:
        store = await ImageStore.open(self.folder / name / "images")
        names = ImageNames(self.folder / name / "names")
        peers = self.wire.join(name)
        others = lambda: [each for each in self.nodes if each != name]  # noqa: E731
        self.nodes[name] = ImageExchange(store, names, peers, others)
        return self.nodes[name]

    async def put(self, at: str, name: str = "busybox", text: str = "a shell") -> str:
        source = self.folder / "source"
        (source / "bin").mkdir(parents=True, exist_ok=True)
        (source / "bin" / "sh").write_text(text)
        os.utime(source / "bin" / "sh", (0, 0))  # times are content
        staging = await ImageStore.open(self.folder / "staging")
        image = await staging.import_directory("staged", source)
        document = await self.nodes[at].put(name, "latest", staging.export(image.digest))
        assert document.digest == image.digest
        return image.digest


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(image_fetch, "BACKOFF_S", 0.0)
    cluster = Cluster(tmp_path, Wire(), {})
    for name in ("n1", "n2", "n3"):
        await cluster.add(name)
    return cluster


async def test_a_name_given_on_one_node_is_known_on_all(cluster: Cluster) -> None:
    digest = await cluster.put("n1")
    for node in cluster.nodes.values():
        assert await node.digest_of("busybox") == digest
        assert await node.digest_of(digest) == digest
    assert cluster.nodes["n2"].list() == []


async def test_a_node_that_missed_the_news_hears_of_it_when_it_appears_or_is_asked(cluster: Cluster) -> None:
    cluster.wire.cut = {"n2", "n3"}
    digest = await cluster.put("n1")
    cluster.wire.cut.add("n1")
    with pytest.raises(UnknownImage):
        await cluster.nodes["n2"].digest_of("busybox")
    cluster.wire.cut = set()
    assert await cluster.nodes["n2"].digest_of("busybox") == digest
    await cluster.nodes["n1"].tell("n3")
    assert cluster.nodes["n3"]._names.digest("busybox:latest") == digest


async def test_content_travels_when_it_is_needed_and_is_the_same(cluster: Cluster) -> None:
    digest = await cluster.put("n1")
    rootfs = await cluster.nodes["n3"].ensure(digest)
    assert (rootfs / "bin" / "sh").read_text() == "a shell"
    exported = hashlib.sha256()
    async for piece in await cluster.nodes["n3"].export("busybox", "latest"):
        exported.update(piece)
    assert digest == f"sha256:{exported.hexdigest()}"


async def test_content_that_is_not_what_was_named_is_refused_and_not_kept(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await cluster.put("n1")
    other = await cluster.put("n1", "other", "a wolf")

    async def lie(self: ImageStore, _: str, offset: int = 0) -> AsyncIterator[bytes]:
        async for piece in honest(self, other, offset):
            yield piece

    honest = ImageStore.export
    monkeypatch.setattr(ImageStore, "export", lie)
    with pytest.raises(ImageError, match=f"wanted was {digest}"):
        await cluster.nodes["n2"].ensure(digest)
    assert cluster.nodes["n2"].store.images() == []


async def test_a_holder_that_goes_away_is_replaced_by_the_next(cluster: Cluster) -> None:
    digest = await cluster.put("n1")
    await cluster.nodes["n2"].ensure(digest)
    fetching = cluster.nodes["n3"]
    holders = await fetching._holders(digest)
    assert sorted(holders) == ["n1", "n2"]

    async def both(_: str) -> dict[str, int]:
        cluster.wire.cut = {"n1"}
        return {"n1": 7, "n2": 7}

    fetching._holders = both  # type: ignore[method-assign]
    assert (await fetching.ensure(digest)).exists()


async def test_what_is_on_its_way_says_from_where_and_how_far(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_exchange, "READ_BYTES_MAX", 1024)
    digest = await cluster.put("n1", text="x" * 20_000)
    source, fetching = cluster.nodes["n1"], cluster.nodes["n2"]
    reads, stalled, let_go = iter(range(1000)), trio.Event(), trio.Event()

    async def slow(sender: str, payload: bytes) -> bytes:
        if next(reads) == 3:
            stalled.set()
            await let_go.wait()
        return await source._on_read(sender, payload)

    monkeypatch.setitem(cluster.wire.nodes["n1"]._methods, "image.read", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetching.ensure, digest)
        await stalled.wait()
        here, whole = fetching.store.fetching()[digest]
        said = fetching.coming(digest, "busybox:1")
        assert said == f"fetching image busybox:1 from n1: {100 * here // whole} %"
        assert 0 < here < whole
        let_go.set()
    assert fetching.coming(digest, "busybox:1") == ""
    assert (fetching.store.rootfs(digest) / "bin" / "sh").exists()


async def test_content_that_nobody_has_is_said_to_be_missing(cluster: Cluster) -> None:
    with pytest.raises(ImageError, match="no node that answers has it"):
        await cluster.nodes["n1"].ensure("sha256:" + "0" * 64)
    with pytest.raises(UnknownImage):
        await cluster.nodes["n1"].digest_of("Not A Name")


async def test_a_removed_image_goes_from_every_node_also_from_those_that_fetched_it(cluster: Cluster) -> None:
    digest = await cluster.put("n1")
    await cluster.nodes["n2"].ensure(digest)
    cluster.wire.cut = {"n3"}
    await cluster.nodes["n2"].remove("busybox", "latest")
    cluster.wire.cut = set()
    for name in ("n1", "n2"):
        assert cluster.nodes[name].store.images() == []
    await cluster.nodes["n3"].tell("n1")
    with pytest.raises(UnknownImage):
        await cluster.nodes["n3"].digest_of("busybox")
    with pytest.raises(NotFound):
        await cluster.nodes["n3"].remove("busybox", "latest")


async def test_a_removal_heard_late_removes_the_content_too(cluster: Cluster) -> None:
    digest = await cluster.put("n1")
    await cluster.nodes["n3"].ensure(digest)
    cluster.wire.cut = {"n3"}
    await cluster.nodes["n1"].remove("busybox", "latest")
    assert len(cluster.nodes["n3"].store.images()) == 1
    cluster.wire.cut = set()
    await cluster.nodes["n3"].tell("n1")
    assert cluster.nodes["n3"].store.images() == []


async def test_content_with_another_name_and_content_in_use_stay(cluster: Cluster) -> None:
    digest = await cluster.put("n1")
    await cluster.put("n1", "alias")
    await cluster.nodes["n2"].ensure(digest)
    await cluster.nodes["n3"].ensure(digest)
    await cluster.nodes["n1"].remove("busybox", "latest")
    assert await cluster.nodes["n2"].digest_of("alias") == digest
    assert len(cluster.nodes["n2"].store.images()) == 1
    cluster.nodes["n3"].store.acquire(digest)
    await cluster.nodes["n1"].remove("alias", "latest")
    assert len(cluster.nodes["n3"].store.images()) == 1
    assert cluster.nodes["n2"].store.images() == []


@pytest.mark.parametrize("method", ["image.names", "image.read"])
async def test_rubbish_from_a_peer_is_refused(method: str, cluster: Cluster) -> None:
    with pytest.raises(PeerRefused, match="is not valid"):
        await cluster.wire.nodes["n1"].call("n2", method, b"\xc1", 1.0)


async def test_a_reader_cannot_ask_for_more_memory_than_the_bound(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = await cluster.put("n1", text="x" * 100_000)
    monkeypatch.setattr("node.image_exchange.READ_BYTES_MAX", 1000)
    ask = msgspec.msgpack.encode((digest, 0, 1 << 40))
    assert len(await cluster.wire.nodes["n2"].call("n1", "image.read", ask, 5.0)) == 1000


async def test_an_answer_that_is_rubbish_harms_nobody(cluster: Cluster) -> None:
    async def rubbish(sender: str, payload: bytes) -> bytes:
        return b"\xc1"

    cluster.wire.nodes["n2"]._methods["image.names"] = rubbish
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.nodes["n1"].tell, "n2")
    assert await cluster.put("n1")
