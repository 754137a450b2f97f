"""What a crash of the simulated disk loses, and what it does not."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from node.ledger import LedgerClosed, LedgerFull, LedgerOverloaded, MemoryLedger, group_commit
from scheduler.events import Put


async def test_a_crash_loses_exactly_what_was_not_acknowledged(autojump_clock: trio.testing.MockClock) -> None:
    ledger = MemoryLedger(commit_delay_s=1.0)
    await ledger.commit([Put("t", "early", b"1")])
    outcome: list[str] = []

    async def late() -> None:
        with pytest.raises(LedgerClosed):
            await ledger.commit([Put("t", "late", b"2")])
        outcome.append("refused")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(late)
        await trio.sleep(0.5)
        survivor = ledger.crash()
    assert outcome == ["refused"]
    assert await survivor.load() == {"t": {"early": b"1"}}
    with pytest.raises(LedgerClosed):
        await ledger.commit([Put("t", "later", b"3")])


async def test_a_failed_write_fails_all_that_wait_and_all_that_come(autojump_clock: trio.testing.MockClock) -> None:
    ledger = MemoryLedger(commit_delay_s=1.0)
    refused: list[int] = []

    async def commit(key: int) -> None:
        with pytest.raises(LedgerFull):
            await ledger.commit([Put("t", str(key), b"")])
        refused.append(key)

    async with trio.open_nursery() as nursery:
        for key in range(3):
            nursery.start_soon(commit, key)
        await trio.sleep(0.5)
        nursery.start_soon(commit, 3)
        ledger.fail_with(LedgerFull("no space left"))
    assert sorted(refused) == [0, 1, 2, 3]
    with pytest.raises(LedgerClosed, match="no space left"):
        await ledger.commit([])


async def test_the_queue_is_bounded_and_says_so(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(group_commit, "QUEUE_COMMITS_MAX", 2)
    ledger = MemoryLedger(commit_delay_s=1.0)
    async with trio.open_nursery() as nursery:
        for key in range(2):
            nursery.start_soon(ledger.commit, [Put("t", str(key), b"")])
        await trio.sleep(0.5)
        with pytest.raises(LedgerOverloaded, match="2 commits"):
            await ledger.commit([Put("t", "9", b"")])
    assert sorted((await ledger.load())["t"]) == ["0", "1"]
