"""Who stands in for a lost home, when, and with which configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from node.config import AgentConfig, from_tables
from node.errors import InvalidConfig, NodeError
from node.ledger import LedgerLocked
from node.stand_ins import TURN_S, StandIns, stand_in_config

AFTER_S = 60.0
NAMES = ("n1", "n2", "n3", "n4")


def configured(folder: Path, name: str = "n1", **ledger: object) -> AgentConfig:
    settings = {"kind": "etcd", "etcd_urls": ["http://127.0.0.1:2379"], "stand_in_after_s": AFTER_S, **ledger}
    return from_tables({"node": {"name": name, "data_dir": str(folder)}, "ledger": settings})


class Cluster:
    """What gossip says, and which homes a node carried on; a test ends them."""

    def __init__(self, folder: Path, name: str = "n1", **ledger: object) -> None:
        self.states = dict.fromkeys(NAMES, "alive")
        self.carried: list[str] = []
        self.ends: dict[str, trio.Event] = {}
        self.error: Exception | None = None
        self.stand_ins = StandIns(
            configured(folder, name, **ledger), self.members, lambda: ("127.0.0.1", 7946), self.carry_on
        )

    def members(self) -> Sequence[dict[str, object]]:
        return [{"name": name, "state": state} for name, state in self.states.items()]

    async def carry_on(self, config: AgentConfig) -> None:
        self.carried.append(config.node_name)
        if self.error is not None:
            raise self.error
        self.ends[config.node_name] = trio.Event()
        await self.ends[config.node_name].wait()


@pytest.mark.parametrize("state", ["alive", "suspect", "down", "left"])
def test_only_who_has_failed_is_stood_in_for(tmp_path: Path, state: str) -> None:
    cluster = Cluster(tmp_path)
    cluster.states["n2"] = state
    assert cluster.stand_ins.due(0.0) == []
    assert cluster.stand_ins.due(1e6) == []


def test_a_member_that_was_back_meanwhile_starts_its_time_anew(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    late = AFTER_S + TURN_S * len(NAMES)
    for now_s, state, due in ((0, "failed", []), (50, "alive", []), (51, "failed", []), (51 + late, "failed", ["n2"])):
        cluster.states["n2"] = state
        assert cluster.stand_ins.due(now_s) == due
    assert cluster.stand_ins.due(51 + late) == ["n2"]


def test_the_living_come_one_after_the_other_and_share_the_lost(tmp_path: Path) -> None:
    firsts = set()
    for lost in ("n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8"):
        turns = []
        for name in ("n10", "n11", "n12"):
            cluster = Cluster(tmp_path, name)
            cluster.states = {"n10": "alive", "n11": "alive", "n12": "alive", lost: "failed", "n13": "suspect"}
            cluster.stand_ins.due(0.0)
            times = [AFTER_S + TURN_S * turn for turn in range(4)]
            turns.append(next(time for time in times if cluster.stand_ins.due(time)))
        assert sorted(turns) == [AFTER_S, AFTER_S + TURN_S, AFTER_S + 2 * TURN_S]
        firsts.add(turns.index(AFTER_S))
    assert firsts == {0, 1, 2}


async def test_a_home_is_carried_on_once_and_again_after_it_was_lost_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    cluster = Cluster(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.stand_ins.run)
        cluster.states["n2"] = "failed"
        await trio.sleep(10 * AFTER_S)
        assert cluster.carried == ["n2"]
        cluster.states["n2"] = "alive"
        await trio.sleep(10)
        cluster.ends["n2"].set()
        await trio.sleep(10 * AFTER_S)
        assert cluster.carried == ["n2"]
        cluster.states["n2"] = "failed"
        await trio.sleep(3 * AFTER_S)
        assert cluster.carried == ["n2", "n2"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("error", [LedgerLocked("held"), NodeError("no"), OSError("no port"), ValueError("a bug")])
async def test_what_ends_a_stand_in_does_not_end_the_node(
    tmp_path: Path, autojump_clock: MockClock, error: Exception
) -> None:
    cluster = Cluster(tmp_path)
    cluster.error = ExceptionGroup("nursery", [error])
    cluster.states["n2"] = "failed"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.stand_ins.run)
        await trio.sleep(5 * AFTER_S)
        assert 3 <= len(cluster.carried) <= 5
        cluster.error = None
        await trio.sleep(3 * AFTER_S)
        assert "n2" in cluster.ends
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("ledger", [{"stand_in": False}, {"kind": "sqlite"}])
async def test_nobody_stands_in_who_is_told_not_to(
    tmp_path: Path, autojump_clock: MockClock, ledger: dict[str, object]
) -> None:
    cluster = Cluster(tmp_path, **ledger)
    cluster.states["n2"] = "failed"
    await cluster.stand_ins.run()
    assert cluster.carried == []


def test_a_stand_in_has_the_homes_name_and_nothing_of_its_nodes(tmp_path: Path) -> None:
    own = configured(tmp_path)
    config = stand_in_config(own, "n2", ("127.0.0.1", 7946))
    assert config.node_name == "n2"
    assert config.data_dir == tmp_path / "stand_ins" / "n2"
    assert config.socket_path == tmp_path / "run" / "n2.sock"
    assert config.cluster.seeds == ("127.0.0.1:7946",)
    assert len({config.api.port, config.gossip.port, own.api.port, own.gossip.port}) == 4
    assert config.runtime.kind == "process"
    assert config.door.listen is None
    assert not config.ledger.stand_in
    assert config.ledger.kind == "etcd"


@pytest.mark.parametrize("name", ["../n2", "", "N2", "a/b"])
def test_a_name_that_no_node_may_have_gets_no_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidConfig):
        stand_in_config(configured(tmp_path), name, ("127.0.0.1", 7946))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"kind": "etcd", "etcd_urls": []}, "ledger.etcd_urls"),
        ({"etcd_urls": ["10.0.0.5:2379"]}, "ledger.etcd_urls"),
        ({"etcd_password_file": "/x"}, "ledger.etcd_password_file"),
        ({"etcd_key_file": "/x"}, "ledger.etcd_key_file"),
        ({"etcd_prefix": "fofoca"}, "ledger.etcd_prefix"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(settings: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        from_tables({"ledger": settings})
    assert refused.value.field == field
