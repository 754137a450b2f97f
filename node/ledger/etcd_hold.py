"""Who may write a home's record in etcd: one agent at a time, known to all.

Two keys. `holder` names the agent that took the record last, and stays; every write is conditional on it, so that
whoever was replaced can never write again, however late its messages arrive (fencing). `alive` says the same for as
long as the holder's lease is renewed: only when it is gone may another agent become the holder. A lease that ran out
while nobody took over is harmless: the holder is still the holder, and lets `alive` be seen again. By a third key,
`wanted`, a home that is back asks the node that stands in for it to let go.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable
from math import ceil, inf
from pathlib import Path

import msgspec
import trio

from node import logs
from node.ledger.etcd_gateway import Body, Etcd, EtcdError, get, is_value, put, transact
from node.ledger.protocol import LedgerError, LedgerLocked, LedgerTaken

LEASE_S = 20.0
RENEWALS_PER_LEASE = 4
SURE_SHARE = 0.9
"""How much of a lease a holder relies on: clocks differ in pace, by far less."""
POLL_S = 0.5
PATIENCE_S = 30.0

log = logs.get("ledger")


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """An agent that holds a home's record: `token` is drawn anew at each start; `node` is for people."""

    token: str
    node: str
    stand_in: bool = False

    def encoded(self) -> bytes:
        """Return it as it is stored and compared."""
        return msgspec.json.encode(self)


_decode = msgspec.json.Decoder(Holder).decode


def read_holder(stored: bytes | None) -> Holder | None:
    """Return a stored holder; None for none."""
    try:
        return None if stored is None else _decode(stored)
    except msgspec.DecodeError as error:
        raise LedgerError(
            f"etcd: the holder of a home can't be read ({error}); is the prefix used by others?"
        ) from None


class Instance:
    """This agent on this data directory: one at a time, and the next one knows what the last one called itself."""

    def __init__(self, path: Path) -> None:
        """Lock the file; LedgerLocked if another agent has it."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise LedgerLocked(f"{path}: another agent uses this data directory") from None
        self.before = os.pread(self._fd, 200, 0).decode("ascii", "replace").strip()
        self.token = secrets.token_hex(16)

    def remember(self) -> None:
        """Let the next agent on this directory know that it replaces this one."""
        os.pwrite(self._fd, f"{self.token}\n".encode(), 0)
        os.fsync(self._fd)

    def close(self) -> None:
        """Let another agent have the directory."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Hold:
    """The holding of one home's record, made by `take`."""

    def __init__(self, etcd: Etcd, prefix: str, holder: Holder, lease_s: float = LEASE_S) -> None:
        self._etcd = etcd
        self._lease_s = lease_s
        self._wanted_key = f"{prefix}wanted".encode()
        self._holder_key = f"{prefix}holder".encode()
        self._alive_key = f"{prefix}alive".encode()
        self._holder = holder
        self._lease = ""
        self.stored = holder.encoded()
        self.until_s = -inf
        """Before then, on this node's clock, nobody else can become the holder."""

    @property
    def condition(self) -> Body:
        """Holds while nobody took the record from us."""
        return is_value(self._holder_key, self.stored)

    @property
    def question(self) -> Body:
        """Reads who holds the record."""
        return get(self._holder_key)

    async def take(self, before: str = "", patience_s: float = PATIENCE_S) -> None:
        """Become the holder, at once after an agent of this token (dead for sure), else when nobody is alive.

        LedgerLocked if somebody is alive for that long; EtcdError.
        """
        deadline = trio.current_time() + patience_s
        told = False
        while True:
            stored, alive = await self._look()
            living = read_holder(alive)
            if living is None or living.token == before:
                if await self._replace(stored, alive):
                    return
                continue
            if trio.current_time() >= deadline:
                raise LedgerLocked(f"the record of this home in etcd is held by an agent on {living.node}; {_ADVICE}")
            if not told:
                log.info("the record is held by another agent; waiting for its lease to run out", node=living.node)
                told = True
                if living.stand_in and not self._holder.stand_in:
                    await self._ask_back(patience_s)
            await trio.sleep(POLL_S)

    async def keep(self, note: Callable[[str], None]) -> None:
        """Renew the lease until cancelled, or the home is back that this agent stands in for; LedgerTaken when another
        agent is the holder. `note` is told why etcd is not reached, and "" when it is.
        """
        while True:
            await trio.sleep(self._lease_s / RENEWALS_PER_LEASE)
            try:
                if not await self._renewed():
                    await self._show_again()
                if self._holder.stand_in and await self._is_wanted():
                    return
            except EtcdError as error:
                note(str(error))
            else:
                note("")

    async def let_go(self) -> None:
        """Say at once that nobody is alive. EtcdError."""
        if self._lease:
            lease, self._lease = self._lease, ""
            await self._etcd.call("/v3/lease/revoke", {"ID": lease})

    async def _look(self) -> tuple[bytes | None, bytes | None]:
        _, (stored, alive) = await transact(self._etcd, [], [get(self._holder_key), get(self._alive_key)])
        return stored, alive

    async def _replace(self, stored: bytes | None, alive: bytes | None) -> bool:
        asked_s = trio.current_time()
        lease = await self._granted(self._lease_s)
        done, _ = await transact(
            self._etcd,
            [is_value(self._holder_key, stored), is_value(self._alive_key, alive)],
            [put(self._holder_key, self.stored), put(self._alive_key, self.stored, lease)],
        )
        if not done:
            # Also when an answer was lost and the request came twice.
            done = await self._look() == (self.stored, self.stored)
        if done:
            self._lasts_from(asked_s)
        return done

    async def _granted(self, lasts_s: float) -> str:
        await self.let_go()
        self._lease = str((await self._etcd.call("/v3/lease/grant", {"TTL": str(ceil(lasts_s))}))["ID"])
        return self._lease

    async def _ask_back(self, patience_s: float) -> None:
        lease = await self._granted(max(patience_s, self._lease_s))
        await transact(self._etcd, [], [put(self._wanted_key, b"", lease)])

    async def _is_wanted(self) -> bool:
        _, (wanted,) = await transact(self._etcd, [], [get(self._wanted_key)])
        return wanted is not None

    async def _renewed(self) -> bool:
        if not self._lease:
            return False
        asked_s = trio.current_time()
        answer = await self._etcd.call("/v3/lease/keepalive", {"ID": self._lease})
        renewed = int(answer.get("result", {}).get("TTL", "0")) > 0
        if renewed:
            self._lasts_from(asked_s)
        return renewed

    def _lasts_from(self, asked_s: float) -> None:
        """A lease was granted or renewed after this moment."""
        self.until_s = asked_s + self._lease_s * SURE_SHARE

    async def _show_again(self) -> None:
        """The lease ran out, etcd being out of reach for long."""
        self._lease = ""
        asked_s = trio.current_time()
        lease = await self._granted(self._lease_s)
        done, found = await transact(
            self._etcd, [self.condition], [put(self._alive_key, self.stored, lease)], [self.question]
        )
        if not done:
            raise taken_by(found[0])
        self._lasts_from(asked_s)


def taken_by(stored: bytes | None) -> LedgerTaken:
    """Return the error that says who holds the record now."""
    other = read_holder(stored)
    who = f"an agent on {other.node}" if other else "nobody"
    return LedgerTaken(f"the record of this home in etcd is now held by {who}; this agent may not write any more")


_ADVICE = "stop it, or give this node a name of its own"
