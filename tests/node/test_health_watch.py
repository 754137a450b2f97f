"""Checks are made when they are due, few at once, not of what is frozen; what changes is told, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from node.conditions import Conditions
from node.health import CHECKS_AT_ONCE_MAX, HealthWatch, checks
from node.runtime.fake import FakeHost, FakeRuntime
from node.runtime.protocol import Runtime
from scheduler.condition import Condition, HealthState
from scheduler.events import ContainerCondition, Event
from scheduler.model import AllocationId
from scheduler.spec.health import Health

MINE = AllocationId(1001, 0, 1)
CHECK = Health(tcp=80, interval_s=10.0, start_period_s=0.0, failures_max=2)


class Checked(FakeRuntime):
    """Containers of which only their freezer is there."""

    def __init__(self) -> None:
        super().__init__(FakeHost())
        self.standing: set[str] = set()

    def is_frozen(self, name: str) -> bool:
        return name in self.standing


class Watched:
    """A watch whose looks take a second and find what they are told to."""

    def __init__(self) -> None:
        self.runtime = Checked()
        self.events: list[Event] = []
        self.live = {MINE}
        self.conditions = Conditions(self.events.append, self.live.__contains__)
        self.watch = HealthWatch(self.runtime, self.conditions, self.look)
        self.failure = ""
        self.looks: list[float] = []
        self.now = self.most = 0

    async def look(self, runtime: Runtime, container: str, address: str, asked: Health) -> str:
        self.looks.append(trio.current_time())
        self.now += 1
        self.most = max(self.most, self.now)
        await trio.sleep(1.0)
        self.now -= 1
        return self.failure

    @property
    def told(self) -> list[Condition]:
        return [event.condition for event in self.events if isinstance(event, ContainerCondition)]


@asynccontextmanager
async def watching(*ids: AllocationId) -> AsyncIterator[Watched]:
    watched = Watched()
    watched.live.update(ids)
    async with trio.open_nursery() as nursery:
        for id in ids:
            nursery.start_soon(watched.watch.watch, id, CHECK, "10.0.0.1")
        yield watched
        nursery.cancel_scope.cancel()


async def test_changes_are_told_once(autojump_clock: trio.testing.MockClock) -> None:
    async with watching(MINE) as watched:
        await trio.sleep(60.5)
        watched.failure = "refused"
        await trio.sleep(60)
        watched.failure = ""
        await trio.sleep(60)
    states = [HealthState.STARTING, HealthState.HEALTHY, HealthState.UNHEALTHY, HealthState.HEALTHY]
    assert [each.health for each in watched.told] == states
    assert [each.why for each in watched.told] == ["", "", "refused", ""]


async def test_few_checks_run_at_once_and_waiting_is_not_their_time(autojump_clock: trio.testing.MockClock) -> None:
    ids = [AllocationId(1001, index, 1) for index in range(40)]
    async with watching(*ids) as watched:
        await trio.sleep(6.5)
        assert len(watched.told) == 2 * len(ids), "all were looked at once and are healthy"
    assert watched.most == CHECKS_AT_ONCE_MAX


async def test_what_is_frozen_is_left_alone_and_begins_anew(autojump_clock: trio.testing.MockClock) -> None:
    async with watching(MINE) as watched:
        await trio.sleep(5)
        watched.failure = "refused"
        await trio.sleep(7)  # one failure of two
        watched.runtime.standing.add(str(MINE))
        before = len(watched.looks)
        await trio.sleep(300)
        assert len(watched.looks) == before
        watched.runtime.standing.clear()
        await trio.sleep(5)
        assert len(watched.looks) == before + 1, "looked at soon after"
        assert watched.told[-1].health is HealthState.HEALTHY, "what failed before does not count"
        await trio.sleep(10)
        assert watched.told[-1].health is HealthState.UNHEALTHY


async def test_a_check_that_a_freeze_interrupts_says_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with watching(MINE) as watched:
        await trio.sleep(5)
        watched.failure = "no answer within 3 s"
        await trio.sleep(5.5)  # in the middle of a look
        watched.runtime.standing.add(str(MINE))
        await trio.sleep(0.6)
        watched.runtime.standing.clear()
        watched.failure = ""
        await trio.sleep(30)
    assert [each.health for each in watched.told] == [HealthState.STARTING, HealthState.HEALTHY]


def test_parts_of_a_condition_do_not_disturb_each_other_and_the_dead_say_nothing() -> None:
    events: list[Event] = []
    live = {MINE}
    conditions = Conditions(events.append, live.__contains__)
    conditions.set(MINE, health=HealthState.HEALTHY)
    conditions.set_frozen(str(MINE), True)
    conditions.set_frozen(str(MINE), True)
    assert events == [
        ContainerCondition(MINE, Condition(health=HealthState.HEALTHY)),
        ContainerCondition(MINE, Condition(health=HealthState.HEALTHY, frozen=True)),
    ]
    live.clear()
    conditions.forget(MINE)
    conditions.set_frozen(str(MINE), False)
    assert len(events) == 2


@pytest.mark.parametrize(
    ("features", "addressed", "able"),
    [({"enter", "network"}, True, "command,tcp"), ({"enter", "network"}, False, "command"), (set(), False, "tcp")],
)
def test_a_node_says_which_checks_it_can_make(features: set[str], addressed: bool, able: str) -> None:
    assert checks(frozenset(features), addressed=addressed) == able  # type: ignore[arg-type]
