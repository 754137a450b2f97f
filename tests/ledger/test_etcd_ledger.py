"""The ledger in etcd when things go wrong: crashes between transactions, lost and late messages, others, no etcd."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.ledger import EtcdLedger, LedgerCorrupt, LedgerError, LedgerLocked, LedgerTaken
from node.ledger.etcd_batches import BYTES_MAX, OPERATIONS_MAX, groups, last_changes, pack, unpack
from node.ledger.etcd_gateway import EtcdError
from node.ledger.etcd_hold import LEASE_S, Hold, Holder
from scheduler.events import Change, Delete, Put
from tests.ledger.etcd_stores import FakeEtcd

PREFIX = "/fofoca/test/homes/n1/"


@pytest.fixture
def etcd() -> FakeEtcd:
    return FakeEtcd()


async def opened(etcd: FakeEtcd, path: Path, node: str = "n1") -> EtcdLedger:
    return await EtcdLedger.open(etcd, PREFIX, node, path)


def die(ledger: EtcdLedger) -> None:
    """As kill -9 would: the kernel lets go of the lock, nobody tells etcd."""
    ledger._instance.close()


class Crash(BaseException):
    """The agent's process ends here."""


def batch(seed: int) -> list[Change]:
    """Rows and a large value: more than a transaction takes."""
    rng = random.Random(seed)
    return [*(Put("t", str(n), rng.randbytes(8)) for n in range(250)), Put("t", "large", rng.randbytes(1_300_000))]


def state(changes: list[Change]) -> dict[str, dict[str, bytes]]:
    return {"t": {each.key: each.value for each in changes if isinstance(each, Put)}}


@pytest.mark.parametrize("happened", [False, True], ids=["before the call", "after it"])
async def test_a_crash_at_any_transaction_leaves_all_of_a_batch_or_nothing(tmp_path: Path, happened: bool) -> None:
    old, new = batch(1), batch(2)
    seen = set()
    for crash_at in range(1, 40):
        etcd = FakeEtcd()
        path = tmp_path / f"{crash_at}"
        ledger = await opened(etcd, path)
        await ledger.commit(old)
        count = 0

        def crash(_path: str, _body: Mapping[str, Any], at: int = crash_at) -> None:
            nonlocal count
            count += 1
            if count == at:
                raise Crash

        setattr(etcd, "after" if happened else "before", crash)
        try:
            await ledger._write(new)
            acknowledged = True
        except Crash:
            acknowledged = False
        etcd.before = etcd.after = lambda path, body: None
        die(ledger)
        survivor = await opened(etcd, path)
        content = await survivor.load()
        assert content in ((state(new),) if acknowledged else (state(old), state(new))), f"crash at call {crash_at}"
        assert etcd.names("/pending/") == []
        seen.add((content == state(new), acknowledged))
        # What was finished for it is the same to write on.
        await survivor.commit([Delete("t", "large")])
        assert [name for name in etcd.names() if "/parts/" in name] == []
        await survivor.close()
        if acknowledged:
            break
    assert acknowledged
    assert seen == {(False, False), (True, False), (True, True)}


@pytest.mark.parametrize("seed", range(8))
async def test_answers_and_requests_that_get_lost_cost_time_only(
    tmp_path: Path, etcd: FakeEtcd, autojump_clock: MockClock, seed: int
) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    ledger = await opened(etcd, tmp_path / "lock")

    def lose(_path: str, _body: Mapping[str, Any]) -> None:
        if rng.random() < 0.2:
            raise EtcdError("no answer")

    etcd.before = etcd.after = lose
    model: dict[str, bytes] = {}
    for _ in range(40):
        changes: list[Change] = []
        for _ in range(rng.choice((1, 3, 150))):
            key = str(rng.randrange(200))
            if rng.random() < 0.7:
                model[key] = rng.randbytes(5)
                changes.append(Put("t", key, model[key]))
            else:
                model.pop(key, None)
                changes.append(Delete("t", key))
        await ledger.commit(changes)
    assert await ledger.load() == {"t": model}
    etcd.before = etcd.after = lambda path, body: None
    await ledger.close()


async def test_a_copy_that_arrives_late_changes_nothing(tmp_path: Path, etcd: FakeEtcd) -> None:
    ledger = await opened(etcd, tmp_path / "lock")
    await ledger.commit([Put("t", "1", b"old")])
    late = [call for call in etcd.calls if call[0] == "/v3/kv/txn"][-1]
    await ledger.commit([Put("t", "1", b"new")])
    answer = etcd.carry_out(*late)
    assert not answer.get("succeeded")
    assert await ledger.load() == {"t": {"1": b"new"}}
    await ledger.commit([Put("t", "1", b"newer")])
    await ledger.close()


