"""What a node says it has and uses."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio

from node.host.inventory import Inventory
from node.measuring import INTERVAL_S, Meter
from node.runtime.protocol import Usage
from scheduler.events import Event, Measured
from scheduler.model import Resources

INVENTORY = Inventory(Resources(4000, 1 << 30), Resources(3000, 1 << 29), (("arch", "x"), ("node", "given")))


class Containers:
    def __init__(self) -> None:
        self.usage: dict[str, Usage] = {}
        self.failing = False

    def __call__(self) -> Mapping[str, Usage]:
        if self.failing:
            raise OSError("a disk that is gone")
        return self.usage


async def test_cpu_is_the_mean_since_the_sample_before_and_memory_the_sum(autojump_clock: trio.abc.Clock) -> None:
    containers = Containers()
    meter = Meter(INVENTORY, {}, None, containers)
    containers.usage = {"a": Usage(100, 0, 1), "b": Usage(50, 0, 1)}
    await trio.sleep(1)
    assert meter.sample().used == Resources(0, 150)
    containers.usage = {"a": Usage(100, 1_000_000_000, 1), "c": Usage(1, 500_000_000, 1)}
    await trio.sleep(2)
    assert meter.sample().used == Resources(750, 101)


async def test_a_counter_that_starts_anew_is_no_negative_use(autojump_clock: trio.abc.Clock) -> None:
    containers = Containers()
    meter = Meter(INVENTORY, {}, None, containers)
    for cpu_ns in (5_000_000_000, 0):
        containers.usage = {"a": Usage(1, cpu_ns, 1)}
        await trio.sleep(1)
        assert meter.sample().used.cpu_milli >= 0


async def test_the_operators_labels_win_and_are_sorted() -> None:
    assert Meter(INVENTORY, {"node": "n1", "disk": "ssd"}, None, dict).sample().labels == (
        ("arch", "x"),
        ("disk", "ssd"),
        ("node", "n1"),
    )


async def test_measuring_goes_on_after_what_cannot_be_measured(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    containers, posted = Containers(), list[Event]()
    nursery.start_soon(Meter(INVENTORY, {}, None, containers).run, posted.append)
    await trio.sleep(3.5 * INTERVAL_S)
    containers.failing = True
    await trio.sleep(3 * INTERVAL_S)
    containers.failing = False
    await trio.sleep(3 * INTERVAL_S)
    assert len(posted) == pytest.approx(7, abs=1)
    assert all(isinstance(event, Measured) for event in posted)
