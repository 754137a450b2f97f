"""A cluster of real gossip machines in virtual time: real codec, real seals, one seed.

Owns the nodes' shells: what node/gossip_io.py does with sockets is done here with sim.network. Faults: an agent is
killed (its host goes on refusing), a host crashes (silence), a node is starved (nothing of it runs, its kernel still
accepts connections and buffers packets, as under SIGSTOP), the network loses, delays and parts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cluster import (
    Effect,
    Gossip,
    GossipConfig,
    Identity,
    KeyRing,
    MemberChanged,
    NameConflict,
    OpenStream,
    SendDatagram,
    StateChanged,
    StreamReply,
)
from cluster.membership import Address
from sim.kernel import Handle, Kernel
from sim.network import Network, Request

RECEIVE_BUFFER_PACKETS: Final = 256  # Linux's default of 208 KiB, at about 800 bytes a small packet.
DATAGRAM_HEADER_BYTES: Final = 28
STREAM_HEADER_BYTES: Final = 400  # Ten segments without data: handshake, acknowledgements, closing.
CLUSTER_KEY: Final = bytes(range(32))

Observer = Callable[["SimNode", MemberChanged | StateChanged | NameConflict], None]


class SimNode:
    """One node: a machine, its timer, and whether it runs, is starved or was killed."""

    def __init__(self, world: GossipWorld, name: str, address: Address) -> None:
        self.world = world
        self.name = name
        self.address = address
        self.boot_epoch = 0
        self.machine: Gossip
        self.running = False
        self.bytes_sent = 0
        self.packets_sent = 0
        self._starved = False
        self._waiting: deque[tuple[Callable[..., list[Effect]], tuple[Any, ...]]] = deque()
        self._timer: Handle | None = None
        self._timer_due_s = 0.0
        self._requests: dict[int, Request] = {}

    def boot(self, seeds: Sequence[Address], known_peers: Sequence[Address] = ()) -> None:
        """Start a new life of this node."""
        world = self.world
        self.boot_epoch += 1
        rng = world.kernel.random("node", self.name, self.boot_epoch)
        identity = Identity(self.name, self.address, self.boot_epoch)
        self.machine = Gossip(world.config, identity, world.key_ring, rng, seeds=seeds, known_peers=known_peers)
        self.running = True
        self._starved = False
        self._waiting.clear()
        world.network.attach(
            self.address, on_datagram=self._on_datagram, on_request=self._on_request, on_refused=self._on_refused
        )
        self.perform(self.machine.start(world.kernel.now))

    def kill(self) -> None:
        """End the agent's process without a word; the host stays."""
        self.running = False
        self.world.network.detach(self.address)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        for request in self._requests.values():
            request.cancel()
        self._requests.clear()

    def starve(self, duration_s: float) -> None:
        """Let nothing of this node run for a while."""
        self._starved = True
        self.world.kernel.after(duration_s, self._wake)

    @property
    def healthy(self) -> bool:
        """Whether it runs and is not starved now."""
        return self.running and not self._starved

    # -- inputs

    def call(self, handler: Callable[..., list[Effect]], *arguments: Any) -> None:
        """Give the machine an input, now or when it is no longer starved."""
        if not self.running:
            return
        if self._starved:
            if len(self._waiting) < RECEIVE_BUFFER_PACKETS:
                self._waiting.append((handler, arguments))
            return
        self.perform(handler(self.world.kernel.now, *arguments))

    def set_state(self, key: str, value: bytes) -> None:
        """Publish under this node's name."""
        self.call(self.machine.set_state, key, value)

    def _on_datagram(self, source: Any, data: Any) -> None:
        self.call(self.machine.handle_datagram, data, source)

    def _on_refused(self, target: Any) -> None:
        self.call(self.machine.handle_refused, target)

    def _on_request(self, source: Any, data: Any, reply: Callable[[Any], None]) -> None:
        self.call(self._serve, data, source, reply)

    def _serve(self, now: float, data: bytes, source: Address, reply: Callable[[Any], None]) -> list[Effect]:
        effects = self.machine.handle_stream(now, data, source)
        for effect in effects:
            if isinstance(effect, StreamReply):
                self.bytes_sent += len(effect.data)
                reply(effect.data)
        return effects

    def _wake(self) -> None:
        self._starved = False
        waiting, self._waiting = self._waiting, deque()
        for handler, arguments in waiting:
            self.call(handler, *arguments)
        self._plan()

    # -- effects

    def perform(self, effects: list[Effect]) -> None:
        """Carry out what the machine asks."""
        network = self.world.network
        for effect in effects:
            if isinstance(effect, SendDatagram):
                self.bytes_sent += len(effect.data) + DATAGRAM_HEADER_BYTES
                self.packets_sent += 1
                network.send(self.address, effect.address, effect.data)
            elif isinstance(effect, OpenStream):
                self._open(effect)
            elif isinstance(effect, MemberChanged | StateChanged | NameConflict) and self.world.observer is not None:
                self.world.observer(self, effect)
        self._plan()

    def _open(self, effect: OpenStream) -> None:
        stream_id = effect.stream_id
        self.bytes_sent += len(effect.data) + STREAM_HEADER_BYTES

        def replied(data: Any) -> None:
            self._requests.pop(stream_id, None)
            self.call(self.machine.handle_reply, stream_id, data)

        def failed(reason: str) -> None:
            self._requests.pop(stream_id, None)
            self.call(self.machine.handle_stream_failed, stream_id, reason)

        self._requests[stream_id] = self.world.network.request(
            self.address, effect.address, effect.data, replied, failed, timeout_s=effect.timeout_s
        )

    def _plan(self) -> None:
        due_s = self.machine.next_timer()
        if self._timer is not None and self._timer.pending:
            if due_s is not None and due_s >= self._timer_due_s:
                return
            self._timer.cancel()
        if due_s is not None:
            self._timer_due_s = due_s
            self._timer = self.world.kernel.at(due_s, self._run_timer)

    def _run_timer(self) -> None:
        if self.running and not self._starved:
            due_s = self.machine.next_timer()
            if due_s is not None and due_s <= self.world.kernel.now:
                self.perform(self.machine.handle_timer(self.world.kernel.now))
            else:
                self._plan()


