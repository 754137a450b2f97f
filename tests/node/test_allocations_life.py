"""From an allocation to a container and back, whatever happens in between; on containers that exist in time alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from node.allocations import REMOVE_RETRY_S, Allocations, Host
from node.allowances import Allowances
from node.config import Runtime as RuntimeSettings
from node.grants import Grants
from node.host.cores import CorePool
from node.host.errors import ImageInUse
from node.host.images import ImageStore
from node.host.network_pools import Range
from node.host.secret_files import SecretFiles
from node.host.user_ranges import UserRanges
from node.image_exchange import ImageExchange
from node.image_names import ImageNames
from node.job_secrets import JobSecrets
from node.limit_policy import LimitPolicy
from node.limiter import Limiter
from node.network import OWN, Network, NetworkSettings
from node.output import OutputStore
from node.runtime.fake import FakeHost, FakeRuntime
from node.runtime.protocol import ContainerError, ContainerSpec, LogChunk, Started
from scheduler.condition import ORDINARY, Condition
from scheduler.events import ContainerCondition, ContainerEnded, ContainerStarted, Event
from scheduler.model import Allocation, AllocationId, OnLost
from tests.node.shell import SPEC, Wire

MINE = AllocationId(1001, 0, 1)


class Disk:
    """What outlives an agent: containers, images, addresses, outputs. `agent` gives the next agent's hands."""

    def __init__(self, folder: Path, store: ImageStore, digest: str) -> None:
        self.folder = folder
        self.store = store
        self.digest = digest
        self.containers = FakeHost(start_delay_s=1.0)
        self.events: list[Event] = []

    def agent(
        self,
        nursery: trio.Nursery,
        runtime: Callable[[FakeHost], FakeRuntime] = FakeRuntime,
        settings: RuntimeSettings | None = None,
        exchange: type[ImageExchange] = ImageExchange,
    ) -> Allocations:
        peers = Wire().join("n1")
        handle = self.runtime = runtime(self.containers)
        self.cores = CorePool(self.folder / "cores", {0: range(4), 1: range(4, 8)}, 7)
        host = Host(
            node="n1",
            runtime=handle,
            images=exchange(self.store, ImageNames(self.folder / "names"), peers, list),
            ranges=UserRanges(self.folder / "ranges", 100_000, 10),
            network=self.network(),
            output=OutputStore(self.folder / "output", 100, 1 << 20),
            grants=Grants(Allowances(), JobSecrets(None), SecretFiles(self.folder / "secrets")),
            limiter=Limiter(LimitPolicy(), self.cores, handle.features, handle.update),
            settings=settings or RuntimeSettings(),
            cpu_milli=4000,
        )
        return Allocations(host, self.events.append, nursery)

    def network(self) -> Network:
        networks = {OWN: ("br0", Range.parse("10.9.9.0/29"))}
        settings = NetworkSettings(networks, "fofoca", range(1024, 32768), range(20000, 30000))
        return Network(settings, self.folder / "network", NoTables())

    def allocation(self, *argv: str, id: AllocationId = MINE, image: bool = True) -> Allocation:
        spec = msgspec.structs.replace(SPEC, argv=argv, image_digest=self.digest if image else "")
        return Allocation(id, "n1", "ann", spec)

    def ended(self, id: AllocationId = MINE) -> ContainerEnded:
        (event,) = [event for event in self.events if isinstance(event, ContainerEnded) and event.id == id]
        return event

    @property
    def told(self) -> list[Condition]:
        return [event.condition for event in self.events if isinstance(event, ContainerCondition)]

    @property
    def started(self) -> list[AllocationId]:
        return [event.id for event in self.events if isinstance(event, ContainerStarted)]

    @property
    def addresses(self) -> int:
        return len(list((self.folder / "network").glob("*.json")))


class NoTables:
    """Takes rules for a kernel that is not there."""

    def run(self, text: str) -> None:
        assert text


