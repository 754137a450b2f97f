"""Which cores an owner gets: from one memory node where that can be, and never anybody else's."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from node.host.block_devices import scheduler, whole_disk
from node.host.cores import CorePool, Pinned, cores_by_memory_node
from node.host.errors import HostError

TWO_NODES = {0: range(8), 1: range(8, 16)}


def test_the_fullest_memory_node_that_suffices_is_taken_first(tmp_path: Path) -> None:
    pool = CorePool(tmp_path / "cores", TWO_NODES, 15)
    assert pool.take("a", 3) == Pinned((0, 1, 2), (0,))
    assert pool.take("b", 5) == Pinned((3, 4, 5, 6, 7), (0,)), "what is left of node 0 fits exactly"
    assert pool.take("c", 6).memory_nodes == (1,)


def test_a_wish_larger_than_any_memory_node_touches_as_few_as_possible(tmp_path: Path) -> None:
    pool = CorePool(tmp_path / "cores", {**TWO_NODES, 2: range(16, 20)}, 19)
    assert pool.take("a", 12).memory_nodes in ((0, 1), (0, 2))
    assert len(pool.take("b", 7).cores) == 7


def test_an_owner_asks_twice_and_gets_the_same(tmp_path: Path) -> None:
    pool = CorePool(tmp_path / "cores", TWO_NODES, 15)
    assert pool.take("a", 3) == pool.take("a", 3)


def test_at_most_so_many_are_owned_and_the_refusal_says_how_many_are_left(tmp_path: Path) -> None:
    pool = CorePool(tmp_path / "cores", TWO_NODES, 4)
    pool.take("a", 3)
    with pytest.raises(HostError, match="2 exclusive cores are asked for, and 1 can be had"):
        pool.take("b", 2)
    assert pool.holders() == {"a": (0, 1, 2)}


def test_a_record_that_can_not_be_read_is_an_error_and_no_double_booking(tmp_path: Path) -> None:
    (tmp_path / "cores").write_text("{]")
    with pytest.raises(HostError, match="can't be read"):
        CorePool(tmp_path / "cores", TWO_NODES, 4)


@pytest.mark.parametrize("seed", range(20))
def test_no_core_has_two_owners_whatever_comes_and_goes(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    pool = CorePool(tmp_path / "cores", TWO_NODES, 14)
    for step in range(100):
        name = str(chance.randrange(12))
        if chance.random() < 0.5:
            pool.give_back(name)
        elif chance.random() < 0.1:
            pool = CorePool(tmp_path / "cores", TWO_NODES, 14)
        else:
            try:
                pool.take(name, chance.randint(1, 6))
            except HostError:
                continue
        owned = [core for cores in pool.holders().values() for core in cores]
        assert len(owned) == len(set(owned)) <= 14, f"seed {seed}, step {step}"
        assert not set(pool.shared()) & set(owned)


def test_the_kernels_topology_is_read(tmp_path: Path) -> None:
    for node, cores in ((0, "0-2"), (1, "3,5"), (2, "")):
        (tmp_path / f"node{node}").mkdir()
        (tmp_path / f"node{node}" / "cpulist").write_text(cores + "\n")
    assert cores_by_memory_node(tmp_path, range(1, 6)) == {0: (1, 2), 1: (3, 5)}
    assert cores_by_memory_node(tmp_path / "none", (0, 1)) == {0: (0, 1)}


def test_a_partition_is_on_its_disk_and_a_pseudo_file_system_on_none(tmp_path: Path) -> None:
    number = f"{(device := tmp_path.stat().st_dev) >> 8 & 0xFFF}:{device & 0xFF}"
    disk = tmp_path / "devices" / "sda"
    (disk / "queue").mkdir(parents=True)
    (disk / "dev").write_text("8:0\n")
    (disk / "queue" / "scheduler").write_text("none mq-deadline [bfq]\n")
    (disk / "sda1").mkdir()
    (disk / "sda1" / "partition").write_text("1\n")
    (tmp_path / number).symlink_to(disk / "sda1")
    (tmp_path / "8:0").symlink_to(disk)
    assert whole_disk(tmp_path, tmp_path) == "8:0"
    assert scheduler("8:0", tmp_path) == "bfq"
    assert scheduler("9:0", tmp_path) == "none"
    assert whole_disk(Path("/proc/self")) is None