@dataclass
class GossipWorld:
    """N nodes on one network. `observer` hears every notification of every node."""

    kernel: Kernel
    network: Network
    config: GossipConfig = field(default_factory=GossipConfig)
    observer: Observer | None = None
    nodes: dict[str, SimNode] = field(default_factory=dict)
    key_ring: KeyRing = field(default_factory=lambda: KeyRing(CLUSTER_KEY))

    def add(self, name: str) -> SimNode:
        """Add a node, not booted yet."""
        number = len(self.nodes) + 1
        address = (f"10.0.{number // 250}.{number % 250 + 1}", 7946)
        node = self.nodes[name] = SimNode(self, name, address)
        return node

    def start_formed(self, count: int) -> list[SimNode]:
        """Boot `count` nodes that know each other already."""
        nodes = [self.add(f"n{number}") for number in range(count)]
        for node in nodes:
            node.boot(())
        everybody = [node.machine.alive_message for node in nodes]
        for node in nodes:
            node.perform(node.machine.adopt(self.kernel.now, everybody))
        return nodes

    def start_joining(self, count: int, gap_s: float = 0.0) -> list[SimNode]:
        """Boot `count` nodes one after the other; the first is the others' seed."""
        nodes = [self.add(f"n{number}") for number in range(count)]
        seeds = [nodes[0].address]
        for number, node in enumerate(nodes):
            self.kernel.after(number * gap_s, node.boot, seeds if number else [])
        return nodes

    def agreed(self) -> bool:
        """Whether all running nodes hold the same table."""
        return len({node.machine.digest for node in self.nodes.values() if node.running}) <= 1
