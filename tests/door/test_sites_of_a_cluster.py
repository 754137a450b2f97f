"""One backend has one container, whichever nodes are asked, with calls lost and keepers killed."""

from __future__ import annotations

import msgspec
import pytest
import trio
from trio.testing import MockClock

from node.door.calls import Answer
from node.errors import Busy, NodeError, NotNow, UnknownSite
from scheduler.model import Resources
from scheduler.sites.hashing import keeper_of
from scheduler.sites.site import SitePhase, SiteView
from scheduler.spec.networking import Publish
from scheduler.spec.placement import Placement
from tests.door.site_cluster import KEY, SPEC, Cluster, Node, cluster_of, site

SEEDS = range(6)


async def want_at(node: Node, views: list[SiteView], wait_s: float = 30.0) -> None:
    views.append(await node.sites.want(site(), wait_s))


async def a_hundred_want(cluster: Cluster, views: list[SiteView], wait_s: float = 30.0) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nodes = cluster.alive()
            nursery.start_soon(want_at, nodes[number % len(nodes)], views, wait_s)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_hundred_at_different_nodes_start_one_container(seed: int, autojump_clock: MockClock) -> None:
    async with cluster_of(5, seed) as cluster:
        views: list[SiteView] = []
        await a_hundred_want(cluster, views)
        assert {view.phase for view in views} == {SitePhase.AWAKE}
        assert len({(view.node, view.address) for view in views}) == 1
        assert cluster.starts == 1
        assert [node.name for node in cluster.keepers()] == [keeper_of(KEY, cluster.nodes)]


@pytest.mark.parametrize("seed", SEEDS)
async def test_with_a_third_of_all_calls_lost_they_still_start_one(seed: int, autojump_clock: MockClock) -> None:
    async with cluster_of(4, seed, loss=0.3) as cluster:
        views: list[SiteView] = []
        await a_hundred_want(cluster, views, wait_s=90.0)  # some wait for a repetition's third or fourth try
        cluster.wire.loss = 0.0
        await trio.sleep(30)
        assert {view.phase for view in views} == {SitePhase.AWAKE}
        assert len(cluster.containers()) == 1
        assert len(cluster.keepers()) == 1


@pytest.mark.parametrize("seed", SEEDS)
async def test_when_the_keeper_is_killed_another_gives_the_site_and_one_container_is_left(
    seed: int, autojump_clock: MockClock
) -> None:
    async with cluster_of(5, seed) as cluster:
        keeper = keeper_of(KEY, cluster.nodes)
        views: list[SiteView] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 0.5)
            for node in cluster.alive():
                if node.name != keeper:
                    nursery.start_soon(want_at, node, views)
            await trio.sleep(0.03)
            cluster.kill(keeper)
            killed_s = trio.current_time()
        assert trio.current_time() - killed_s < cluster.detect_s + 5, "nobody waits for the dead"
        assert {view.phase for view in views} == {SitePhase.AWAKE}
        (now,) = cluster.keepers()
        assert {view.keeper for view in views} == {now.name} != {keeper}
        await cluster.add(keeper)
        await trio.sleep(60)
        assert len(cluster.keepers()) == 1
        assert len(cluster.containers()) == 1, "the former keeper remembers the site, and gives it up"
        view = await cluster.nodes[keeper].sites.want(site(), 10.0)
        assert view.phase is SitePhase.AWAKE


async def test_nodes_that_differ_in_who_is_there_take_a_site_once(autojump_clock: MockClock) -> None:
    async with cluster_of(3, 1) as cluster:
        first, second = (
            keeper_of(KEY, cluster.nodes),
            keeper_of(KEY, cluster.nodes.keys() - {keeper_of(KEY, cluster.nodes)}),
        )
        third = next(name for name in cluster.nodes if name not in (first, second))
        cluster.nodes[second].sites._keepers = lambda: [second, third]
        views: list[SiteView] = []
        async with trio.open_nursery() as nursery:
            for name in (first, second):
                nursery.start_soon(want_at, cluster.nodes[name], views)
        assert cluster.starts == 1
        assert len({view.job for view in views}) == 1


