"""The machine's promises, in virtual time: who counts as down, failed, alive; what heals; what nobody can break."""

import random

import pytest

from cluster import (
    Gossip,
    GossipConfig,
    Identity,
    KeyRing,
    MemberChanged,
    NameConflict,
    NotRunning,
    OpenStream,
    SendDatagram,
    StateChanged,
    Status,
    StreamReply,
    wire,
)
from cluster.config import PACKET_BYTES_MAX
from sim.gossip_world import GossipWorld, SimNode
from sim.kernel import Kernel
from sim.network import Link, Network


def make(count: int, seed: int = 1, link: Link | None = None, config: GossipConfig | None = None) -> GossipWorld:
    kernel = Kernel(seed)
    world = GossipWorld(kernel, Network(kernel, link), config or GossipConfig())
    world.start_formed(count)
    return world


def states(world: GossipWorld, name: str) -> set[Status | None]:
    """What the running nodes believe of one."""
    beliefs = [node.machine.member(name) for node in world.nodes.values() if node.running and node.name != name]
    return {None if member is None else member.state for member in beliefs}


def record(world: GossipWorld) -> list[tuple[float, str, object]]:
    log: list[tuple[float, str, object]] = []
    world.observer = lambda node, what: log.append((world.kernel.now, node.name, what))
    return log


def run(world: GossipWorld, seconds: float) -> None:
    world.kernel.run_until(world.kernel.now + seconds)


# -- detection


@pytest.mark.parametrize("seed", range(4))
def test_an_agent_killed_on_a_host_that_answers_is_down_within_two_and_a_half_seconds(seed: int) -> None:
    world = make(30, seed)
    run(world, 5 + seed / 7)
    world.nodes["n3"].kill()
    run(world, 2.5)
    assert states(world, "n3") == {Status.DOWN}, f"seed {seed}"


@pytest.mark.parametrize("count", [2, 3, 4])
def test_small_clusters_find_an_agent_down_too(count: int) -> None:
    world = make(count)
    run(world, 5)
    world.nodes["n1"].kill()
    run(world, 3)
    assert states(world, "n1") == {Status.DOWN}


@pytest.mark.parametrize("seed", range(4))
def test_a_crashed_host_is_failed_within_seven_seconds_and_never_down(seed: int) -> None:
    world = make(30, seed)
    log = record(world)
    run(world, 5 + seed / 7)
    world.network.set_host(world.nodes["n3"].address, up=False)
    world.nodes["n3"].kill()
    run(world, 7)
    assert states(world, "n3") == {Status.FAILED}, f"seed {seed}"
    assert not [what for _, _, what in log if isinstance(what, MemberChanged) and what.new == Status.DOWN]


def test_a_down_agent_whose_host_dies_as_well_becomes_failed() -> None:
    world = make(12)
    run(world, 5)
    world.nodes["n3"].kill()
    run(world, 60)
    assert states(world, "n3") == {Status.DOWN}, "a host that goes on refusing stays down for ever"
    world.network.set_host(world.nodes["n3"].address, up=False)
    run(world, 30)
    assert states(world, "n3") == {Status.FAILED}


def test_one_nodes_bad_link_to_a_down_member_does_not_make_it_failed() -> None:
    world = make(12)
    run(world, 5)
    down = world.nodes["n3"]
    down.kill()
    run(world, 5)
    watchers = [
        node
        for node in world.nodes.values()
        if node.running and any(entry.name == "n3" for entry in node.machine._core.table.ring_targets(8))
    ]
    assert watchers
    for node in watchers:
        world.network.cut(node.address, down.address)
    run(world, 120)
    assert states(world, "n3") == {Status.DOWN}


def test_accusations_of_a_down_member_need_three_accusers() -> None:
    world = make(12)
    run(world, 5)
    down = world.nodes["n3"]
    down.kill()
    run(world, 5)
    for accuser in ("n1", "n2"):
        world.nodes["n5"].machine._judge.hear(wire.Suspect("n3", 1, 0, accuser, False), accuser)
    run(world, 120)
    assert states(world, "n3") == {Status.DOWN}


def test_a_suspicion_does_not_expire_while_the_accuser_was_stopped() -> None:
    world = make(5)
    run(world, 2)
    machine = world.nodes["n1"].machine
    machine._judge.hear(wire.Suspect("n3", 1, 0, "n2", False), "n2")
    late = world.kernel.now + 3600
    ends = [what for what in machine.handle_timer(late) if isinstance(what, MemberChanged)]
    assert [what for what in ends if what.new == Status.FAILED] == []
    assert machine.member("n3").state == Status.SUSPECT  # type: ignore[union-attr]
    assert machine.next_timer() is not None
    assert machine.next_timer() >= late  # type: ignore[operator]


def test_one_nodes_bad_link_to_a_live_member_kills_nobody() -> None:
    world = make(12)
    log = record(world)
    for pair in (("n1", "n3"), ("n3", "n1")):
        world.network.cut(world.nodes[pair[0]].address, world.nodes[pair[1]].address)
    run(world, 120)
    assert not [what for _, _, what in log if isinstance(what, MemberChanged) and what.new in (2, 3)]


def test_a_refused_port_alone_convinces_nobody_while_the_agent_answers_others() -> None:
    world = make(12)
    run(world, 2)
    liar = world.nodes["n1"]
    for _ in range(20):
        liar.perform(liar.machine.handle_refused(world.kernel.now, world.nodes["n3"].address))
        run(world, 0.3)
    assert states(world, "n3") == {Status.ALIVE}


@pytest.mark.parametrize("seed", range(3))
def test_datagram_loss_of_a_third_kills_nobody(seed: int) -> None:
    world = make(20, seed, Link(loss=0.33))
    log = record(world)
    run(world, 90)
    assert not [what for _, _, what in log if isinstance(what, MemberChanged) and what.new in (2, 3)], f"seed {seed}"


@pytest.mark.parametrize("seed", range(3))
def test_a_node_stopped_for_ten_seconds_kills_nobody_and_is_not_killed(seed: int) -> None:
    world = make(20, seed)
    log = record(world)
    run(world, 5)
    for name in ("n3", "n4"):
        world.nodes[name].starve(10)
    run(world, 40)
    assert not [what for _, _, what in log if isinstance(what, MemberChanged) and what.new in (2, 3)], f"seed {seed}"
    assert world.nodes["n3"].machine.counters.stalls > 0
    assert world.agreed()


def test_a_node_stopped_for_good_is_failed_at_last() -> None:
    world = make(12)
    run(world, 5)
    world.nodes["n3"].starve(1e6)
    run(world, 60)
    assert states(world, "n3") == {Status.FAILED} | set()


def test_loop_lag_lowers_local_health_and_answers_raise_it_again() -> None:
    world = make(5)
    run(world, 2)
    machine = world.nodes["n1"].machine
    world.nodes["n1"].starve(3.0)  # its timers ring three seconds late
    run(world, 3.1)
    assert machine.counters.stalls >= 1
    assert machine.counters.health >= 1
    run(world, 60)
    assert machine.counters.health == 0


# -- identity


def test_a_refuted_suspicion_never_kills() -> None:
    world = make(8)
    run(world, 2)
    target, accuser = world.nodes["n3"], world.nodes["n1"]
    log = record(world)
    for _ in range(15):
        identity = target.machine.identity
        lie = wire.Suspect("n3", identity.boot_epoch, identity.incarnation, "n1", False)
        accuser.machine._judge.hear(lie, "n2")
        run(world, 2)
    assert target.machine.identity.incarnation >= 10
    assert not [what for _, _, what in log if isinstance(what, MemberChanged) and what.new in (2, 3)]
    assert states(world, "n3") == {Status.ALIVE}


def test_a_restart_at_a_new_address_is_the_same_member_with_a_newer_boot() -> None:
    world = make(10)
    run(world, 3)
    node = world.nodes["n3"]
    node.kill()
    node.address = ("10.9.9.9", 7946)
    node.boot([world.nodes["n0"].address])
    run(world, 3)
    for other in world.nodes.values():
        member = other.machine.member("n3")
        assert member is not None
        assert (member.address, member.boot_epoch, member.state) == (("10.9.9.9", 7946), 2, Status.ALIVE)
        assert len(other.machine.members()) == 10


