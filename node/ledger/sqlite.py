"""The default ledger: one SQLite file, WAL, synchronous=FULL, one thread at a time writing batches.

Owns the file, its lock and its schema; knows nothing of what the records mean. With these settings SQLite syncs
the log before a commit returns (sqlite.org/pragma.html#pragma_synchronous).
Other processes may read the file while the agent runs (`sqlite3 ledger.db .backup`); a second agent is kept out by a
lock file, which the kernel lets go of whatever way the holder dies.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import trio

from node import logs
from node.ledger.group_commit import GroupCommit
from node.ledger.protocol import (
    Content,
    LedgerCorrupt,
    LedgerError,
    LedgerFull,
    LedgerLocked,
)
from node.ledger.spare import Spare
from scheduler.events import Change, Put

SCHEMA_VERSION = 1
APPLICATION_ID = 0x464F464C  # "FOFL": tells `file`, and us, that the file is a Fofoca ledger
WAL_BYTES_KEPT_MAX = 16 * 2**20
BUSY_TIMEOUT_S = 5.0  # how long a reader's checkpoint or backup may hold us up

_CREATE = """
CREATE TABLE record (name TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, UNIQUE (name, key))
"""
_PUT = "INSERT INTO record VALUES (?, ?, ?) ON CONFLICT (name, key) DO UPDATE SET value = excluded.value"
_DELETE = "DELETE FROM record WHERE name = ? AND key = ?"

FULL_RETRY_S = 1.0

log = logs.get("ledger")
T = TypeVar("T")


class SqliteLedger:
    """A Ledger in one file; made by `open`."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        lock_fd: int,
        unsynced: frozenset[str],
        spare: Spare | None,
    ) -> None:
        self._path = path
        self._spare = spare
        self._closing = False
        self._unsynced = unsynced
        self._connection: sqlite3.Connection | None = connection
        self._lock_fd = lock_fd
        self._group = GroupCommit(self._write)

    @classmethod
    async def open(cls, path: Path, unsynced: frozenset[str] = frozenset(), spare: Spare | None = None) -> SqliteLedger:
        """Open or create the ledger at `path`, whose folder exists.

        A commit to `unsynced` tables alone is written but not synced: it survives kill -9, and after a power loss the
        ledger is as it was after some earlier commit, at least the last synced one.
        With `spare`, a full disk makes commits take from there and then wait; without, it is an error.
        Raises LedgerLocked if another agent has it, LedgerCorrupt if it is damaged or of a newer version.
        """
        lock_fd = _lock(path)
        try:
            connection = await _in_thread(path, lambda: _opened(path, spare))
        except BaseException:
            os.close(lock_fd)
            raise
        return cls(path, connection, lock_fd, unsynced, spare)

    async def load(self) -> Content:
        """Read everything; see Ledger.load."""
        return await _in_thread(self._path, lambda: _read_all(self._live()))

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make the changes durable; see Ledger.commit."""
        await self._group.commit(changes)

    async def close(self) -> None:
        """Finish what waits, fold the write-ahead log into the file, release the lock."""
        self._closing = True
        with trio.CancelScope(shield=True):
            await self._group.close()
            if self._connection is None:
                return
            connection, self._connection = self._connection, None
            try:
                await _in_thread(self._path, connection.close)
            finally:
                os.close(self._lock_fd)

    async def _write(self, changes: Sequence[Change]) -> None:
        synced = any(change.table not in self._unsynced for change in changes)
        while True:
            try:
                await _in_thread(self._path, lambda: _write_batch(self._live(), changes, synced))
            except LedgerFull:
                if self._spare is None or self._closing:
                    raise
                await self._find_space(self._spare)
            else:
                return self._found_space()

    async def _find_space(self, spare: Spare) -> None:
        """After a commit that was taken back whole."""
        if not spare.give():
            if not spare.waiting:
                log.error("no space left for the ledger; everything waits until there is some", path=str(self._path))
            spare.waiting = True
            await trio.sleep(FULL_RETRY_S)

    def _found_space(self) -> None:
        if self._spare is not None and self._spare.waiting:
            self._spare.waiting = False
            log.info("there is space for the ledger again", path=str(self._path))

    def _live(self) -> sqlite3.Connection:
        if self._connection is None:
            raise LedgerError(f"{self._path}: the ledger is closed")
        return self._connection


def _lock(path: Path) -> int:
    lock_path = path.with_name(path.name + ".lock")
    try:
        # Python's descriptors are closed on exec, so no container's supervisor inherits the lock.
        lock_fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise LedgerError(f"{lock_path}: cannot open the ledger's lock: {error.strerror}") from error
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock_fd, 32).decode(errors="replace").strip() or "unknown"
        os.close(lock_fd)
        raise LedgerLocked(
            f"{path}: another agent (process {holder}) uses this data directory;"
            " stop it, or give this agent a directory of its own"
        ) from error
    os.truncate(lock_fd, 0)
    os.write(lock_fd, f"{os.getpid()}\n".encode())
    return lock_fd


def _opened(path: Path, spare: Spare | None) -> sqlite3.Connection:
    """Its log takes some space already."""
    while True:
        try:
            return _open_checked(path)
        except sqlite3.Error as error:
            if not _is_full(error) or spare is None or not spare.give():
                raise


def _open_checked(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    # Autocommit, because the batch says BEGIN and COMMIT itself; one thread at a time, never two at once.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    _sync_folder(path.parent)
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    fresh = not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if not fresh:
        _check(connection, path, application_id, version)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT_MAX}")
    if fresh:
        connection.executescript(
            f"BEGIN; {_CREATE}; PRAGMA application_id = {APPLICATION_ID};"
            f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )


def _check(connection: sqlite3.Connection, path: Path, application_id: int, version: int) -> None:
    if application_id != APPLICATION_ID:
        raise LedgerCorrupt(f"{path}: an SQLite file, but not a Fofoca ledger; point the agent elsewhere")
    if version != SCHEMA_VERSION:
        raise LedgerCorrupt(
            f"{path}: written with ledger version {version}, this agent knows {SCHEMA_VERSION};"
            " start the version of Fofoca that wrote it, or a newer one"
        )
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise LedgerCorrupt(f"{path}: the integrity check says: {found}; {_RESTORE}")


_RESTORE = "move the file away and restore a backup, or start empty and lose this node's record"


def _read_all(connection: sqlite3.Connection) -> Content:
    tables: dict[str, dict[str, bytes]] = {}
    for name, key, value in connection.execute("SELECT name, key, value FROM record ORDER BY name, key"):
        tables.setdefault(name, {})[key] = value
    return tables


def _write_batch(connection: sqlite3.Connection, changes: Sequence[Change], synced: bool) -> None:
    connection.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for put, alike in groupby(changes, lambda change: isinstance(change, Put)):
            connection.executemany(_PUT if put else _DELETE, map(_row, alike))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _row(change: Change) -> tuple[str, str] | tuple[str, str, bytes]:
    return (change.table, change.key, change.value) if isinstance(change, Put) else (change.table, change.key)


def _sync_folder(folder: Path) -> None:
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)


async def _in_thread(path: Path, work: Callable[[], T]) -> T:
    """Run blocking work to its end, also when the caller is cancelled meanwhile; SQLite's errors become ours."""
    try:
        return await trio.to_thread.run_sync(work)
    except (sqlite3.Error, OSError) as error:
        raise _translated(path, error) from error


def _translated(path: Path, error: sqlite3.Error | OSError) -> LedgerError:
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    if isinstance(error, sqlite3.Error) and _is_full(error):
        return LedgerFull(f"{path}: no space left for the ledger; free some and restart the agent")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return LedgerCorrupt(f"{path}: {error}; {_RESTORE}")
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LedgerLocked(f"{path}: another process keeps the ledger locked: {error}")
    return LedgerError(f"{path}: {error}")


def _is_full(error: sqlite3.Error) -> bool:
    """Found before anything is synced, so the commit was taken back whole. The log's index grows by itself."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE
