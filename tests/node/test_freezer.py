"""Owners and preemption freeze the same containers: neither thaws the other's, and each order gets its answer."""

from __future__ import annotations

import pytest
import trio

from node.errors import CallerError, NotFound
from node.freezer import Freezer
from node.runtime.protocol import FreezeError, UnknownContainerError
from scheduler.events import ContainerFrozen, ContainerThawed, Event, FreezeContainer, ThawContainer
from scheduler.model import AllocationId

MINE = AllocationId(7001, 0, 1)


class Containers:
    """A runtime of which only the freezer is there; each order takes a second."""

    def __init__(self) -> None:
        self.frozen = False
        self.known = True
        self.fails = 0
        self.log: list[str] = []

    def is_frozen(self, name: str) -> bool:
        return self.frozen

    async def freeze(self, name: str) -> None:
        await self._order("freeze", name, True)

    async def thaw(self, name: str) -> None:
        await self._order("thaw", name, False)

    async def _order(self, what: str, name: str, frozen: bool) -> None:
        self.log.append(f"{what} begins")
        await trio.sleep(1)
        self.log.append(f"{what} ends")
        if not self.known:
            raise UnknownContainerError(name)
        if self.fails:
            self.fails -= 1
            raise FreezeError(name, "it does not stop")
        self.frozen = frozen


class Bench:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.containers = Containers()
        self.events: list[Event] = []
        self.live = {MINE}
        self.told: list[bool] = []
        self.freezer = Freezer(
            self.containers,  # type: ignore[arg-type]
            self.events.append,
            self.live.__contains__,
            lambda _, frozen: self.told.append(frozen),
            nursery,
        )


@pytest.fixture
def bench(nursery: trio.Nursery) -> Bench:
    return Bench(nursery)


async def test_preemption_freezes_and_thaws_and_is_told_when_it_is_so(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    bench.freezer.perform(FreezeContainer(MINE, 9))
    await trio.sleep(0.5)
    assert bench.events == []
    await trio.sleep(1)
    bench.freezer.perform(ThawContainer(MINE))
    await trio.sleep(2)
    assert bench.events == [ContainerFrozen(MINE), ContainerThawed(MINE)]
    assert bench.told == [True, False]


async def test_an_owner_can_not_thaw_or_freeze_what_preemption_froze(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    bench.freezer.perform(FreezeContainer(MINE, 9))
    await trio.sleep(0.5)
    for frozen in (False, True):
        with pytest.raises(CallerError, match="was frozen for job 9 by preemption"):
            await bench.freezer.set_frozen(str(MINE), frozen)
    bench.freezer.perform(ThawContainer(MINE))
    await trio.sleep(2)
    await bench.freezer.set_frozen(str(MINE), True)
    assert bench.containers.frozen


async def test_nor_can_it_after_a_restart_before_anything_was_asked(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    bench.containers.frozen = True
    bench.freezer.recover({MINE: 9})
    with pytest.raises(CallerError, match="job 9"):
        await bench.freezer.set_frozen(str(MINE), False)
    bench.freezer.perform(FreezeContainer(MINE, 9, again=True))
    await trio.sleep(2)
    assert bench.events == [ContainerFrozen(MINE)]


async def test_preemption_does_not_take_what_its_owner_froze(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as both:
        both.start_soon(bench.freezer.set_frozen, str(MINE), True)
        await trio.sleep(0.5)
        bench.freezer.perform(FreezeContainer(MINE, 9))
    await trio.sleep(2)
    assert bench.events == [ContainerFrozen(MINE, "its owner froze it")]
    assert bench.containers.log == ["freeze begins", "freeze ends"]
    await bench.freezer.set_frozen(str(MINE), False)
    assert not bench.containers.frozen


async def test_what_can_not_be_frozen_is_said_and_is_its_owners_again(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    bench.containers.fails = 1
    bench.freezer.perform(FreezeContainer(MINE, 9))
    await trio.sleep(2)
    assert bench.events == [ContainerFrozen(MINE, f"container {MINE}: it does not stop")]
    await bench.freezer.set_frozen(str(MINE), True)


async def test_thawing_is_tried_until_it_works_or_there_is_nothing_to_thaw(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    bench.freezer.recover({MINE: 9})
    bench.containers.fails = 3
    bench.freezer.perform(ThawContainer(MINE))
    await trio.sleep(20)
    assert bench.events == [ContainerThawed(MINE)]
    bench.containers.known = False
    bench.freezer.perform(ThawContainer(MINE))
    await trio.sleep(3.5)
    bench.live.clear()
    await trio.sleep(5)
    assert len(bench.events) == 2
    with pytest.raises(NotFound):
        await bench.freezer.set_frozen(str(MINE), False)
