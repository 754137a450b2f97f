"""Nodes with real machines, keepers and doors, on a wire in memory; containers are told of, not run (no test module).

A wire may lose calls; a node may be killed, which takes its containers and its memory, and is restarted with its
ledger. Time is trio's, so tests run in virtual time.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from node.door.cluster_sites import ClusterSites
from node.door.keeping import Keeping
from node.door.second_copies import SecondCopies
from node.effects import Effects
from node.errors import AgentUnreachable
from node.ledger.memory import MemoryLedger
from node.outbox import Outbox
from node.peers import Peers, PlainBodies
from scheduler import Scheduler, SchedulerConfig
from scheduler.events import (
    Action,
    ContainerEnded,
    ContainerStarted,
    Heard,
    Measured,
    MemberFailed,
    MemberUp,
    Publish,
    RemoveContainer,
    Send,
    StartContainer,
    StopContainer,
)
from scheduler.model import AllocationId, JobKind, JobSpec, Reach, Resources, Result
from scheduler.sites.site import Site

NODE = Resources(64_000, 64 << 30)
SPEC = JobSpec("site", ("httpd",), Resources(100, 64 << 20), kind=JobKind.SERVICE, attempts_max=1000)
KEY = "b:u:shimoo:1"
START_S = 0.05
DELAY_S = 0.002


def site(key: str = KEY, **changes: object) -> Site:
    return Site(key, "shimoo", SPEC, 8080, hosts=("shimoo.com.br",), **changes)  # type: ignore[arg-type]


@dataclass
class Wire:
    """Carries calls between nodes; some are lost on their way there, some on their way back."""

    random: random.Random
    loss: float = 0.0
    peers: dict[str, Peers] = field(default_factory=dict)
    calls: int = 0

    async def post(
        self, address: str, body: bytes, timeout_s: float, answer_bytes_max: int, ticket: str | None = None
    ) -> tuple[int, bytes]:
        self.calls += 1
        await trio.sleep(DELAY_S * self.random.random())
        if self.random.random() < self.loss:
            raise AgentUnreachable(address, "it is cut off")
        if address not in self.peers:  # a host without power says nothing
            await trio.sleep(timeout_s)
            raise AgentUnreachable(address, "nothing is heard of it")
        answer = await self.peers[address].handle(body)
        if address not in self.peers or self.random.random() < self.loss:
            raise AgentUnreachable(address, "its answer was lost")
        return answer

    async def close(self) -> None:
        pass


class Node:
    """One node's agent, as far as sites go."""

    def __init__(self, cluster: Cluster, name: str, number: int, ledger: MemoryLedger, boot_epoch: int) -> None:
        self.cluster, self.name, self.number, self.ledger, self.boot_epoch = cluster, name, number, ledger, boot_epoch
        self.frozen: set[str] = set()
        self.images: list[str] = []
        self.running: dict[AllocationId, str] = {}
        self.scope = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        cluster = self.cluster
        with self.scope:
            async with trio.open_nursery() as nursery:
                self.nursery = nursery
                self.machine = Scheduler(
                    cluster.config, self.name, self.number, self.boot_epoch, cluster.wire.random.getrandbits(64)
                )
                self.effects = Effects(self.machine, self.ledger, self.perform)
                self.peers = Peers(self.name, PlainBodies(self.name), cluster.wire)
                self.outbox = Outbox(self.peers, self.effects.received, self.effects.keep_up, nursery)
                copies = SecondCopies(self.peers, self.machine.keepers, self.fetch, nursery)
                self.keeping = Keeping(
                    self.effects, self.peers, self.complete, self.set_frozen, nursery, answers_at_once, copies.see_to
                )
                self.sites = ClusterSites(self.peers, self.machine.keepers, nursery)
                rows = await self.ledger.load()
                self.effects.enqueue(self.machine.restore(trio.current_time(), trio.current_time(), rows))
                self.effects.post(Measured(NODE, NODE, Resources()))
                nursery.start_soon(self.effects.run)
                nursery.start_soon(self.sites.run)
                task_status.started()
                await trio.sleep_forever()

    async def complete(self, owner: str, spec: JobSpec) -> JobSpec:
        await trio.sleep(0)
        return spec

    async def fetch(self, digest: str) -> None:
        self.images.append(digest)

    async def set_frozen(self, container: str, frozen: bool) -> None:
        (self.frozen.add if frozen else self.frozen.discard)(container)

    def perform(self, action: Action) -> None:
        match action:
            case Send():
                self.outbox.send(action.to, action.message)
            case Publish():
                self.cluster.published(self.name, action.key, action.value)
            case StartContainer():
                self.nursery.start_soon(self.start, action.allocation.id, action.allocation.owner)
            case StopContainer():
                self.running.pop(action.id, None)
                self.effects.post(ContainerEnded(action.id, Result(exit_code=0)))
            case RemoveContainer():
                pass
            case _:
                self.keeping.perform(action)

    async def start(self, id_: AllocationId, owner: str) -> None:
        await trio.sleep(START_S)
        self.cluster.starts += 1
        self.running[id_] = owner
        self.effects.post(ContainerStarted(id_, 0.0, Reach((f"10.77.{self.number}.{len(self.running) + 1}",))))