def test_an_instant_restart_is_never_taken_for_a_death() -> None:
    world = make(10)
    run(world, 3)
    log = record(world)
    node = world.nodes["n3"]
    node.kill()
    node.boot([world.nodes["n0"].address])
    run(world, 20)
    assert states(world, "n3") == {Status.ALIVE}
    ends = [what for _, _, what in log if isinstance(what, MemberChanged) and what.new in (2, 3)]
    assert not ends


def test_a_node_that_lost_its_memory_and_its_clock_rises_above_its_earlier_life() -> None:
    world = make(6)
    run(world, 2)
    node = world.nodes["n3"]
    node.kill()
    node.boot_epoch = 0
    node.machine._core.identity = Identity("n3", node.address, 9)
    for other in world.nodes.values():
        if other is not node:
            other.machine._judge.hear(wire.Alive("n3", *node.address, 9, 4, b"earlier!", 1, 1), "")
    node.boot([world.nodes["n0"].address])
    run(world, 10)
    assert node.machine.identity.boot_epoch == 9
    assert node.machine.identity.incarnation > 4
    assert states(world, "n3") == {Status.ALIVE}


def test_two_nodes_of_one_name_are_told_and_do_not_fight() -> None:
    world = make(6)
    run(world, 2)
    log = record(world)
    impostor = SimNode(world, "n3", ("10.8.8.8", 7946))
    impostor.boot_epoch = 5
    impostor.boot([world.nodes["n0"].address])
    run(world, 20)
    assert [what for _, name, what in log if name == "n3" and isinstance(what, NameConflict)]
    changes = [what for _, name, what in log if name == "n0" and isinstance(what, MemberChanged)]
    assert len([what for what in changes if what.member.name == "n3"]) <= 3


def test_a_goodbye_is_no_failure_and_is_forgotten_before_long() -> None:
    world = make(8, config=GossipConfig(forget_left_after_s=30.0))
    run(world, 2)
    log = record(world)
    node = world.nodes["n3"]
    node.call(node.machine.leave)
    run(world, 0.5)
    node.kill()
    run(world, 5)
    assert states(world, "n3") == {Status.LEFT}
    run(world, 120)
    assert states(world, "n3") == {None}
    news = {what.new for _, _, what in log if isinstance(what, MemberChanged)}
    assert news == {Status.LEFT, None}


def test_the_dead_are_forgotten_by_all_and_do_not_come_back_by_repair() -> None:
    world = make(8, config=GossipConfig(forget_after_s=60.0))
    run(world, 2)
    world.network.set_host(world.nodes["n3"].address, up=False)
    world.nodes["n3"].kill()
    run(world, 20)
    assert states(world, "n3") == {Status.FAILED}
    run(world, 150)
    assert states(world, "n3") == {None}


# -- state


def test_a_change_reaches_all_at_once_and_exactly_once() -> None:
    world = make(30)
    run(world, 3)
    log = record(world)
    world.nodes["n5"].set_state("load", b"70")
    run(world, 0.3)
    heard = [(name, what) for _, name, what in log if isinstance(what, StateChanged)]
    assert sorted(name for name, _ in heard) == sorted(name for name in world.nodes if name != "n5")
    assert {what for _, what in heard} == {StateChanged("n5", "load", b"70")}
    assert all(node.machine.state_of("n5") == {"load": b"70"} for node in world.nodes.values())


def test_the_same_value_again_costs_nothing_and_none_deletes() -> None:
    world = make(5)
    node = world.nodes["n1"]
    node.set_state("load", b"1")
    run(world, 2)
    assert node.machine.set_state(world.kernel.now, "load", b"1") == []
    node.set_state("load", None)  # type: ignore[arg-type]
    run(world, 2)
    assert all(other.machine.state_of("n1") == {} for other in world.nodes.values())


