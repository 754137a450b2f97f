"""A node's network: records before rules, nothing given twice, all rules anew when they are not as expected."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from node.host.network import NetworkError
from node.host.network_pools import Range
from node.network import OWN, Network, NetworkSettings
from scheduler.model import Allocation, AllocationId, JobSpec, Resources
from scheduler.spec.gang import Gang
from scheduler.spec.networking import Networking, Publish

SPEC = JobSpec("a", ("true",), Resources(1, 1), networking=Networking(publish=(Publish(port=80),)))


class Tables:
    """Takes texts, or refuses those that have a word in them."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.refused = "\0"

    def run(self, text: str) -> None:
        if text.startswith(self.refused):
            raise NetworkError("no")
        self.texts.append(text)


def network(folder: Path, tables: Tables) -> Network:
    networks = {OWN: ("br0", Range.parse("10.9.9.0/29"))}
    return Network(NetworkSettings(networks, "fofoca", range(1024, 2048), range(2000, 2002)), folder, tables)


def allocation(index: int, spec: JobSpec = SPEC) -> Allocation:
    return Allocation(AllocationId(1001, index, 1), "n1", "ann", spec)


def test_a_restarted_agent_gives_the_same_again_and_takes_back_what_is_gone(tmp_path: Path) -> None:
    tables = Tables()
    first = network(tmp_path, tables)
    given = [first.attach(allocation(index), 100_000) for index in range(2)]
    again = network(tmp_path, tables)
    assert [again.attach(allocation(index), 100_000) for index in range(2)] == given
    again.recover(["1001.1.1"])
    assert list(again.attachments()) == ["1001.1.1"]
    assert "10.9.9.2" not in tables.texts[-1]
    assert "10.9.9.3" in tables.texts[-1]
    assert again.reach("1001.1.1").ports == (("tcp", 2001, 80),)


GANG = JobSpec("a", ("true",), Resources(1, 1), network="shared", gang=Gang(nodes=1, tasks_per_node=2))


def test_tasks_of_a_gang_that_share_a_network_have_one_address_until_the_last_of_them_is_gone(tmp_path: Path) -> None:
    tables = Tables()
    node = network(tmp_path, tables)
    first, second = (node.attach(allocation(index, GANG), 100_000) for index in range(2))
    assert first == second
    assert first is not None
    assert first.group
    assert node.reach("1001.0.1") == node.reach("1001.1.1")
    node.detach("1001.0.1")
    again = network(tmp_path, tables)
    again.recover(["1001.1.1"])
    assert again.reach("1001.0.1").addresses == ()
    assert again.attach(allocation(1, GANG), 100_000) == first
    again.detach("1001.1.1")
    assert not again.attachments()


def test_a_later_start_of_a_gang_is_not_in_the_network_of_one_that_is_just_ending(tmp_path: Path) -> None:
    node = network(tmp_path, Tables())
    old = [node.attach(allocation(index, GANG), 100_000) for index in range(2)]
    node.detach("1001.0.1")
    new = [
        node.attach(Allocation(AllocationId(1001, index, attempt), "n1", "ann", GANG), 100_000)
        for index, attempt in ((0, 2), (1, 3))
    ]
    assert new[0] == new[1] != old[0]
    node.recover(["1001.1.3"])
    assert node.reach("1001.1.1").addresses == ()
    assert node.reach("1001.1.3").addresses


def test_what_fails_halfway_gives_everything_back(tmp_path: Path) -> None:
    tables = Tables()
    node = network(tmp_path, tables)
    tables.refused = "add element"
    for _ in range(3):
        with pytest.raises(NetworkError):
            node.attach(allocation(0), 100_000)
    assert not node.attachments()
    assert not list(tmp_path.glob("*.json"))
    tables.refused = "\0"
    assert node.attach(allocation(0), 100_000) is not None


def test_rules_that_can_not_be_taken_back_are_all_made_anew(tmp_path: Path) -> None:
    tables = Tables()
    node = network(tmp_path, tables)
    for index in range(2):
        node.attach(allocation(index), 100_000)
    tables.refused = "delete"
    node.detach("1001.0.1")
    assert tables.texts[-1].startswith("table bridge")
    assert "10.9.9.2" not in tables.texts[-1]
    assert "10.9.9.3" in tables.texts[-1]
    assert list(node.attachments()) == ["1001.1.1"]


def test_what_is_heard_of_the_cluster_while_all_rules_are_made_anew_is_not_lost(tmp_path: Path) -> None:
    class Slow(Tables):
        """While all rules are loaded, another thread hears of a node."""

        def run(self, text: str) -> None:
            if text.startswith("table bridge") and not following.is_alive() and not self.texts:
                following.start()
                following.join(0.2)
            super().run(text)

    tables = Slow()
    node = network(tmp_path, tables)
    following = threading.Thread(target=node.follow_cluster, args=([], ["10.78.0.2"]))
    node.recover([])
    following.join(30)
    assert "10.78.0.2" in tables.texts[-1], "the last word of the rules is what is known"


def test_a_new_agents_first_rules_know_the_nodes_and_pools_that_the_former_knew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a container would reach other owners' on those nodes under this host's address until all are heard of."""
    network(tmp_path, Tables()).follow_cluster(["10.9.8.0/29", "fd00:8::/64"], ["10.78.0.2"])
    tables = Tables()
    again = network(tmp_path, tables)
    again.recover([])
    for known in ("10.9.8.0/29", "fd00:8::/64", "10.78.0.2"):
        assert known in tables.texts[-1]
    again.follow_cluster([], ["10.78.0.3"])
    assert "10.78.0.2, 10.78.0.3" in tables.texts[-1], "gossip needs its time"
    monkeypatch.setattr("node.network.REMEMBERED_S", 0.0)
    again = network(tmp_path, tables)
    again.follow_cluster([], ["10.78.0.3"])
    assert "10.78.0.2" not in tables.texts[-1]
    (tmp_path / "cluster").write_text("torn")
    network(tmp_path, tables).recover([])


def test_pools_that_overlap_do_not_keep_the_cluster_from_being_followed(tmp_path: Path) -> None:
    tables = Tables()
    network(tmp_path, tables).follow_cluster(["10.9.0.0/16", "10.9.8.0/29"], [])
    assert "pools4 { 10.9.0.0/16 }" in tables.texts[-1]