@dataclass
class Cluster:
    """Up to nine nodes that know each other as soon as they are up, and hear of a death after a while."""

    wire: Wire
    nursery: trio.Nursery
    config: SchedulerConfig
    nodes: dict[str, Node] = field(default_factory=dict)
    starts: int = 0
    detect_s: float = 2.0
    said: dict[tuple[str, str], bytes] = field(default_factory=dict)

    async def add(self, name: str) -> Node:
        old = self.nodes.get(name)
        number = old.number if old is not None else len(self.nodes) + 1
        ledger = old.ledger if old is not None else MemoryLedger()
        node = Node(self, name, number, ledger, old.boot_epoch + 1 if old is not None else 1)
        self.nodes[name] = node
        await self.nursery.start(node.run)
        self.wire.peers[name] = node.peers
        for other in self.alive():
            for one, two in ((node, other), (other, node)):
                one.peers.set_member(two.name, two.number, two.name)
                if one is not two:
                    one.effects.post(MemberUp(two.name, two.number, two.boot_epoch))
                    one.nursery.start_soon(one.keeping.compare, two.name)
        for (sayer, key), value in [each for each in self.said.items() if each[0][0] != name]:
            node.effects.post(Heard(sayer, key, value))
        return node

    def alive(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.name in self.wire.peers]

    def published(self, name: str, key: str, value: bytes) -> None:
        self.said[name, key] = value
        for node in self.alive():
            if node.name != name:
                node.effects.post(Heard(name, key, value))

    def kill(self, name: str) -> None:
        """The host is gone; the others hear of it after a while."""
        del self.wire.peers[name]
        self.nodes[name].scope.cancel()
        self.nursery.start_soon(self._hear_of_death, name)

    async def _hear_of_death(self, name: str) -> None:
        await trio.sleep(self.detect_s)
        if name not in self.wire.peers:
            for node in self.alive():
                node.effects.post(MemberFailed(name))
                node.sites.on_gone(name)

    def containers(self) -> list[AllocationId]:
        return [id_ for node in self.alive() for id_ in node.running]

    def keepers(self, key: str = KEY) -> list[Node]:
        return [node for node in self.alive() if node.machine.keeps(key)]


@asynccontextmanager
async def cluster_of(count: int, seed: int, loss: float = 0.0, **config: float) -> AsyncIterator[Cluster]:
    """A cluster of nodes n1, n2, ..., all of which know each other's room."""
    print("seed", seed)
    async with trio.open_nursery() as nursery:
        cluster = Cluster(Wire(random.Random(seed)), nursery, SchedulerConfig(lost_grace_s=3.0, **config))  # type: ignore[arg-type]
        for number in range(1, count + 1):
            await cluster.add(f"n{number}")
        await trio.sleep(1.0)
        cluster.wire.loss = loss
        yield cluster
        nursery.cancel_scope.cancel()


async def answers_at_once(address: str, port: int, path: str, ready_s: float) -> str:
    """Stand in for connecting: containers of these tests answer as soon as they run."""
    await trio.sleep(DELAY_S)
    return ""