async def test_a_door_is_told_what_a_site_is_by_now_and_asks_nobody_meanwhile(autojump_clock: MockClock) -> None:
    async with cluster_of(4, 2) as cluster:
        await cluster.nodes["n1"].sites.want(site(idle_s=5.0, frozen_s=60.0), 10.0)
        for node in cluster.alive():
            (view,) = await node.sites.find("shimoo.com.br")
            assert view.phase is SitePhase.AWAKE
        calls = cluster.wire.calls
        for _ in range(100):
            for node in cluster.alive():
                await node.sites.find("shimoo.com.br")
                await node.sites.want(site(idle_s=5.0, frozen_s=60.0), 10.0) if node.name == "n1" else None
        assert cluster.wire.calls == calls
        await trio.sleep(6)
        for node in cluster.alive():
            (view,) = await node.sites.find("shimoo.com.br")
            assert (view.phase, view.address) == (SitePhase.FROZEN, "")
        view = await cluster.nodes["n2"].sites.wake(KEY, 10.0)
        assert view.phase is SitePhase.AWAKE
        assert not any(node.frozen for node in cluster.alive())


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_keeper_with_a_new_life_knows_which_sites_stand_still(seed: int, autojump_clock: MockClock) -> None:
    async with cluster_of(3, seed) as cluster:
        old = await cluster.nodes["n1"].sites.want(site(idle_s=5.0), 10.0)
        await trio.sleep(7)
        cluster.kill(old.keeper)
        await cluster.add(old.keeper)
        await trio.sleep(1)
        door = next(node for name, node in cluster.nodes.items() if name != old.keeper).sites
        assert (await door.show(KEY)).phase is SitePhase.FROZEN
        assert (await door.wake(KEY, 10.0)).phase is SitePhase.AWAKE
        assert not any(node.frozen for node in cluster.alive())


async def test_an_answer_that_a_change_has_overtaken_is_not_believed(autojump_clock: MockClock) -> None:
    async with cluster_of(3, 9) as cluster:
        door = next(node for node in cluster.alive() if not node.machine.keeps(KEY)).sites
        old = await door.want(site(idle_s=5.0), 10.0)
        await trio.sleep(7)
        assert door._take(Answer(old)).phase is SitePhase.FROZEN
        await cluster.add(old.keeper)  # with a new life the keeper counts on
        await trio.sleep(1)
        assert (await door.show(KEY)).phase is SitePhase.FROZEN


async def test_a_door_whose_wish_was_overtaken_by_anothers_says_it_again(autojump_clock: MockClock) -> None:
    async with cluster_of(3, 8) as cluster:
        one, other = cluster.nodes["n1"].sites, cluster.nodes["n2"].sites
        for _ in range(3):
            for door, idle_s in ((one, 5.0), (other, 7.0)):
                view = await door.want(site(idle_s=idle_s), 10.0)
                (keeper,) = cluster.keepers()
                assert keeper.machine.site_spec(KEY).idle_s == idle_s
                await trio.sleep(0.1)
        assert cluster.starts == 1
        assert view.phase is SitePhase.AWAKE


async def test_what_is_open_at_a_door_keeps_a_site_awake_and_what_was_used_counts_from_its_end(
    autojump_clock: MockClock,
) -> None:
    async with cluster_of(3, 3) as cluster:
        wanted = site(idle_s=5.0, frozen_s=60.0)
        view = await cluster.nodes["n1"].sites.want(wanted, 10.0)
        door = cluster.nodes["n3"].sites
        await door.find("shimoo.com.br")
        door.began(KEY, view.keeper)
        await trio.sleep(100)
        assert (await door.show(KEY)).phase is SitePhase.AWAKE
        assert (await door.show(KEY)).open == 1
        door.ended(KEY, view.keeper)
        await trio.sleep(4)
        assert (await door.show(KEY)).phase is SitePhase.AWAKE
        await trio.sleep(2.5)
        assert (await door.show(KEY)).phase is SitePhase.FROZEN
        await door.wake(KEY, 10.0)
        await door.busy(KEY, 200.0)
        await trio.sleep(190)
        assert (await door.show(KEY)).phase is SitePhase.AWAKE
        await trio.sleep(80)
        assert (await door.show(KEY)).phase is SitePhase.ASLEEP


async def test_a_new_site_for_a_host_that_a_door_knows_is_found_at_once(autojump_clock: MockClock) -> None:
    async with cluster_of(3, 4) as cluster:
        door = cluster.nodes["n3"].sites
        assert await door.find("shimoo.com.br") == ()
        await cluster.nodes["n1"].sites.want(site(), 10.0)
        await cluster.nodes["n1"].sites.want(site("b:u:shimoo:2"), 10.0)
        await trio.sleep(0.1)
        assert [view.key for view in await door.find("shimoo.com.br")] == [KEY, "b:u:shimoo:2"]
        await cluster.nodes["n2"].sites.drop(KEY)
        await trio.sleep(0.1)
        assert [view.key for view in await door.find("shimoo.com.br")] == ["b:u:shimoo:2"]
        with pytest.raises(UnknownSite):
            await door.wake(KEY, 10.0)


async def test_refusals_come_at_once_and_as_what_they_are(autojump_clock: MockClock) -> None:
    async with cluster_of(3, 5, sites_per_owner_max=1) as cluster:
        door = cluster.nodes["n2"].sites
        one, other = "b:u:shimoo:1", "b:u:shimoo:2"
        await door.want(site(one), 10.0)
        before_s = trio.current_time()
        with pytest.raises(Busy, match="sites_per_owner_max"):
            await door.want(site(other), 30.0)
        assert trio.current_time() - before_s < 1.0
        await door.want(site(one, always_on=True), 10.0)
        with pytest.raises(NotNow, match="always on"):
            await door.sleep(one)


