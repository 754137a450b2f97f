"""What may be lost with the host is not waited for; what may not be is synced, and everything before it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from node.ledger.sqlite import SqliteLedger
from scheduler.events import Put

WRITER = """
import sys, trio
from pathlib import Path
from node.ledger.sqlite import SqliteLedger
from scheduler.events import Put

async def main():
    ledger = await SqliteLedger.open(Path(sys.argv[1]), frozenset({"loose"}))
    for number in range(50):
        await ledger.commit([Put("loose", str(number), b"x")])
    print("written", flush=True)
    await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.parametrize(("tables", "synced"), [(["loose"], False), (["firm"], True), (["loose", "firm"], True)])
async def test_only_commits_to_loose_tables_go_without_a_sync(tmp_path: Path, tables: list[str], synced: bool) -> None:
    ledger = await SqliteLedger.open(tmp_path / "ledger.db", frozenset({"loose"}))
    await ledger.commit([Put(table, "key", b"value") for table in tables])
    connection = ledger._live()
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == (2 if synced else 1)
    await ledger.close()


async def test_a_commit_without_a_sync_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        os.kill(writer.pid, signal.SIGKILL)
    ledger = await SqliteLedger.open(path)
    assert len((await ledger.load())["loose"]) == 50
    await ledger.close()