def test_a_rumour_nobody_got_is_repaired() -> None:
    world = make(12)
    run(world, 3)
    node = world.nodes["n5"]
    everybody = [other.address for other in world.nodes.values()]
    world.network.partition([node.address], [address for address in everybody if address != node.address])
    node.set_state("load", b"70")
    run(world, 0.9)
    world.network.heal()
    run(world, 35)
    assert all(other.machine.state_of("n5") == {"load": b"70"} for other in world.nodes.values())
    assert world.agreed()


def test_state_of_a_life_not_heard_of_yet_never_sets_tables_apart() -> None:
    world = make(4)
    run(world, 2)
    one, two, three, last = world.nodes.values()
    last.kill()
    world.network.partition([one.address], [two.address, three.address])
    # All that anybody gets of the next life: its Alive was lost, its state was not.
    one.machine._repair.hear_state(wire.Delta("n3", last.boot_epoch + 1, (wire.Entry("load", 1, b"lost"),)), "n1")
    run(world, 5)
    world.network.heal()
    run(world, 60)
    assert world.agreed()
    assert {bytes(node.machine.state_of("n3").get("load", b"")) for node in (one, two, three)} == {b""}
    last.boot([one.address])
    last.set_state("load", b"70")
    run(world, 5)
    assert all(node.machine.state_of("n3") == {"load": b"70"} for node in world.nodes.values())
    assert world.agreed()


def test_a_joiner_learns_everything_from_at_least_two() -> None:
    world = make(20)
    for node in world.nodes.values():
        node.set_state("load", node.name.encode())
    run(world, 5)
    asked: list[str] = []
    for node in world.nodes.values():
        node._on_request = (  # type: ignore[method-assign]
            lambda source, data, reply, node=node: (
                asked.append(node.name),
                node.call(node._serve, data, source, reply),
            )
        )
        world.network.attach(node.address, on_datagram=node._on_datagram, on_request=node._on_request)
    late = world.add("late")
    late.boot([world.nodes["n0"].address])
    run(world, 2)
    assert late.machine.joined
    assert len(late.machine.members()) == 21
    assert all(late.machine.state_of(name) == {"load": name.encode()} for name in world.nodes if name != "late")
    assert len(set(asked)) >= 2


# -- healing


