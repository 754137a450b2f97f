"""Keys change on all nodes at once, in one order, and are in the file before they are in use."""

from __future__ import annotations

import base64
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from cluster import BodySealer, KeyRing
from node.errors import AgentUnreachable, InvalidConfig, InvalidValue, KeysNotSettled
from node.key_exchange import KeyExchange
from node.keys import ClusterKeys, read_keys, write_keys
from node.peers import Peers

OLD, NEW, OTHER = bytes(32), bytes([7]) * 32, bytes([9]) * 32


@dataclass
class KeyNode:
    exchange: KeyExchange
    ring: KeyRing
    path: Path
    peers: Peers


class KeyNodes:
    """Nodes with real seals and files, and a wire between them from which some can be cut."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder
        self.nodes: dict[str, KeyNode] = {}
        self.cut: set[str] = set()
        for name in names:
            self.start(name, ClusterKeys(0, (OLD,)))

    def start(self, name: str, held: ClusterKeys) -> None:
        path = self.folder / name / "key"
        path.parent.mkdir(exist_ok=True)
        write_keys(path, held)
        ring = KeyRing(*held.keys)
        session = f"{name:-<8}".encode()
        peers = Peers(name, BodySealer(ring, name, session, lambda: 0.0), self)  # type: ignore[arg-type]
        for other, node in self.nodes.items():
            peers.set_member(other, None, other)
            node.peers.set_member(name, None, name)
        exchange = KeyExchange(held, ring, path, peers, lambda: [each for each in self.nodes if each != name])
        self.nodes[name] = KeyNode(exchange, ring, path, peers)

    def __getitem__(self, name: str) -> KeyNode:
        return self.nodes[name]

    async def post(
        self, address: str, body: bytes, timeout_s: float, answer_bytes_max: int, ticket: str | None = None
    ) -> tuple[int, bytes]:
        if address in self.cut:
            raise AgentUnreachable(address, "connection refused")
        return await self.nodes[address].peers.handle(body)


@pytest.fixture
def nodes(tmp_path: Path) -> KeyNodes:
    return KeyNodes(tmp_path, "n1", "n2", "n3")


def test_a_key_file_is_read_as_it_was_written_and_stays_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(base64.b64encode(OLD))
    path.chmod(0o600)
    assert read_keys(path) == ClusterKeys(0, (OLD,))
    write_keys(path, ClusterKeys(4, (NEW, OLD)))
    assert read_keys(path) == ClusterKeys(4, (NEW, OLD))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("count", [0, 2, 9])
def test_a_file_without_keys_with_one_twice_or_too_many_is_refused(tmp_path: Path, count: int) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"# version 3\n" + (base64.b64encode(OLD) + b"\n") * count)
    path.chmod(0o600)
    with pytest.raises(InvalidConfig, match="1 to 8 lines"):
        read_keys(path)


def test_the_higher_version_is_the_greater_and_equal_ones_have_an_order_too() -> None:
    assert ClusterKeys(2, (OLD,)) > ClusterKeys(1, (NEW, OLD))
    assert ClusterKeys(2, (NEW,)) > ClusterKeys(2, (OLD,))
    assert NEW.hex() not in repr(ClusterKeys(1, (NEW,)))
    assert repr(NEW) not in repr(ClusterKeys(1, (NEW,)))


async def test_a_rotation_reaches_every_node_and_every_file(nodes: KeyNodes) -> None:
    key_id, table = await nodes["n1"].exchange.add(NEW)
    assert not table.lacking
    await nodes["n2"].exchange.use(key_id)
    table = await nodes["n3"].exchange.remove(table.nodes[0].ids[0])
    assert [row.ids for row in table.nodes] == [(key_id,)] * 3
    for node in nodes.nodes.values():
        assert node.ring.keys == read_keys(node.path).keys == (NEW,)
    await nodes["n1"].exchange.table()


async def test_no_node_seals_under_a_key_that_a_live_one_may_lack(nodes: KeyNodes) -> None:
    nodes.cut.add("n3")
    key_id, table = await nodes["n1"].exchange.add(None)
    assert table.lacking == ("n3",)
    with pytest.raises(KeysNotSettled, match="n3"):
        await nodes["n1"].exchange.use(key_id)
    assert nodes["n1"].ring.keys[0] == OLD
    nodes.cut.clear()
    await nodes["n1"].exchange.use(key_id)
    assert nodes["n3"].ring.keys[0] != OLD


async def test_orders_may_be_repeated_and_name_who_did_not_hear_them(nodes: KeyNodes) -> None:
    key_id, before = await nodes["n1"].exchange.add(NEW)
    assert await nodes["n1"].exchange.add(NEW) == (key_id, before)
    used = await nodes["n1"].exchange.use(key_id)
    assert await nodes["n2"].exchange.use(key_id) == used
    old = before.nodes[0].ids[0]
    nodes.cut.add("n3")
    assert (await nodes["n1"].exchange.remove(old)).lacking == ("n3",)
    nodes.cut.clear()
    assert not (await nodes["n1"].exchange.remove(old)).lacking
    assert nodes["n3"].ring.keys == (NEW,)


async def test_the_key_that_seals_and_what_is_no_key_are_refused(nodes: KeyNodes) -> None:
    exchange = nodes["n1"].exchange
    only = (await exchange.table()).nodes[0].ids[0]
    with pytest.raises(InvalidValue, match="use another one first"):
        await exchange.remove(only)
    with pytest.raises(InvalidValue, match="not on the ring"):
        await exchange.use("ffff")
    with pytest.raises(InvalidValue) as refused:
        await exchange.add(b"short")
    assert "short" not in str(refused.value)


async def test_a_node_that_slept_through_add_and_use_catches_up_by_itself(nodes: KeyNodes) -> None:
    key_id, _ = await nodes["n1"].exchange.add(NEW)
    await nodes["n1"].exchange.use(key_id)
    nodes.start("n4", ClusterKeys(0, (OLD,)))
    await nodes["n4"].exchange.tell("n1")
    assert nodes["n4"].ring.keys == read_keys(nodes["n4"].path).keys == (NEW, OLD)


async def test_an_old_ring_never_comes_back(nodes: KeyNodes) -> None:
    await nodes["n1"].exchange.add(NEW)
    nodes.start("n4", ClusterKeys(0, (OLD, OTHER)))
    await nodes["n4"].exchange.table()
    assert {node.ring.keys for node in nodes.nodes.values()} == {(OLD, NEW)}


async def test_a_change_that_can_not_be_kept_is_not_made(nodes: KeyNodes) -> None:
    nodes["n2"].path.unlink()
    nodes["n2"].path.parent.rmdir()
    key_id, table = await nodes["n1"].exchange.add(NEW)
    assert table.lacking == ("n2",)
    assert "can't write" in table.nodes[1].why
    assert nodes["n2"].ring.keys == (OLD,)
    with pytest.raises(KeysNotSettled, match="n2"):
        await nodes["n1"].exchange.use(key_id)
    with pytest.raises(KeysNotSettled, match="can't write"):
        await nodes["n2"].exchange.add(OTHER)


async def test_two_orders_at_once_end_in_one_ring_and_who_lost_is_told(nodes: KeyNodes) -> None:
    done: dict[str, str] = {}
    lost: list[str] = []

    async def add(name: str, key: bytes) -> None:
        try:
            done[name], _ = await nodes[name].exchange.add(key)
        except KeysNotSettled:
            lost.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(add, "n1", NEW)
        nursery.start_soon(add, "n2", OTHER)
    table = await nodes["n3"].exchange.table()
    assert not table.lacking
    assert len({row.ids for row in table.nodes}) == 1
    assert set(done) | set(lost) == {"n1", "n2"}
    for key_id in done.values():
        assert key_id in table.nodes[0].ids


async def test_a_node_that_was_only_paused_asks_when_it_is_spoken_to_under_an_unknown_key(nodes: KeyNodes) -> None:
    nodes.cut.add("n3")
    exchange = nodes["n1"].exchange
    await exchange.add(NEW)
    nodes["n1"].ring.replace(NEW, OLD)  # as after `use`, which counts live nodes only
    nodes.cut.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nodes["n3"].exchange.run)
        assert (await exchange.table()).lacking == ("n3",)
        with trio.fail_after(5):
            while NEW not in nodes["n3"].ring.keys:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
