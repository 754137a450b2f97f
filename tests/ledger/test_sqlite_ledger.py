"""What only the file has: its lock, its schema, damage, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from node.ledger import LedgerClosed, LedgerCorrupt, LedgerError, LedgerFull, LedgerLocked, SqliteLedger
from node.ledger.spare import STEP_BYTES, Spare
from scheduler.events import Put

WRITER = """
import sys, trio
from pathlib import Path
from node.ledger import SqliteLedger
from node.ledger.spare import STEP_BYTES, Spare
from scheduler.events import Put

async def caller(ledger, worker):
    for number in range(100_000):
        await ledger.commit([Put("done", f"{worker} {number}", b"x" * 200), Put("last", str(worker), b"%d" % number)])
        sys.stdout.write(f"{worker} {number}\\n")
        sys.stdout.flush()

async def main():
    ledger = await SqliteLedger.open(Path(sys.argv[1]))
    async with trio.open_nursery() as nursery:
        for worker in range(8):
            nursery.start_soon(caller, ledger, worker)

trio.run(main)
"""


@pytest.mark.parametrize("run_for_s", [0.02, 0.15, 0.4])
async def test_kill_9_loses_nothing_acknowledged_and_tears_no_commit(tmp_path: Path, run_for_s: float) -> None:
    path = tmp_path / "ledger.db"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline()]
    time.sleep(run_for_s)
    writer.send_signal(signal.SIGKILL)
    acknowledged += writer.stdout.readlines()
    writer.wait()

    ledger = await SqliteLedger.open(path)
    content = await ledger.load()
    await ledger.close()
    lines = [line.split() for line in acknowledged if line.endswith(b"\n")]
    assert lines
    for worker, number in lines:
        assert f"{int(worker)} {int(number)}" in content["done"]
    for worker_key, last in content["last"].items():
        assert f"{worker_key} {int(last)}" in content["done"], "half a commit is there"


async def test_two_agents_never_share_a_ledger(tmp_path: Path) -> None:
    ledger = await SqliteLedger.open(tmp_path / "ledger.db")
    with pytest.raises(LedgerLocked, match=f"process {os.getpid()}"):
        await SqliteLedger.open(tmp_path / "ledger.db")
    await ledger.close()
    await (await SqliteLedger.open(tmp_path / "ledger.db")).close()


async def test_a_child_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    ledger = await SqliteLedger.open(tmp_path / "ledger.db")
    child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        await ledger.close()
        await (await SqliteLedger.open(tmp_path / "ledger.db")).close()
    finally:
        child.kill()
        child.wait()


async def test_a_failed_opening_releases_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"this is no database, it only looks like a file of some length" * 100)
    for _ in range(2):
        with pytest.raises(LedgerCorrupt, match=r"ledger\.db"):
            await SqliteLedger.open(path)


async def test_damage_inside_the_file_is_found_at_opening(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = await SqliteLedger.open(path)
    await ledger.commit([Put("t", str(key), b"v" * 1000) for key in range(200)])
    await ledger.close()
    content = bytearray(path.read_bytes())
    content[4096 * 8 : 4096 * 10] = b"\x55" * 8192
    path.write_bytes(content)
    with pytest.raises(LedgerCorrupt, match="restore a backup"):
        await SqliteLedger.open(path)


async def test_a_foreign_database_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(LedgerCorrupt, match="not a Fofoca ledger"):
        await SqliteLedger.open(path)
    assert path.read_bytes() == before


async def test_a_ledger_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await (await SqliteLedger.open(path)).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LedgerCorrupt, match="version 99"):
        await SqliteLedger.open(path)


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"nowhere/ledger\.db"):
        await SqliteLedger.open(tmp_path / "nowhere" / "ledger.db")


async def test_a_full_disk_fails_the_commit_and_all_later_ones_and_keeps_the_earlier(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = await SqliteLedger.open(path)
    await ledger.commit([Put("t", "1", b"kept")])
    assert ledger._connection is not None
    ledger._connection.execute("PRAGMA max_page_count = 10")
    with pytest.raises(LedgerFull, match="no space left"):
        await ledger.commit([Put("t", "2", b"x" * 100_000)])
    with pytest.raises(LedgerClosed, match="no space left"):
        await ledger.commit([Put("t", "3", b"small")])
    await ledger.close()
    ledger = await SqliteLedger.open(path)
    assert await ledger.load() == {"t": {"1": b"kept"}}
    await ledger.close()


async def test_a_reader_may_look_while_the_agent_writes(tmp_path: Path) -> None:
    ledger = await SqliteLedger.open(tmp_path / "ledger.db")
    await ledger.commit([Put("t", "1", b"a")])
    reader = sqlite3.connect(tmp_path / "ledger.db")
    reader.execute("BEGIN")
    assert reader.execute("SELECT value FROM record").fetchall() == [(b"a",)]
    await ledger.commit([Put("t", "1", b"b")])
    reader.close()
    await ledger.close()


async def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    ledger = await SqliteLedger.open(tmp_path / "ledger.db")
    await ledger.commit([Put("t", "1", b"secret")])
    modes = {path.name: path.stat().st_mode & 0o077 for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0}, modes
    await ledger.close()


async def test_many_callers_share_few_writes(tmp_path: Path) -> None:
    ledger = await SqliteLedger.open(tmp_path / "ledger.db")
    assert ledger._connection is not None
    commits: list[str] = []
    ledger._connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    async with trio.open_nursery() as nursery:
        for key in range(500):
            nursery.start_soon(ledger.commit, [Put("t", str(key), b"x")])
    assert len(commits) < 20
    await ledger.close()


async def test_a_full_disk_makes_commits_take_what_was_set_aside_and_then_wait(tmp_path: Path) -> None:
    spare = Spare(tmp_path / "spare", 2 * STEP_BYTES)
    assert spare.refill()
    ledger = await SqliteLedger.open(tmp_path / "ledger.db", spare=spare)
    connection = ledger._live()
    connection.execute("PRAGMA max_page_count = 1")
    outcome: list[str] = []

    async def commit() -> None:
        await ledger.commit([Put("t", "large", b"x" * 100_000)])
        outcome.append("durable")

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit)
            while not spare.waiting:
                await trio.sleep(0.01)
            assert not spare.is_whole()
            assert (tmp_path / "spare").stat().st_size == 0
            assert outcome == []
            connection.execute("PRAGMA max_page_count = 1000000")
    assert outcome == ["durable"]
    assert not spare.waiting
    assert spare.refill()
    assert (await ledger.load())["t"]["large"] == b"x" * 100_000
    await ledger.close()


async def test_a_ledger_that_waits_for_room_can_be_closed(tmp_path: Path) -> None:
    spare = Spare(tmp_path / "spare", 0)
    ledger = await SqliteLedger.open(tmp_path / "ledger.db", spare=spare)
    ledger._live().execute("PRAGMA max_page_count = 1")
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused, ledger)
            while not spare.waiting:
                await trio.sleep(0.01)
            await ledger.close()


async def refused(ledger: SqliteLedger) -> None:
    with pytest.raises(LedgerFull):
        await ledger.commit([Put("t", "large", b"x" * 100_000)])
