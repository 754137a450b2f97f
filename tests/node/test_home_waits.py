"""The home as the API sees it: images are resolved when a job is taken, and those who wait are woken once it ends."""

from __future__ import annotations

from typing import cast

import msgspec
import pytest
import trio

from node.errors import InvalidValue, UnknownImage
from node.home import Home
from node.image_exchange import ImageExchange
from node.job_secrets import JobSecrets
from scheduler.errors import UnknownJob
from scheduler.events import Action, ContainerEnded, ContainerStarted, JobChanged, StartContainer
from scheduler.model import Result
from tests.node.shell import SPEC, CountingLedger, Node, running

DIGEST = "sha256:" + "d" * 64


class Images:
    """Knows one name."""

    async def digest_of(self, reference: str) -> str:
        await trio.lowlevel.checkpoint()
        if reference != "busybox":
            raise UnknownImage(reference)
        return DIGEST


def home_of(node: Node, *, image_required: bool = False) -> Home:
    home = Home(node.effects, cast(ImageExchange, Images()), JobSecrets(None), image_required=image_required)
    perform = node.perform

    def and_wake(action: Action) -> None:
        perform(action)
        if isinstance(action, JobChanged):
            home.changed(action.job_id)

    node.effects._perform = and_wake
    return home


async def test_a_job_remembers_the_image_its_name_meant_when_it_was_taken(autojump_clock: trio.abc.Clock) -> None:
    async with running(CountingLedger()) as node:
        await home_of(node).submit("ann", msgspec.structs.replace(SPEC, image="busybox"))
        await trio.sleep(5)
        (start,) = node.of(StartContainer)
        assert isinstance(start, StartContainer)
        assert start.allocation.spec.image_digest == DIGEST


async def test_a_job_without_a_known_image_is_refused_and_nothing_is_kept(autojump_clock: trio.abc.Clock) -> None:
    ledger = CountingLedger()
    async with running(ledger) as node:
        home = home_of(node, image_required=True)
        with pytest.raises(UnknownImage):
            await home.submit("ann", msgspec.structs.replace(SPEC, image="nonsense"))
        with pytest.raises(InvalidValue, match="containers need one"):
            await home.submit("ann", SPEC)
        assert home.jobs() == []
        assert "jobs" not in ledger.durable


async def test_those_who_wait_are_woken_when_the_job_ends_and_leave_nothing_behind(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running(CountingLedger()) as node:
        home = home_of(node)
        job_id = await home.submit("ann", SPEC)
        woken: list[float] = []

        async def wait() -> None:
            await home.wait(job_id, 1000)
            woken.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            await trio.sleep(5)
            (start,) = node.of(StartContainer)
            assert isinstance(start, StartContainer)
            node.effects.post(ContainerStarted(start.allocation.id, 0.0))
            await trio.sleep(5)
            assert woken == []
            node.effects.post(ContainerEnded(start.allocation.id, Result(exit_code=0)))
            ended_s = trio.current_time()
        assert woken == [pytest.approx(ended_s, abs=1)] * 3
        assert home._waiters == {}


async def test_a_wait_that_runs_out_or_has_no_job_ends_and_leaves_nothing_behind(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running(CountingLedger()) as node:
        home = home_of(node)
        job_id = await home.submit("ann", SPEC)
        began_s = trio.current_time()
        await home.wait(job_id, 7.0)
        assert trio.current_time() == pytest.approx(began_s + 7.0)
        with pytest.raises(UnknownJob):
            await home.wait(999_001, 7.0)
        assert home._waiters == {}