@pytest.mark.parametrize("seed", SEEDS)
async def test_instances_asked_for_in_the_same_moment_go_to_different_nodes(
    seed: int, autojump_clock: MockClock
) -> None:
    async with cluster_of(4, seed) as cluster:
        placement = Placement(labels=("site=shimoo",), prefer_apart=("label:site=shimoo",))
        spec, views = msgspec.structs.replace(SPEC, placement=placement), list[SiteView]()

        async def want(node: Node, key: str) -> None:
            views.append(await node.sites.want(msgspec.structs.replace(site(key), spec=spec), 30.0))

        async with trio.open_nursery() as nursery:
            for number, node in enumerate(cluster.alive(), start=1):
                nursery.start_soon(want, node, f"b:u:shimoo:{number}")
        assert len({view.node for view in views}) == 4


async def test_one_site_asked_for_by_two_names_costs_no_calls_once_both_are_known(autojump_clock: MockClock) -> None:
    async with cluster_of(3, 7) as cluster:
        door = cluster.nodes["n2"].sites
        both = [msgspec.structs.replace(site(), hosts=(host,)) for host in ("a.br", "www.a.br")]
        for _ in range(2):
            for each in both:
                await door.want(each, 30.0)
        await trio.sleep(1.0)
        calls = cluster.wire.calls
        for each in both * 10:
            assert (await door.want(each, 30.0)).hosts == ("a.br", "www.a.br")
        assert cluster.wire.calls == calls


async def test_what_sites_run_on_is_had_by_one_more_node(autojump_clock: MockClock) -> None:
    async with cluster_of(5, 8) as cluster:
        images = [f"sha256:{letter * 64}" for letter in "ab"]
        spec = msgspec.structs.replace(site().spec, image="app;base", image_digest=";".join(images))
        door, ran = cluster.nodes["n2"].sites, set()
        for number in range(1, 8):
            view = await door.want(msgspec.structs.replace(site(f"b:u:shimoo:{number}"), spec=spec), 30.0)
            ran.add(view.node)
            await door.sleep(view.key)
        await trio.sleep(1.0)
        fetched = {name: set(node.images) for name, node in cluster.nodes.items() if node.images}
        assert set(map(frozenset, fetched.values())) == {frozenset(images)}
        assert len(fetched) <= 2, "the one that hashing prefers, and for containers on that one the next"
        assert len(ran | set(fetched)) >= 2


async def test_a_site_that_fits_nowhere_is_told_at_once_and_mended_by_the_next_wish(autojump_clock: MockClock) -> None:
    async with cluster_of(3, 6) as cluster:
        door, good = cluster.nodes["n2"].sites, site()
        request = Resources(250, 1 << 50)
        huge = msgspec.structs.replace(good, spec=msgspec.structs.replace(good.spec, request=request))
        before_s = trio.current_time()
        view = await door.want(huge, 30.0)
        assert (view.phase, view.hopeless) == (SitePhase.STARTING, True)
        assert "memory is short on 3 of 3 nodes" in view.reason
        assert trio.current_time() - before_s < 5.0
        assert (await door.want(good, 30.0)).phase is SitePhase.AWAKE
        assert len(cluster.containers()) == 1


async def test_a_sleeping_site_moves_to_a_node_that_joins_and_wakes_there(autojump_clock: MockClock) -> None:
    async with cluster_of(2, 6) as cluster:
        keys = [f"b:u:user{number}:1" for number in range(1, 100)]
        key = next(key for key in keys if keeper_of(key, ["n1", "n2", "n3"]) == "n3")
        door = cluster.nodes["n1"].sites
        await door.want(site(key), 10.0)
        await door.sleep(key)
        await cluster.add("n3")
        await trio.sleep(5)
        assert [node.name for node in cluster.keepers(key)] == ["n3"]
        view = await door.wake(key, 10.0)
        assert (view.keeper, view.phase) == ("n3", SitePhase.AWAKE)


async def test_without_routes_between_nodes_a_sites_port_is_published_once(autojump_clock: MockClock) -> None:
    async with cluster_of(2, 10) as cluster:
        door = cluster.nodes["n1"].sites
        door._published = True
        await door.want(site(), 10.0)
        (keeper,) = cluster.keepers()
        assert keeper.machine.site_spec(KEY).spec.networking.publish == (Publish(8080),)
        assert door._reachable(keeper.machine.site_spec(KEY)) == keeper.machine.site_spec(KEY)


async def test_an_unready_address_is_tried_again_by_the_keeper(autojump_clock: MockClock) -> None:
    async with cluster_of(3, 7) as cluster:
        door = cluster.nodes["n2"].sites
        view = await door.want(site(), 10.0)
        assert (await door.unready(KEY, view.keeper, "refused")).phase is SitePhase.STARTING
        assert (await door.wake(KEY, 10.0)).address == view.address
        with pytest.raises(NodeError):
            await door.unready(KEY, "nobody", "refused")
