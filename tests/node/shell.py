"""What tests of a node's shell stand on: a machine with its ledger, peers on a wire in memory (no test module)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from node.effects import Effects
from node.errors import AgentUnreachable
from node.ledger.memory import MemoryLedger
from node.ledger.protocol import Content
from node.peers import Peers, PlainBodies
from scheduler import Scheduler, SchedulerConfig
from scheduler.events import Action, Change, Measured, Send, Submit
from scheduler.model import JobSpec, Resources

GIB = 1 << 30
NODE = Resources(4000, 8 * GIB)
SPEC = JobSpec(name="job", argv=("exit", "0"), request=Resources(100, GIB))


class Wire:
    """Carries bodies between peers in memory; an address in `cut` does not answer."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.nodes: dict[str, Peers] = {}
        self.cut: set[str] = set()
        self.posts = 0

    def join(self, name: str) -> Peers:
        peers = self.nodes[name] = Peers(name, PlainBodies(name), self)
        for number, each in enumerate(self.nodes, start=1):
            for other in self.nodes.values():
                other.set_member(each, number, each)
        return peers

    async def post(
        self, address: str, body: bytes, timeout_s: float, answer_bytes_max: int, ticket: str | None = None
    ) -> tuple[int, bytes]:
        self.posts += 1
        await trio.sleep(self.delay_s)
        if address in self.cut:
            raise AgentUnreachable(address, "it is cut off")
        return await self.nodes[address].handle(body)

    async def close(self) -> None:
        pass


class CountingLedger(MemoryLedger):
    """Remembers how many changes each commit had."""

    def __init__(self, commit_delay_s: float = 0.0) -> None:
        super().__init__(commit_delay_s=commit_delay_s)
        self.commits: list[int] = []

    @property
    def durable(self) -> Content:
        """What a crash now would leave."""
        return self._copy()

    async def commit(self, changes: Sequence[Change]) -> None:
        self.commits.append(len(changes))
        await super().commit(changes)


@dataclass
class Node:
    """One node without a runtime: what its machine wants done is noted, and only messages to itself are delivered."""

    ledger: MemoryLedger
    effects: Effects = field(init=False)
    done: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        machine = Scheduler(SchedulerConfig(), "n1", number=1, boot_epoch=1, seed=0)
        self.effects = Effects(machine, self.ledger, self.perform)

    def perform(self, action: Action) -> None:
        self.done.append(action)
        if isinstance(action, Send) and action.to == "n1":
            self.effects.received("n1", action.message)

    def of(self, kind: type[Action]) -> list[Action]:
        return [action for action in self.done if isinstance(action, kind)]

    async def submit(self, spec: JobSpec = SPEC) -> int:
        answer = await self.effects.ask(Submit("ann", spec, 0.0))
        assert isinstance(answer, int)
        return answer


@asynccontextmanager
async def running(ledger: MemoryLedger) -> AsyncIterator[Node]:
    """A node with an empty ledger and four cores, its effects under way."""
    node = Node(ledger)
    node.effects.enqueue(node.effects.machine.restore(trio.current_time(), 0.0, {}))
    node.effects.post(Measured(NODE, NODE, Resources()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.effects.run)
        yield node
        nursery.cancel_scope.cancel()