async def test_an_agent_that_was_replaced_never_writes_again(
    tmp_path: Path, etcd: FakeEtcd, autojump_clock: MockClock
) -> None:
    first = await opened(etcd, tmp_path / "1", "host-a")
    await first.commit([Put("t", "1", b"first")])
    await trio.sleep(LEASE_S + 1)  # nobody renews its lease
    second = await opened(etcd, tmp_path / "2", "host-b")
    assert await second.load() == {"t": {"1": b"first"}}
    with pytest.raises(LedgerTaken, match="held by an agent on host-b"):
        await first.commit([Put("t", "1", b"late")])
    with pytest.raises(LedgerTaken):
        await first.run()
    await second.commit([Put("t", "2", b"second")])
    assert await second.load() == {"t": {"1": b"first", "2": b"second"}}
    await first.close()
    await second.commit([Put("t", "3", b"")])
    await second.close()


async def test_an_agent_is_fenced_from_the_moment_on_that_another_holds_the_record(
    tmp_path: Path, etcd: FakeEtcd, autojump_clock: MockClock
) -> None:
    first = await opened(etcd, tmp_path / "1", "host-a")
    await trio.sleep(LEASE_S + 1)
    await Hold(etcd, PREFIX, Holder(token="another", node="host-b")).take()
    with pytest.raises(LedgerTaken, match="host-b"):
        await first.commit([Put("t", "1", b"late")])
    assert etcd.names("/rows/") == []
    await first.close()


async def test_two_agents_never_hold_one_home(tmp_path: Path, etcd: FakeEtcd, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        first = await opened(etcd, tmp_path / "1", "host-a")
        nursery.start_soon(first.run)
        began = trio.current_time()
        with pytest.raises(LedgerLocked, match="held by an agent on host-a"):
            await opened(etcd, tmp_path / "2", "host-b")
        assert trio.current_time() - began > LEASE_S
        with pytest.raises(LedgerLocked, match="this data directory"):
            await opened(etcd, tmp_path / "1", "host-a")
        await first.commit([Put("t", "1", b"")])
        nursery.cancel_scope.cancel()
    await first.close()


async def test_a_home_that_is_back_gets_its_record_from_its_stand_in(
    tmp_path: Path, etcd: FakeEtcd, autojump_clock: MockClock
) -> None:
    first = await opened(etcd, tmp_path / "1")
    await first.commit([Put("t", "1", b"first")])
    await trio.sleep(LEASE_S + 1)
    stand_in = await EtcdLedger.open(etcd, PREFIX, "n2", tmp_path / "2", stand_in=True, patience_s=0)
    await stand_in.commit([Put("t", "2", b"stand-in")])
    with pytest.raises(LedgerTaken, match="on n2"):
        await first.run()
    await first.close()

    async def stand() -> None:
        await stand_in.run()
        await stand_in.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stand)
        with pytest.raises(LedgerLocked, match="on n2"):
            await EtcdLedger.open(etcd, PREFIX, "n3", tmp_path / "3", stand_in=True, patience_s=0)
        await trio.sleep(3 * LEASE_S)
        began = trio.current_time()
        back = await opened(etcd, tmp_path / "1")
        assert trio.current_time() - began < LEASE_S / 2
    assert await back.load() == {"t": {"1": b"first", "2": b"stand-in"}}
    assert etcd.names("/wanted") == []
    await back.close()