@pytest.mark.parametrize(("count", "seed"), [(2, 1), (5, 2), (24, 3)])
def test_hours_of_partition_heal_by_themselves(count: int, seed: int) -> None:
    world = make(count, seed)
    addresses = [node.address for node in world.nodes.values()]
    run(world, 2)
    world.network.partition(addresses[: count // 2], addresses[count // 2 :])
    run(world, 2 * 3600 if count < 24 else 600)
    assert states(world, "n0") >= {Status.FAILED}
    log = record(world)
    world.network.heal()
    run(world, 60)
    ends = [what for _, _, what in log if isinstance(what, MemberChanged) and what.new in (2, 3)]
    assert not ends, "the other side's verdicts are suspicions here, to be refuted first"
    assert all(states(world, name) == {Status.ALIVE} for name in world.nodes), f"seed {seed}"
    assert world.agreed()


def test_a_cluster_restarted_as_a_whole_finds_itself_by_known_peers() -> None:
    world = make(10)
    run(world, 3)
    nodes = list(world.nodes.values())
    for node in nodes:
        node.kill()
    for number, node in enumerate(nodes):
        node.boot((), known_peers=[nodes[(number + step) % 10].address for step in (1, 2, 3)])
    run(world, 10)
    assert all(states(world, name) == {Status.ALIVE} for name in world.nodes)


def test_a_seed_that_comes_late_is_tried_for_ever() -> None:
    kernel = Kernel(1)
    world = GossipWorld(kernel, Network(kernel))
    first, second = world.add("n0"), world.add("n1")
    second.boot([first.address])
    run(world, 3600)
    first.boot(())
    run(world, 30)
    assert states(world, "n0") == states(world, "n1") == {Status.ALIVE}


def test_sixty_nodes_form_within_a_second_of_the_last_start() -> None:
    kernel = Kernel(1)
    world = GossipWorld(kernel, Network(kernel))
    world.start_joining(60, gap_s=0.02)
    kernel.run_until(60 * 0.02 + 1)
    assert all(len(node.machine.members()) == 60 for node in world.nodes.values())


# -- what comes from outside


def test_no_packet_is_longer_than_the_bound() -> None:
    world = make(40)
    sizes: list[int] = []
    send = world.network.send
    world.network.send = lambda source, target, data: (sizes.append(len(data)), send(source, target, data))  # type: ignore[method-assign]
    for node in world.nodes.values():
        node.set_state("report", bytes(1000))
        node.set_state("tag", b"x" * 15)
    run(world, 5)
    assert 1000 < max(sizes) <= PACKET_BYTES_MAX


def test_noise_and_strangers_change_nothing() -> None:
    world = make(3)
    run(world, 2)
    node = world.nodes["n0"]
    rng = random.Random(1)
    digest, members = node.machine.digest, node.machine.members()
    stranger = Gossip(GossipConfig(), Identity("n9", ("10.0.0.99", 1), 1), KeyRing(bytes([9]) * 32), rng)
    effects = stranger.start(0.0)
    effects += stranger.adopt(0.0, [node.machine.alive_message])
    effects += stranger.set_state(0.0, "k", b"v") + stranger.handle_timer(0.15) + stranger.handle_timer(1.1)
    packets = [effect.data for effect in effects if isinstance(effect, SendDatagram)]
    assert packets
    packets += [rng.randbytes(rng.randrange(1300)) for _ in range(300)]
    for packet in packets:
        assert node.machine.handle_datagram(world.kernel.now, packet, ("10.0.0.99", 1)) == []
        assert node.machine.handle_stream(world.kernel.now, packet, ("10.0.0.99", 1)) == []
    assert (node.machine.digest, node.machine.members()) == (digest, members)
    assert node.machine.counters.packets_bad == 2 * len(packets)


def test_a_reply_that_belongs_to_another_request_is_refused() -> None:
    world = make(3)
    run(world, 2)
    one, two = world.nodes["n0"].machine, world.nodes["n1"].machine
    for port in (1, 2):
        one._repair._open(("10.0.0.9", port), "")
    first, second = (effect for effect in one._take() if isinstance(effect, OpenStream))
    (reply,) = [what for what in two.handle_stream(2.0, first.data, ("h", 1)) if isinstance(what, StreamReply)]
    one.handle_reply(2.0, second.stream_id, reply.data)
    assert one.counters.packets_bad == 1
    one.handle_reply(2.0, first.stream_id, reply.data)
    assert one.counters.packets_bad == 1


def test_nodes_without_a_common_version_do_not_admit_each_other() -> None:
    kernel = Kernel(1)
    world = GossipWorld(kernel, Network(kernel))
    old, new = world.add("old"), world.add("new")
    old.boot(())
    world.config = GossipConfig(protocol_min=2, protocol_max=3)
    new.boot([old.address])
    run(world, 5)
    assert len(old.machine.members()) == len(new.machine.members()) == 1


def test_nodes_of_overlapping_versions_speak_the_highest_common_one() -> None:
    kernel = Kernel(1)
    world = GossipWorld(kernel, Network(kernel))
    old, new = world.add("old"), world.add("new")
    old.boot(())
    world.config = GossipConfig(protocol_min=1, protocol_max=2)
    new.boot([old.address])
    versions: set[int] = set()
    send = world.network.send
    world.network.send = lambda source, target, data: (versions.add(data[0] & 15), send(source, target, data))  # type: ignore[method-assign]
    run(world, 5)
    assert states(world, "new") == {Status.ALIVE}
    assert versions == {1}


def test_a_machine_not_started_or_started_twice_refuses() -> None:
    machine = Gossip(GossipConfig(), Identity("n", ("127.0.0.1", 1), 1), None, random.Random(1))
    with pytest.raises(NotRunning):
        machine.handle_timer(0.0)
    machine.start(0.0)
    with pytest.raises(NotRunning):
        machine.start(0.0)
