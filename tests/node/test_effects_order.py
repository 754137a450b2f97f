"""First the ledger, then the world: whatever fails in between, nothing was said that a restart would not remember."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio

from node.effects import BEHIND_MAX, CHANGES_PER_COMMIT_MAX, Effects
from node.ledger.memory import MemoryLedger
from node.ledger.protocol import LedgerError, LedgerFull
from scheduler import Scheduler
from scheduler.errors import InvalidSpec
from scheduler.events import Cancel, JobChanged, Measured, MemberUp, Outcome, Publish, Put, Send, StartContainer, Timer
from scheduler.messages import Admit, encode
from scheduler.model import JobSpec, Resources
from tests.node.shell import SPEC, CountingLedger, Node, running


async def test_an_id_is_given_only_once_the_job_is_in_the_ledger(autojump_clock: trio.abc.Clock) -> None:
    ledger = CountingLedger(commit_delay_s=1.0)
    async with running(ledger) as node:
        await node.effects.flush()
        asked_s = trio.current_time()
        job_id = await node.submit()
        assert trio.current_time() >= asked_s + 1.0
        assert str(job_id) in ledger.durable["jobs"]


async def test_a_container_starts_only_after_its_allocation_is_in_the_ledger(autojump_clock: trio.abc.Clock) -> None:
    ledger = CountingLedger(commit_delay_s=1.0)
    async with running(ledger) as node:
        perform = node.perform

        def checked(action: Any) -> None:
            if isinstance(action, StartContainer):
                assert str(action.allocation.id) in ledger.durable["allocations"]
            perform(action)

        node.effects._perform = checked
        await node.submit()
        await trio.sleep(10)
        assert len(node.of(StartContainer)) == 1


async def test_a_ledger_that_fails_lets_nothing_out_and_ends_the_agent(autojump_clock: trio.abc.Clock) -> None:
    ledger = CountingLedger(commit_delay_s=1.0)
    answers: list[int] = []
    node = Node(ledger)

    async def submit() -> None:
        answers.append(await node.submit())

    with pytest.RaisesGroup(LedgerFull, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.effects.run)
            node.effects.enqueue(node.effects.machine.restore(trio.current_time(), 0.0, {}))
            node.effects.post(Measured(Resources(4000, 1 << 33), Resources(4000, 1 << 33), Resources()))
            await node.effects.flush()
            node.done.clear()
            ledger.fail_with(LedgerFull("no space left"))
            nursery.start_soon(submit)
    assert answers == []
    assert node.of(Send) == node.of(StartContainer) == node.of(JobChanged) == []


async def test_a_crash_between_decision_and_commit_forgets_what_was_never_said(
    autojump_clock: trio.abc.Clock,
) -> None:
    ledger = CountingLedger(commit_delay_s=1.0)
    survivors: list[Any] = []
    answers: list[int] = []
    with pytest.RaisesGroup(LedgerError, flatten_subgroups=True):
        async with running(ledger) as node:
            answers.append(await node.submit())

            async def late() -> None:
                answers.append(await node.submit())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(late)
                await trio.sleep(0.5)
                survivors.append(ledger.crash())
    rows = await survivors[0].load()
    assert [int(key) for key in rows["jobs"]] == answers


async def test_many_who_ask_at_once_share_a_commit(autojump_clock: trio.abc.Clock) -> None:
    ledger = CountingLedger(commit_delay_s=1.0)
    async with running(ledger) as node:
        await node.effects.flush()
        ledger.commits.clear()
        started_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(node.submit)
        assert trio.current_time() - started_s <= 2.0
        assert len(ledger.commits) <= 2


async def test_a_refused_event_changes_nothing(autojump_clock: trio.abc.Clock) -> None:
    ledger = CountingLedger()
    async with running(ledger) as node:
        await node.effects.flush()
        node.done.clear()
        ledger.commits.clear()
        with pytest.raises(InvalidSpec):
            await node.submit(JobSpec(name="no command", argv=(), request=Resources(1, 1)))
        node.effects.post(Cancel(7001, 0.0))
        node.effects.received("n2", b"no message at all")
        await node.effects.flush()
        assert ledger.commits == []
        assert node.done == []


async def test_what_was_said_at_once_is_one_event_and_one_of_it_that_cannot_be_read_is_left_out(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with running(CountingLedger()) as node:
        node.effects.post(MemberUp("n2", 2, 1))
        await node.effects.flush()
        admits = [
            *encode([Admit(2, "ann", SPEC, ((0, 1),), 1)], 1 << 20),
            *encode([Admit(1002, "ann", SPEC, ((0, 1),), 1)], 1 << 20),
        ]
        node.done.clear()
        node.effects.received("n2", *admits)
        await node.effects.flush()
        assert len(node.of(StartContainer)) == 2
        assert len([each for each in node.of(Send) if isinstance(each, Send) and each.to == "n2"]) == 1
        node.effects.received("n2", b"nonsense", *encode([Admit(2002, "ann", SPEC, ((0, 1),), 1)], 1 << 20))
        await node.effects.flush()
        assert len(node.of(StartContainer)) == 3


async def test_one_commit_stays_within_what_a_ledger_takes(autojump_clock: trio.abc.Clock) -> None:
    ledger = CountingLedger(commit_delay_s=1.0)
    async with running(ledger) as node:
        for part in range(10):
            puts = [Put("jobs", f"{part}-{index}", b"x") for index in range(CHANGES_PER_COMMIT_MAX - 1)]
            node.effects.enqueue(Outcome(changes=list(puts)))
        await node.effects.flush()
        assert max(ledger.commits) <= CHANGES_PER_COMMIT_MAX
        assert sum(ledger.commits) >= 10 * (CHANGES_PER_COMMIT_MAX - 1)


async def test_a_slow_disk_slows_those_who_bring_messages(autojump_clock: trio.abc.Clock) -> None:
    ledger = CountingLedger(commit_delay_s=1.0)
    async with running(ledger) as node:
        for index in range(BEHIND_MAX + 1):
            node.effects.enqueue(Outcome(changes=[Put("jobs", str(index), b"x")]))
        before_s = trio.current_time()
        await node.effects.keep_up()
        assert trio.current_time() > before_s
        assert len(node.effects._queue) <= BEHIND_MAX


async def test_the_machine_is_woken_at_its_times(autojump_clock: trio.abc.Clock) -> None:
    async with running(CountingLedger()) as node:
        await trio.sleep(30.5)
        due = node.effects.machine.next_timer()
        assert due is not None
        assert due >= trio.current_time()
        assert len(node.of(Publish)) >= 2, "reports are published again and again"


class Broken:
    """A machine with a bug."""

    def handle(self, now: float, event: object) -> Outcome:
        raise ZeroDivisionError("a bug")

    def next_timer(self) -> float | None:
        return None


async def test_a_bug_in_the_machine_ends_the_agent_and_lets_nothing_more_out(autojump_clock: trio.abc.Clock) -> None:
    done: list[Any] = []
    effects = Effects(cast(Scheduler, Broken()), CountingLedger(commit_delay_s=1.0), done.append)
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(effects.run)
            effects.enqueue(Outcome(actions=[JobChanged(1)]))
            with pytest.raises(ZeroDivisionError):
                effects.post(Cancel(1, 0.0))
    assert done == []


class Clockwork:
    """A machine with one alarm, which any event sets."""

    def __init__(self) -> None:
        self.due_s: float | None = None
        self.rang: list[float] = []

    def handle(self, now: float, event: object) -> Outcome:
        if isinstance(event, Timer):
            self.rang.append(now)
            self.due_s = None
        else:
            self.due_s = cast(float, event)
        return Outcome()

    def next_timer(self) -> float | None:
        return self.due_s


async def test_an_alarm_rings_at_the_time_it_was_set_to_last_sooner_or_later(autojump_clock: trio.abc.Clock) -> None:
    machine = Clockwork()
    effects = Effects(cast(Scheduler, machine), MemoryLedger(), lambda _: None)
    begin = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(effects.run)
        await trio.sleep(1)
        for due_s in (50, 20, 30):
            effects.post(cast(Any, begin + due_s))
            await trio.sleep(1)
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert machine.rang == [pytest.approx(begin + 30)]
