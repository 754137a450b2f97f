"""The ledger in etcd: a home's record outlives its machine, and another node can take it up.

One key per row below a prefix of the home. Every transaction is conditional on who holds the record (etcd_hold.py) and
on the record's `tail`, a number that it raises by one: so it takes effect once and in order, also when its answer is
lost and it is sent again, and also when the network delivers an old copy of it late.

A batch too large for one transaction is first written aside, piece by piece; the transaction that writes the last piece
also says so in the tail, and with that the batch is durable. Then its rows are written, and the last of these
transactions removes what was aside. Whoever opens the record finishes what the tail speaks of before reading a row, and
removes pieces it does not speak of: a batch is never seen half (the redo log of databases, in small).

While etcd is out of reach, commits wait and are tried again, ever more slowly; `away` says why.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TypeVar

import msgspec
import trio

from node import logs
from node.ledger.etcd_batches import (
    PARTED,
    WHOLE,
    Write,
    groups,
    last_changes,
    pack,
    read_part_key,
    read_row_key,
    unpack,
)
from node.ledger.etcd_gateway import (
    BAD_REQUEST,
    Body,
    Etcd,
    EtcdError,
    data,
    delete,
    get,
    is_value,
    put,
    text,
    transact,
)
from node.ledger.etcd_hold import LEASE_S, PATIENCE_S, Hold, Holder, Instance, taken_by
from node.ledger.group_commit import GroupCommit
from node.ledger.protocol import Content, LedgerCorrupt, LedgerError
from scheduler.events import Change

PAUSE_FIRST_S = 0.1
PAUSE_MAX_S = 5.0
CLOSE_GRACE_S = 5.0
PAGE_ROWS_MAX = 1_024
PAGE_BYTES = 4 << 20

log = logs.get("ledger")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tail:
    """How many transactions the record has seen, and how many pieces of a batch are aside, to be finished."""

    sequence: int = 0
    pending: int = 0

    def encoded(self) -> bytes:
        return b"%d %d" % (self.sequence, self.pending)


def home_prefix(prefix: str, cluster: str, home: str) -> str:
    """Return what all keys of a home begin with."""
    return f"{prefix.rstrip('/')}/{cluster}/homes/{home}/"


class EtcdLedger:
    """A Ledger in etcd; made by `open`. `run` has to run beside it."""

    def __init__(self, etcd: Etcd, prefix: str, hold: Hold, instance: Instance, patience_s: float) -> None:
        self._etcd = etcd
        self._prefix = prefix
        self._hold = hold
        self._instance = instance
        self._tail_key = f"{prefix}tail".encode()
        self._tail = Tail()
        self._parted: set[tuple[str, str]] = set()
        self._deadline_s = trio.current_time() + patience_s
        self._group = GroupCommit(self._write)
        self._open = True
        self.away = ""
        """Why etcd is not reached; "" where it is, as far as was tried."""

    @classmethod
    async def open(
        cls,
        etcd: Etcd,
        prefix: str,
        node: str,
        path: Path,
        *,
        stand_in: bool = False,
        patience_s: float = PATIENCE_S,
        lease_s: float = LEASE_S,
    ) -> EtcdLedger:
        """Hold the record below `prefix`; `path` is this agent's lock and memory of it, `node` where it runs.

        Raises LedgerLocked while another agent holds it, LedgerError when etcd is not reached.
        """
        instance = Instance(path)
        hold = Hold(etcd, prefix, Holder(token=instance.token, node=node, stand_in=stand_in), lease_s)
        ledger = cls(etcd, prefix, hold, instance, patience_s)
        try:
            await ledger._insist(lambda: hold.take(instance.before, patience_s))
            instance.remember()
            await ledger._insist(ledger._recover)
        except BaseException:
            await ledger.close()
            raise
        ledger._deadline_s = inf
        return ledger

    @property
    def held_until_s(self) -> float:
        """Before then, on this node's clock, nobody else can hold this record."""
        return self._hold.until_s

    async def load(self) -> Content:
        """Read everything; see Ledger.load."""
        tables: dict[str, dict[str, bytes]] = {}
        parts: dict[tuple[str, str], list[bytes]] = {}
        for name, piece in await self._insist(lambda: self._scan("parts/")):
            parts.setdefault(read_part_key(name), []).append(piece)
        for name, stored in await self._insist(lambda: self._scan("rows/")):
            table, key = read_row_key(name)
            tables.setdefault(table, {})[key] = _whole(name, stored, parts.get((table, key), []))
        self._parted = set(parts)
        return tables

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make the changes durable; see Ledger.commit."""
        await self._group.commit(changes)

    async def run(self) -> None:
        """Keep the hold on the record until cancelled, or wanted back by the home that this agent stands in for.

        LedgerTaken when another agent has it.
        """
        try:
            await self._hold.keep(self._note)
        except LedgerError as error:
            self._group.fail(error)
            raise

    async def close(self) -> None:
        """Finish what waits, if etcd is reached soon, and let go of the record."""
        self._deadline_s = trio.current_time() + CLOSE_GRACE_S
        with trio.CancelScope(shield=True):
            await self._group.close()
            if not self._open:
                return
            self._open = False
            try:
                await self._hold.let_go()
            except EtcdError as error:
                log.warning("the hold on the record ends by itself, with its lease", why=str(error))
            await self._etcd.close()
            self._instance.close()

    # --- transactions

    async def _write(self, changes: Sequence[Change]) -> None:
        """Make a batch durable, all or nothing."""
        kept = last_changes(changes)
        parted = set(self._parted)
        planned = groups(kept, parted)
        if len(planned) > 1:
            await self._put_aside(pack(kept))
        await self._carry_out(planned)
        self._parted = parted

    async def _put_aside(self, pieces: Sequence[bytes]) -> None:
        """Write a batch beside the rows. Once the last piece is there it is durable."""
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            await self._step([Write(_pending_key(number), piece)], len(pieces) if last else 0)

    async def _carry_out(self, planned: Sequence[Sequence[Write]]) -> None:
        """Write the rows of a batch; if it was put aside, the last transaction removes it there."""
        for number, writes in enumerate(planned):
            last = number == len(planned) - 1
            aside = self._tail.pending if not last else 0
            clear = [_PENDING] if last and self._tail.pending else []
            await self._step([*writes, *clear], aside)

    async def _step(self, writes: Iterable[Write], pending: int) -> None:
        """Carry out one transaction, once and in order."""
        before, after = self._tail, Tail(self._tail.sequence + 1, pending)
        then = [put(self._tail_key, after.encoded()), *(self._operation(write) for write in writes)]
        conditions = [self._hold.condition, is_value(self._tail_key, before.encoded())]
        asked = [self._hold.question, get(self._tail_key)]
        done, found = await self._insist(lambda: transact(self._etcd, conditions, then, asked))
        if not done and found[0] != self._hold.stored:
            raise taken_by(found[0])
        if not done and found[1] != after.encoded():
            raise LedgerCorrupt(f"etcd: the tail of this home's record is {found[1]!r}, not {before.encoded()!r}")
        # Not done, but the tail is where it should be: an earlier copy of the request came through.
        self._tail = after

    def _operation(self, write: Write) -> Body:
        key = self._prefix.encode() + write.key
        if write.value is not None:
            return put(key, write.value)
        return delete(key, self._prefix.encode() + write.end if write.end else b"")

    async def _recover(self) -> None:
        """Finish the batch that an agent before left half written; remove what it left of one that never counted."""
        self._tail = await self._read_tail()
        if self._tail.pending:
            pieces = [piece for _, piece in await self._scan("pending/")][: self._tail.pending]
            self._parted = {read_part_key(name) for name, _ in await self._scan("parts/")}
            try:
                changes = unpack(pieces)
            except msgspec.DecodeError as error:
                raise LedgerCorrupt(f"etcd: a batch of this home's record can't be read: {error}") from None
            log.info("finishing a batch that an agent before left half written", changes=len(changes))
            await self._carry_out(groups(changes, self._parted))
        await self._step([_PENDING], 0)

    async def _read_tail(self) -> Tail:
        """Return the record's tail; a new record gets one."""
        first = put(self._tail_key, Tail().encoded())
        conditions = [self._hold.condition, is_value(self._tail_key, None)]
        done, found = await transact(self._etcd, conditions, [first], [self._hold.question, get(self._tail_key)])
        if done:
            return Tail()
        if found[0] != self._hold.stored or found[1] is None:
            raise taken_by(found[0])
        try:
            sequence, pending = map(int, found[1].split())
        except ValueError:
            raise LedgerCorrupt(f"etcd: the tail of this home's record can't be read: {found[1]!r}") from None
        return Tail(sequence, pending)

    # --- reading, and patience

    async def _scan(self, folder: str) -> list[tuple[bytes, bytes]]:
        """Return all keys below a folder of the record, without the home's prefix, as they were at one moment."""
        prefix = self._prefix.encode()
        key, end = prefix + folder.encode(), prefix + folder[:-1].encode() + b"0"
        found: list[tuple[bytes, bytes]] = []
        revision, rows = "0", 8
        while True:
            answer = await self._etcd.call(
                "/v3/kv/range", {"key": text(key), "range_end": text(end), "limit": str(rows), "revision": revision}
            )
            page = [(data(each, "key"), data(each, "value")) for each in answer.get("kvs", ())]
            found += [(name.removeprefix(prefix), value) for name, value in page]
            if not answer.get("more", False):
                return found
            revision, key = answer["header"]["revision"], page[-1][0] + b"\0"
            size_bytes = sum(len(value) for _, value in page)
            rows = min(PAGE_ROWS_MAX, rows * 2) if size_bytes < PAGE_BYTES // 2 else max(1, rows // 2)

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        """Try until etcd answers, with longer and longer pauses; LedgerError once patience has run out."""
        pause_s = PAUSE_FIRST_S
        while True:
            try:
                answer = await work()
            except EtcdError as error:
                if error.code == BAD_REQUEST or trio.current_time() + pause_s > self._deadline_s:
                    raise LedgerError(str(error)) from error
                self._note(str(error))
                await trio.sleep(pause_s)
                pause_s = min(PAUSE_MAX_S, 2 * pause_s)
            else:
                self._note("")
                return answer

    def _note(self, why: str) -> None:
        if why and not self.away:
            log.error("etcd is out of reach; what is decided waits for it, and nothing new is taken", why=why)
        elif self.away and not why:
            log.info("etcd is in reach again")
        self.away = why


_PENDING = Write(b"pending/", end=b"pending0")


def _pending_key(number: int) -> bytes:
    return b"pending/%06d" % number


def _whole(name: bytes, stored: bytes, parts: Sequence[bytes]) -> bytes:
    kind, rest = stored[:1], stored[1:]
    if kind == WHOLE:
        return rest
    if kind != PARTED or rest != b"%d" % len(parts):
        raise LedgerCorrupt(f"etcd: the row {name.decode(errors='replace')} of this home's record can't be read")
    return b"".join(parts)
