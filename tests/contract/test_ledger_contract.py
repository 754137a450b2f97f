"""What every ledger promises, run on every backend."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from node.ledger import EtcdLedger, InvalidChange, Ledger, LedgerClosed, MemoryLedger, SqliteLedger
from node.ledger.etcd_gateway import EtcdAccess, EtcdGateway
from node.ledger.parted import PartedLedger
from scheduler.events import Delete, Put
from tests.ledger.etcd_stores import ETCD, FakeEtcd, RealEtcd


class Store:
    """A place where a ledger can be opened again and again."""

    def __init__(self, backend: str, folder: Path, url: str) -> None:
        self._backend = backend
        self._folder = folder
        self._url = url
        self._fake = FakeEtcd()
        self._ledger: Ledger | None = None

    async def open(self) -> Ledger:
        if self._backend == "sqlite":
            self._ledger = await SqliteLedger.open(self._folder / "ledger.db")
        elif self._backend == "two in one":
            first = await SqliteLedger.open(self._folder / "first.db")
            second = await SqliteLedger.open(self._folder / "second.db")
            self._ledger = PartedLedger(first, second, frozenset({"seen", "node", "b"}))
        elif "etcd" in self._backend:
            etcd = EtcdGateway(EtcdAccess(urls=(self._url,))) if self._url else self._fake
            prefix = f"/fofoca{self._folder}/homes/n1/"
            self._ledger = await EtcdLedger.open(etcd, prefix, "n1", self._folder / "etcd.lock")
        elif isinstance(self._ledger, MemoryLedger):
            self._ledger = self._ledger.crash()
        else:
            self._ledger = MemoryLedger()
        return self._ledger

    @property
    def ledger(self) -> Ledger:
        assert self._ledger is not None
        return self._ledger

    async def reopen(self) -> Ledger:
        await self.close()
        return await self.open()

    async def close(self) -> None:
        if self._ledger is not None:
            await self._ledger.close()


@pytest.fixture(scope="module")
def etcd_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real etcd, shared: every test has a prefix of its own."""
    if ETCD is None:
        pytest.skip("no etcd (on Debian: apt-get install etcd-server)")
    etcd = RealEtcd(tmp_path_factory.mktemp("etcd"))
    try:
        etcd.start()
        yield etcd.url
    finally:
        etcd.stop()


