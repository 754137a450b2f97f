"""Limits of live containers: who runs on which cores while others own some, and what a change of limits leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from node.host.cores import CorePool
from node.limit_policy import LimitPolicy, NotOffered
from node.limiter import Limiter
from node.runtime import ContainerSpec, UpdateError
from node.runtime.fake import FakeHost, FakeRuntime
from scheduler.spec.limits import Limits

HOST_CORES = {0: range(4), 1: range(4, 8)}


class Bench:
    """A limiter over fake containers; `restarted` gives the next agent's."""

    def __init__(self, folder: Path) -> None:
        self.host = FakeHost()
        self.runtime = FakeRuntime(self.host)
        self.folder = folder
        self.restarted()

    def restarted(self) -> None:
        self.pool = CorePool(self.folder / "cores.json", HOST_CORES, 7)
        self.limiter = Limiter(LimitPolicy(), self.pool, self.runtime.features, self.runtime.update)

    async def start(self, name: str, limits: Limits) -> ContainerSpec:
        spec = await self.limiter.add(ContainerSpec(name=name, argv=("stubborn",), memory_bytes=64 << 20), limits)
        await self.runtime.prepare(spec)
        await self.runtime.start(spec)
        await self.limiter.started(spec, limits)
        return spec

    async def end(self, name: str) -> None:
        self.limiter.ended(name)
        await self.runtime.remove(name)
        await self.limiter.removed(name)

    def cores(self, name: str) -> tuple[int, ...]:
        return self.host.containers[name].spec.limits.groups.cores


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    async def no_thread(work, *arguments):  # type: ignore[no-untyped-def]
        return work(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", no_thread)
    return Bench(tmp_path)


async def test_owned_cores_are_nobody_elses_until_their_owner_is_gone(bench: Bench) -> None:
    await bench.start("1.0.1", Limits())
    assert bench.cores("1.0.1") == ()
    await bench.start("2.0.1", Limits(exclusive_cores=2))
    assert bench.cores("2.0.1") == (0, 1)
    await bench.start("3.0.1", Limits())
    await bench.start("4.0.1", Limits(cores="1-3"))
    assert bench.cores("1.0.1") == bench.cores("3.0.1") == (2, 3, 4, 5, 6, 7)
    assert bench.cores("4.0.1") == (2, 3)
    await bench.end("2.0.1")
    assert bench.cores("1.0.1") == bench.cores("3.0.1") == ()
    assert bench.cores("4.0.1") == (1, 2, 3)


async def test_cores_asked_for_by_number_are_not_given_to_an_owner(bench: Bench) -> None:
    await bench.start("1.0.1", Limits(cores="0-1"))
    await bench.start("2.0.1", Limits(exclusive_cores=2))
    assert set(bench.cores("2.0.1")) & {0, 1} == set()


async def test_who_asks_for_owned_cores_alone_is_refused(bench: Bench) -> None:
    await bench.start("1.0.1", Limits(exclusive_cores=2))
    with pytest.raises(NotOffered, match="0-1 are owned"):
        await bench.limiter.add(ContainerSpec(name="2.0.1", argv=("x",)), Limits(cores="0-1"))


async def test_owners_keep_their_cores_over_a_restart_and_the_gone_give_theirs_back(bench: Bench) -> None:
    first = await bench.start("1.0.1", Limits(exclusive_cores=2))
    await bench.start("2.0.1", Limits(exclusive_cores=4))
    bench.restarted()
    await bench.limiter.keep_only(["1.0.1"])
    await bench.limiter.started(first, Limits(exclusive_cores=2))
    assert bench.pool.holders() == {"1.0.1": (0, 1)}
    await bench.start("3.0.1", Limits(exclusive_cores=2))
    assert not set(bench.cores("3.0.1")) & {0, 1}


async def test_a_change_that_the_runtime_refuses_changes_nothing(bench: Bench) -> None:
    spec = await bench.start("1.0.1", Limits())
    with pytest.raises(UpdateError, match="in use"):
        await bench.limiter.change(ContainerSpec(name="1.0.1", argv=("stubborn",), memory_bytes=1 << 20), Limits())
    assert bench.limiter.spec("1.0.1") == spec


async def test_an_owner_keeps_its_cores_when_its_other_limits_change(bench: Bench) -> None:
    spec = await bench.start("1.0.1", Limits(exclusive_cores=2))
    await bench.limiter.change(spec, Limits(exclusive_cores=2, memory_soft_bytes=1 << 20))
    assert bench.cores("1.0.1") == (0, 1)
    assert bench.host.containers["1.0.1"].spec.limits.groups.memory_soft_bytes == 1 << 20


async def test_what_does_not_run_can_not_be_changed(bench: Bench) -> None:
    with pytest.raises(NotOffered, match="does not run"):
        await bench.limiter.change(ContainerSpec(name="1.0.1", argv=("x",)), Limits())