async def test_a_holder_knows_until_when_nobody_else_can_be_one(
    tmp_path: Path, etcd: FakeEtcd, autojump_clock: MockClock
) -> None:
    first = await opened(etcd, tmp_path / "1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.run)
        await trio.sleep(3 * LEASE_S)
        assert first.held_until_s > trio.current_time()
        nursery.cancel_scope.cancel()
    surely_s = first.held_until_s
    while True:
        try:
            second = await EtcdLedger.open(etcd, PREFIX, "n2", tmp_path / "2", stand_in=True, patience_s=0)
        except LedgerLocked:
            await trio.sleep(0.1)
        else:
            break
    assert surely_s <= trio.current_time() <= surely_s + LEASE_S
    await second.close()
    await first.close()


async def test_an_agent_that_was_killed_starts_again_at_once(
    tmp_path: Path, etcd: FakeEtcd, autojump_clock: MockClock
) -> None:
    first = await opened(etcd, tmp_path / "lock")
    await first.commit([Put("t", "1", b"x")])
    die(first)
    began = trio.current_time()
    second = await opened(etcd, tmp_path / "lock")
    assert trio.current_time() == began
    assert await second.load() == {"t": {"1": b"x"}}
    await second.close()


async def test_what_was_let_go_is_free_at_once(tmp_path: Path, etcd: FakeEtcd, autojump_clock: MockClock) -> None:
    await (await opened(etcd, tmp_path / "1")).close()
    began = trio.current_time()
    await (await opened(etcd, tmp_path / "2")).close()
    assert trio.current_time() == began


async def test_without_etcd_commits_wait_and_say_so_and_then_go_on(
    tmp_path: Path, etcd: FakeEtcd, autojump_clock: MockClock
) -> None:
    ledger = await opened(etcd, tmp_path / "lock")

    etcd.before = unreached
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.run)
        async with trio.open_nursery() as commits:
            for number in range(3):
                commits.start_soon(ledger.commit, [Put("t", str(number), b"")])
            await trio.sleep(LEASE_S)
            assert ledger.away == "connection refused"
            await trio.sleep(300)  # the lease runs out meanwhile, and nobody takes the home over
            assert ledger.away == "connection refused"
            etcd.before = lambda path, body: None
        assert ledger.away == ""
        await trio.sleep(LEASE_S)
        assert etcd.names("/alive") == [f"{PREFIX}alive"]
        nursery.cancel_scope.cancel()
    assert await ledger.load() == {"t": {"0": b"", "1": b"", "2": b""}}
    etcd.before = unreached
    began = trio.current_time()
    await ledger.close()
    assert trio.current_time() - began < LEASE_S


async def test_that_etcd_is_away_is_known_before_anything_waits_for_it(
    tmp_path: Path, etcd: FakeEtcd, autojump_clock: MockClock
) -> None:
    ledger = await opened(etcd, tmp_path / "lock")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.run)
        for reached in (True, False, True):
            etcd.before = (lambda path, body: None) if reached else unreached
            await trio.sleep(LEASE_S / 2)
            assert bool(ledger.away) is not reached
        nursery.cancel_scope.cancel()
    await ledger.close()


def unreached(_path: str, _body: Mapping[str, Any]) -> None:
    raise EtcdError("connection refused")


async def test_an_etcd_that_is_never_reached_is_an_error_that_says_so(
    tmp_path: Path, etcd: FakeEtcd, autojump_clock: MockClock
) -> None:
    etcd.before = unreached
    with pytest.raises(LedgerError, match="connection refused"):
        await opened(etcd, tmp_path / "lock")


async def test_homes_do_not_see_each_other(tmp_path: Path, etcd: FakeEtcd) -> None:
    one = await EtcdLedger.open(etcd, "/f/c/homes/n1/", "n1", tmp_path / "1")
    other = await EtcdLedger.open(etcd, "/f/c/homes/n10/", "n10", tmp_path / "10")
    await one.commit([Put("t", "1", b"one")])
    await other.commit([Put("t", "1", b"other")])
    assert await one.load() == {"t": {"1": b"one"}}
    await one.close()
    await other.close()


async def test_a_row_whose_parts_are_gone_is_told_and_not_taken_for_less(tmp_path: Path, etcd: FakeEtcd) -> None:
    ledger = await opened(etcd, tmp_path / "lock")
    await ledger.commit([Put("t", "1", bytes(2 << 20))])
    del etcd.keys[etcd.names("/parts/")[1].encode()]
    with pytest.raises(LedgerCorrupt, match="rows/t/1"):
        await ledger.load()
    await ledger.close()


@pytest.mark.parametrize("seed", range(20))
def test_every_group_fits_a_transaction_and_packing_loses_nothing(seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    sizes = (0, 10, 1000, 100_000, 900_000, 2_500_000)
    changes: list[Change] = []
    for _ in range(rng.randrange(400)):
        key = str(rng.randrange(300))
        keep = rng.random() < 0.7
        changes.append(Put("t", key, bytes(rng.choice(sizes[: rng.randrange(2, 7)]))) if keep else Delete("t", key))
    kept = last_changes(changes)
    assert len({change.key for change in kept}) == len(kept)
    parted = {("t", str(number)) for number in range(0, 300, 7)}
    for group in groups(kept, parted):
        assert 0 < len(group) <= OPERATIONS_MAX
        assert sum(write.size_bytes for write in group) <= BYTES_MAX
        assert len({write.key for write in group}) == len(group)
    assert unpack(pack(kept)) == kept
