"""Whatever is said to whom in whatever order: incarnations never fall, and correct nodes agree in the end."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cluster import GossipConfig, Status, wire
from sim.gossip_world import GossipWorld
from sim.kernel import Kernel
from sim.network import Link, Network

NODES = ("n0", "n1", "n2", "n3")
GHOSTS = ("g0", "g1")
some_node = st.sampled_from(NODES)
anybody = st.sampled_from(NODES + GHOSTS)
# Above the boots that restarts reach within a run, so that lies about the future are told too.
boots = st.integers(1, 3)
incarnations = st.integers(0, 4)


class Cluster(RuleBasedStateMachine):
    """Four real nodes, two that never existed, and a peer with the key that says anything of anybody."""

    def __init__(self) -> None:
        super().__init__()
        self.world = GossipWorld(Kernel(1), Network(Kernel(0)), GossipConfig())
        self.world.network = Network(self.world.kernel, Link(loss=0.05, duplicate=0.05, reorder=0.2))
        self.world.start_formed(len(NODES))
        for number, _ in enumerate(GHOSTS):
            self.world.network.set_host((f"10.7.0.{number}", 7946), up=False)
        self.seen: dict[tuple[str, int, str], tuple[int, int]] = {}
        self.parted = False

    @rule(listener=some_node, about=anybody, by=anybody, boot=boots, incarnation=incarnations, silent=st.booleans())
    def accuse(self, listener: str, about: str, by: str, boot: int, incarnation: int, silent: bool) -> None:
        self._say(listener, wire.Suspect(about, boot, incarnation, by, silent))

    @rule(
        listener=some_node,
        about=anybody,
        boot=boots,
        incarnation=incarnations,
        kind=st.sampled_from([wire.Down, wire.Failed]),
    )
    def end(self, listener: str, about: str, boot: int, incarnation: int, kind: type[wire.Down]) -> None:
        self._say(listener, kind(about, boot, incarnation, "n0"))

    @rule(listener=some_node, about=anybody, boot=boots, incarnation=incarnations)
    def say_goodbye_for(self, listener: str, about: str, boot: int, incarnation: int) -> None:
        self._say(listener, wire.Left(about, boot, incarnation))

    @rule(listener=some_node, number=st.integers(0, 1), boot=boots, incarnation=incarnations)
    def invent(self, listener: str, number: int, boot: int, incarnation: int) -> None:
        session = bytes([number, boot]) * 4
        self._say(listener, wire.Alive(GHOSTS[number], f"10.7.0.{number}", 7946, boot, incarnation, session, 1, 1))

    @rule(listener=some_node, about=anybody, boot=boots, version=st.integers(1, 4), value=st.binary(max_size=3))
    def publish_for(self, listener: str, about: str, boot: int, version: int, value: bytes) -> None:
        # An owner never writes two values under one version, so a version decides its value here, too.
        entry = wire.Entry("k", version, bytes([boot, version]))
        machine = self.world.nodes[listener].machine
        if about in GHOSTS and self.world.nodes[listener].running:
            machine._repair.hear_state(wire.Delta(about, boot, (entry,)), "n1")

    @rule(name=some_node, value=st.binary(max_size=5))
    def publish(self, name: str, value: bytes) -> None:
        if self.world.nodes[name].running:
            self.world.nodes[name].set_state("load", value)

    @rule(seconds=st.sampled_from([0.01, 0.3, 2.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.world.kernel.run_until(self.world.kernel.now + seconds)

    @rule(name=some_node, seconds=st.sampled_from([0.5, 4.0, 12.0]))
    def starve(self, name: str, seconds: float) -> None:
        if self.world.nodes[name].healthy:
            self.world.nodes[name].starve(seconds)

    @rule(name=some_node)
    def restart(self, name: str) -> None:
        node = self.world.nodes[name]
        node.kill()
        node.boot_epoch = max(node.boot_epoch, node.machine.identity.boot_epoch)
        node.boot([other.address for other in self.world.nodes.values() if other is not node])

    @rule()
    @precondition(lambda self: not self.parted)
    def part(self) -> None:
        self.parted = True
        one, two, *rest = [node.address for node in self.world.nodes.values()]
        self.world.network.partition([one, two], rest)

    @rule()
    @precondition(lambda self: self.parted)
    def heal(self) -> None:
        self.parted = False
        self.world.network.heal()

    @invariant()
    def assertions_never_fall(self) -> None:
        for node in self.world.nodes.values():
            for member in node.machine.members():
                key = (node.name, node.boot_epoch, member.name)
                now = (member.boot_epoch, member.incarnation)
                assert now >= self.seen.get(key, now), f"{key} fell from {self.seen[key]} to {now}"
                self.seen[key] = now

    def teardown(self) -> None:
        self.world.network.heal()
        self.world.network.set_default(Link())
        self.world.kernel.run_until(self.world.kernel.now + 240)
        for node in self.world.nodes.values():
            for name in NODES:
                member = node.machine.member(name)
                assert member is not None, f"{node.name} does not know {name}"
                assert member.state == Status.ALIVE, f"{node.name} believes {member}"
            for name in GHOSTS:
                ghost = node.machine.member(name)
                assert ghost is None or ghost.state > Status.SUSPECT
        assert self.world.agreed(), {name: f"{node.machine.digest:016x}" for name, node in self.world.nodes.items()}
        for name in NODES:
            assert len({frozenset(n.machine.state_of(name).items()) for n in self.world.nodes.values()}) == 1

    def _say(self, listener: str, message: wire.Rumour) -> None:
        node = self.world.nodes[listener]
        if node.running:
            node.machine._judge.hear(message, "n1")
            node.perform(node.machine.handle_timer(self.world.kernel.now))


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=40, stateful_step_count=25)