@pytest.fixture(params=["sqlite", "memory", "two in one", "etcd in memory", "etcd"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    url = request.getfixturevalue("etcd_url") if request.param == "etcd" else ""
    store = Store(request.param, tmp_path, url)
    yield store
    await store.close()


async def test_a_new_ledger_is_empty(store: Store) -> None:
    assert await (await store.open()).load() == {}


async def test_what_was_committed_is_there_after_reopening(store: Store) -> None:
    ledger = await store.open()
    await ledger.commit([Put("job", "1001", b"a"), Put("job", "2001", b""), Put("node", "self", b"\x00\xff")])
    expected = {"job": {"1001": b"a", "2001": b""}, "node": {"self": b"\x00\xff"}}
    assert await ledger.load() == expected
    assert await (await store.reopen()).load() == expected


async def test_keys_that_look_alike_stay_apart(store: Store) -> None:
    ledger = await store.open()
    keys = ["1", "01", "1.0", "1e0", " 1", "é", "e\u0301", "", "K" * 512, "k" * 512]
    await ledger.commit([Put("t", key, key.encode()) for key in keys])
    assert (await (await store.reopen()).load())["t"] == {key: key.encode() for key in keys}


async def test_later_changes_of_one_commit_win(store: Store) -> None:
    ledger = await store.open()
    await ledger.commit(
        [Put("t", "1", b"x"), Delete("t", "1"), Put("t", "1", b"y"), Put("t", "2", b"z"), Delete("t", "2")]
    )
    assert await ledger.load() == {"t": {"1": b"y"}}


async def test_large_batches_and_large_values_come_back_as_they_were(store: Store) -> None:
    ledger = await store.open()
    rows = {str(number): b"%d" % number for number in range(700)}
    large = random.Random(1).randbytes(3 << 20)
    await ledger.commit([*(Put("t", key, value) for key, value in rows.items()), Put("t", "large", large)])
    assert await (await store.reopen()).load() == {"t": {**rows, "large": large}}
    await store.ledger.commit([Put("t", "large", large[: 600 << 10]), *(Delete("t", key) for key in rows)])
    assert await (await store.reopen()).load() == {"t": {"large": large[: 600 << 10]}}
    await store.ledger.commit([Put("t", "large", b"small")])
    assert await (await store.reopen()).load() == {"t": {"large": b"small"}}
    await store.ledger.commit([Put("t", "large", large), Delete("t", "large"), Put("t", "large", large[:-1])])
    await store.ledger.commit([Put("t", "large", large)])
    assert await (await store.reopen()).load() == {"t": {"large": large}}
    await store.ledger.commit([Delete("t", "large")])
    assert await (await store.reopen()).load() == {}


async def test_deleting_what_is_not_there_changes_nothing(store: Store) -> None:
    ledger = await store.open()
    await ledger.commit([Delete("t", "1"), Delete("other", "x")])
    assert await ledger.load() == {}


async def test_an_empty_commit_is_fine(store: Store) -> None:
    await (await store.open()).commit([])


async def test_concurrent_commits_take_effect_in_the_order_of_the_calls(store: Store) -> None:
    ledger = await store.open()

    async def commit(value: int) -> None:
        started.append(value)
        await ledger.commit([Put("t", "last", b"%d" % value), Put("seen", str(value), b"")])

    started: list[int] = []
    async with trio.open_nursery() as nursery:
        for value in range(200):
            nursery.start_soon(commit, value)
    content = await ledger.load()
    assert content["t"]["last"] == b"%d" % started[-1]
    assert len(content["seen"]) == 200


async def test_a_cancelled_caller_leaves_the_others_and_its_own_commit_untouched(store: Store) -> None:
    ledger = await store.open()
    with trio.CancelScope() as scope:
        scope.cancel()
        await ledger.commit([Put("t", "1", b"cancelled")])
    assert scope.cancelled_caught
    await ledger.commit([Put("t", "2", b"next")])
    assert (await ledger.load())["t"] == {"1": b"cancelled", "2": b"next"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (Put("no such; table", "1", b""), "ASCII identifier"),
        (Put("", "1", b""), "ASCII identifier"),
        (Delete("t" * 65, "1"), "ASCII identifier"),
        (Put("t", 1, b""), "a key is str, not int"),  # type: ignore[arg-type]
        (Put("t", b"1", b""), "a key is str, not bytes"),  # type: ignore[arg-type]
        (Put("t", "k" * 513, b""), "at most 512 bytes"),
        (Put("t", "nul\0", b""), "no NUL"),
        (Put("t", "\udc80", b""), "valid Unicode"),
        (Put("t", "1", "text"), "a value is bytes, not str"),  # type: ignore[arg-type]
        (("t", "key", b"a tuple"), "a change is a Put or a Delete"),
    ],
    ids=repr,
)
async def test_a_change_no_backend_takes_is_refused_whole_and_the_ledger_stays_usable(
    store: Store, change: object, reason: str
) -> None:
    ledger = await store.open()
    with pytest.raises(InvalidChange, match=reason):
        await ledger.commit([Put("t", "7", b"good"), change])  # type: ignore[list-item]
    assert await ledger.load() == {}
    await ledger.commit([Put("t", "8", b"good")])


async def test_a_closed_ledger_refuses_and_closing_twice_is_fine(store: Store) -> None:
    ledger = await store.open()
    await ledger.close()
    await ledger.close()
    with pytest.raises(LedgerClosed):
        await ledger.commit([Put("t", "1", b"")])


async def test_closing_finishes_the_commits_that_wait(store: Store) -> None:
    ledger = await store.open()
    async with trio.open_nursery() as nursery:
        for key in range(50):
            nursery.start_soon(ledger.commit, [Put("t", str(key), b"x")])
        await trio.lowlevel.checkpoint()
        nursery.start_soon(ledger.close)
    assert len((await (await store.reopen()).load())["t"]) == 50


@pytest.mark.parametrize("seed", range(5))
async def test_random_commits_match_a_plain_dictionary(store: Store, seed: int) -> None:
    rng = random.Random(seed)
    print("seed", seed)
    model: dict[str, dict[str, bytes]] = {}
    ledger = await store.open()
    for _ in range(60):
        changes: list[Put | Delete] = []
        for _ in range(rng.randrange(6)):
            table, key = rng.choice("ab"), str(rng.randrange(5))
            if rng.random() < 0.6:
                value = rng.randbytes(rng.randrange(2000))
                changes.append(Put(table, key, value))
                model.setdefault(table, {})[key] = value
            else:
                changes.append(Delete(table, key))
                model.get(table, {}).pop(key, None)
        await ledger.commit(changes)
        if rng.random() < 0.1:
            ledger = await store.reopen()
    assert await ledger.load() == {name: table for name, table in model.items() if table}