async def no_thread(work: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
    """Stand in for a thread, for which virtual time would not wait."""
    await trio.lowlevel.checkpoint()
    return work(*arguments)


@pytest.fixture
async def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    source = tmp_path / "source"
    (source / "bin").mkdir(parents=True)
    (source / "bin" / "sh").write_text("a shell")
    store = await ImageStore.open(tmp_path / "images")
    image = await store.import_directory("busybox", source)
    monkeypatch.setattr(trio.to_thread, "run_sync", no_thread)
    return Disk(tmp_path, store, image.digest)


async def test_a_container_is_set_up_runs_ends_and_is_removed_with_its_output_kept(
    disk: Disk, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    hands = disk.agent(nursery)
    hands.start(disk.allocation("write", "hello"))
    hands.start(disk.allocation("write", "hello"))
    await trio.sleep(20)
    assert disk.started == [MINE]
    assert disk.ended().result.success
    assert disk.addresses == 1
    hands.remove(MINE)
    hands.remove(MINE)
    await trio.sleep(20)
    assert disk.containers.log == [("prepare", str(MINE)), ("start", str(MINE)), ("remove", str(MINE))]
    assert disk.containers.containers == {}
    assert disk.addresses == 0
    assert await hands.read_log(MINE, "stdout", 0, 100) == (LogChunk(0, b"hello\n", 6), True)


async def test_a_container_gets_its_owners_ids_an_address_and_the_images_root(
    disk: Disk, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    hands = disk.agent(nursery)
    hands.start(disk.allocation("sleep", "100"))
    await trio.sleep(20)
    spec = disk.containers.containers[str(MINE)].spec
    assert spec.user_base == 100_000
    assert spec.rootfs == disk.store.rootfs(disk.digest)
    assert spec.network is not None
    assert spec.network.address == "10.9.9.2/29"


async def test_an_image_is_kept_as_long_as_its_container(
    disk: Disk, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    hands = disk.agent(nursery)
    hands.start(disk.allocation("exit", "0"))
    await trio.sleep(20)
    with pytest.raises(ImageInUse):
        await disk.store.remove("busybox")
    hands.remove(MINE)
    await trio.sleep(20)
    await disk.store.remove("busybox")


async def test_a_missing_image_fails_the_attempt_in_words(
    disk: Disk, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    disk.digest = "sha256:" + "0" * 64
    disk.agent(nursery).start(disk.allocation("exit", "0"))
    await trio.sleep(20)
    assert "no node that answers has it" in (disk.ended().result.error or "")


class Slowly(ImageExchange):
    """Has an image after ten seconds, and says how far it is."""

    async def acquire(self, digests: Sequence[str], user: str) -> None:
        self.began_s = trio.current_time()
        await trio.sleep(10)
        await super().acquire(digests, user)

    def coming(self, digest: str, name: str) -> str:
        return f"fetching image {name}: {10 * (trio.current_time() - self.began_s):.0f} %"


async def test_while_an_image_is_fetched_the_task_says_so_once_a_second_at_most(
    disk: Disk, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    hands = disk.agent(nursery, exchange=Slowly)
    allocation = disk.allocation("sleep", "100")
    hands.start(msgspec.structs.replace(allocation, spec=msgspec.structs.replace(allocation.spec, image="debian:12")))
    await trio.sleep(5.5)
    assert [each.doing for each in disk.told] == [f"fetching image debian:12: {n}0 %" for n in range(1, 6)]
    await trio.sleep(20)
    assert disk.told[-1] == ORDINARY
    assert disk.started == [MINE]
    assert len(disk.told) <= 11


async def test_a_frozen_container_is_told_also_by_the_next_agent(disk: Disk, autojump_clock: trio.abc.Clock) -> None:
    held = disk.allocation("sleep", "1000")
    async with trio.open_nursery() as first:
        hands = disk.agent(first)
        hands.start(held)
        await trio.sleep(5)
        await disk.runtime.freeze(str(MINE))
        hands.conditions.set_frozen(str(MINE), True)
        assert disk.told == [Condition(frozen=True)]
        first.cancel_scope.cancel()
    disk.events.clear()
    async with trio.open_nursery() as second:
        hands = disk.agent(second)
        await hands.recover([held])
        await trio.sleep(5)
        assert disk.told == [Condition(frozen=True)]
        second.cancel_scope.cancel()


@pytest.mark.parametrize("after_s", [0.0, 0.5, 5.0])
async def test_a_stop_at_any_moment_ends_it_once(
    after_s: float, disk: Disk, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    hands = disk.agent(nursery)
    hands.start(disk.allocation("sleep", "1000"))
    await trio.sleep(after_s)
    hands.stop(MINE, 1.0, "cancelled")
    hands.stop(MINE, 1.0, "cancelled")
    await trio.sleep(20)
    result = disk.ended().result
    assert result.exit_code == 143 or "stopped before it was started" in (result.error or "")
    assert str(MINE) not in disk.containers.containers or disk.containers.containers[str(MINE)].exit is not None


async def test_a_stop_of_nothing_is_answered_at_once(disk: Disk, nursery: trio.Nursery) -> None:
    disk.agent(nursery).stop(MINE, 1.0, "outdated")
    assert "no container" in (disk.ended().result.error or "")


async def test_a_restarted_agent_takes_over_what_runs_and_reports_what_ended(
    disk: Disk, autojump_clock: trio.abc.Clock
) -> None:
    ended, lasting = task(1), task(2)
    held = [disk.allocation("sleep", "10", "7", id=ended), disk.allocation("sleep", "100", id=lasting)]
    async with trio.open_nursery() as first:
        hands = disk.agent(first)
        for allocation in held:
            hands.start(allocation)
        await trio.sleep(5)
        first.cancel_scope.cancel()  # kill -9 looks the same to containers
    await trio.sleep(20)
    disk.events.clear()
    async with trio.open_nursery() as second:
        await disk.agent(second).recover(held)
        await trio.sleep(5)
        assert disk.ended(ended).result.exit_code == 7
        assert disk.started == [lasting]
        with pytest.raises(ImageInUse):
            await disk.store.remove("busybox")
        await trio.sleep(200)
        assert disk.ended(lasting).result.success
    assert [step for step, _ in disk.containers.log].count("start") == 2


async def test_what_never_ran_is_set_up_anew_after_a_restart(disk: Disk, autojump_clock: trio.abc.Clock) -> None:
    held = [disk.allocation("exit", "0")]
    async with trio.open_nursery() as first:
        disk.agent(first).start(held[0])
        while not disk.containers.containers:
            await trio.sleep(0.01)
        first.cancel_scope.cancel()
    assert disk.started == []
    async with trio.open_nursery() as second:
        await disk.agent(second).recover(held)
        await trio.sleep(20)
    assert disk.started == [MINE]
    assert disk.ended().result.success


async def test_after_a_restart_of_the_host_nothing_is_run_of_which_nobody_knows_whether_it_ran(
    disk: Disk, autojump_clock: trio.abc.Clock
) -> None:
    unseen, ended = task(1), task(2)
    held = [disk.allocation("exit", "0", id=unseen), disk.allocation("sleep", "1", "7", id=ended)]
    async with trio.open_nursery() as first:
        disk.agent(first).start(held[1])
        await trio.sleep(5)
        first.cancel_scope.cancel()
    disk.events.clear()
    async with trio.open_nursery() as second:
        hands = disk.agent(second)
        await hands.recover(held, restarted=True)
        await trio.sleep(20)
        assert disk.started == []
        assert disk.ended(unseen).result.error == "the host was restarted"
        assert disk.ended(ended).result.exit_code == 7
        for id_ in (unseen, ended):
            hands.remove(id_)
        await trio.sleep(20)
        assert disk.containers.containers == {}
        assert disk.addresses == 0


def single(disk: Disk, *argv: str) -> Allocation:
    allocation = disk.allocation(*argv)
    spec = msgspec.structs.replace(allocation.spec, on_lost=OnLost.SINGLE)
    return msgspec.structs.replace(allocation, spec=spec)


async def test_a_lease_that_is_not_renewed_ends_the_container_and_one_that_is_does_not(
    disk: Disk, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    hands = disk.agent(nursery)
    hands.start(single(disk, "sleep", "1000"), trio.current_time() + 10)
    await trio.sleep(8)
    hands.renew(MINE, trio.current_time() + 10)
    await trio.sleep(8)
    assert not [event for event in disk.events if isinstance(event, ContainerEnded)]
    await trio.sleep(8)
    result = disk.ended().result
    assert (result.exit_code, result.error) == (None, "its lease passed without an answer from its home")


async def test_what_may_run_under_a_lease_only_is_not_set_up_anew_after_a_restart(
    disk: Disk, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    hands = disk.agent(nursery)
    await hands.recover([single(disk, "exit", "0")])
    await trio.sleep(20)
    assert disk.events == []
    hands.start(single(disk, "exit", "0"), trio.current_time() + 10)
    await trio.sleep(20)
    assert disk.started == [MINE]


async def test_a_container_that_nobody_holds_is_removed_and_its_output_kept(
    disk: Disk, autojump_clock: trio.abc.Clock
) -> None:
    async with trio.open_nursery() as first:
        disk.agent(first).start(disk.allocation("write", "farewell"))
        await trio.sleep(5)
        first.cancel_scope.cancel()
    disk.events.clear()
    async with trio.open_nursery() as second:
        hands = disk.agent(second)
        await hands.recover([])
        await trio.sleep(20)
        assert disk.containers.containers == {}
        assert disk.addresses == 0
        assert (await hands.read_log(MINE, "stdout", 0, 100))[0].data == b"farewell\n"
    assert disk.events == []


async def test_an_address_of_a_container_long_gone_is_free_after_a_restart(
    disk: Disk, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    disk.network().attach(disk.allocation("exit", "0", id=AllocationId(1, 0, 1)), 100_000)
    await disk.agent(nursery).recover([])
    assert disk.addresses == 0


async def test_without_a_free_address_the_attempt_fails_and_the_agent_goes_on(
    disk: Disk, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    hands = disk.agent(nursery)
    ids = [task(index) for index in range(6)]
    for id_ in ids:
        hands.start(disk.allocation("sleep", "1000", id=id_))
    await trio.sleep(20)
    assert len(disk.started) == 5
    (failed,) = [event for event in disk.events if isinstance(event, ContainerEnded)]
    assert "no address is free" in (failed.result.error or "")


class Trouble(FakeRuntime):
    """Has a bug in `start`, a full disk in `stop`, and fails to remove twice."""

    removals = 0

    async def start(self, spec: ContainerSpec) -> Started:
        if spec.argv[0] == "bug":
            raise KeyError("a bug")
        if spec.argv[0] == "hang":
            await trio.sleep_forever()
        return await super().start(spec)

    async def stop(self, name: str, grace_s: float) -> None:
        raise OSError("no space left on device")

    async def remove(self, name: str) -> None:
        self.removals += 1
        if self.removals <= 2:
            raise ContainerError("it does not die")
        await super().remove(name)


async def test_what_goes_wrong_with_one_container_stays_with_it(
    disk: Disk, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    hands = disk.agent(nursery, Trouble)
    hands.start(disk.allocation("bug", id=task(1)))
    hands.start(disk.allocation("sleep", "60"))
    await trio.sleep(10)
    hands.stop(MINE, 1.0, "cancelled")
    await trio.sleep(100)
    assert "KeyError" in (disk.ended(task(1)).result.error or "")
    assert disk.ended().result.success, "the stop failed, and so it ran to its end"


async def test_a_removal_that_fails_is_tried_until_it_works_and_holds_address_and_image(
    disk: Disk, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    hands = disk.agent(nursery, Trouble)
    hands.start(disk.allocation("exit", "0"))
    await trio.sleep(20)
    hands.remove(MINE)
    await trio.sleep(REMOVE_RETRY_S)
    assert disk.addresses == 1
    with pytest.raises(ImageInUse):
        await disk.store.remove("busybox")
    await trio.sleep(5 * REMOVE_RETRY_S)
    assert disk.containers.containers == {}
    assert disk.addresses == 0
    await disk.store.remove("busybox")


async def test_a_set_up_that_hangs_is_given_up_and_leaves_nothing_that_could_start_later(
    disk: Disk, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    def patient(host: FakeHost) -> FakeRuntime:
        runtime = Trouble(host)
        runtime.removals = 2
        return runtime

    hands = disk.agent(nursery, patient, replace(RuntimeSettings(), start_timeout_s=5.0))
    hands.start(disk.allocation("hang"))
    await trio.sleep(30)
    assert "took longer than 5 s" in (disk.ended().result.error or "")
    assert disk.containers.containers == {}


async def test_a_reader_who_waits_gets_the_end_of_the_output(
    disk: Disk, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    hands = disk.agent(nursery)
    hands.start(disk.allocation("sleep", "5"))
    await trio.sleep(3)
    asked_s = trio.current_time()
    assert await hands.read_log(MINE, "stdout", 0, 100, wait_s=60) == (LogChunk(0, b"", 0), True)
    assert trio.current_time() - asked_s < 10


def task(index: int) -> AllocationId:
    return AllocationId(MINE.job, index, MINE.attempt)
