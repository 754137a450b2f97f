"""Which ledger the configuration means, opened, held and closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path

import trio

from node.errors import DiskFull, LedgerAway, NodeError
from node.ledger.etcd import EtcdLedger, home_prefix
from node.ledger.etcd_gateway import EtcdAccess, EtcdGateway
from node.ledger.etcd_hold import PATIENCE_S
from node.ledger.parted import PartedLedger
from node.ledger.protocol import Ledger, LedgerError
from node.ledger.spare import Spare
from node.ledger.sqlite import SqliteLedger
from node.ledger_settings import LedgerSettings
from scheduler.records import LOST_WITH_THE_HOST


@dataclass(frozen=True, kw_only=True)
class Whose:
    """Whose record it is, and who opens it: the home itself, or a stand-in on another node."""

    cluster: str
    home: str
    node: str

    @property
    def stand_in(self) -> bool:
        return self.home != self.node


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An open ledger. `trouble`: why it takes nothing just now; `hold` runs beside it and returns when to let go.

    `held_until_s`: before then, on this node's clock, nobody else can hold the record.
    """

    ledger: Ledger
    trouble: Callable[[], NodeError | None]
    hold: Callable[[], Awaitable[None]]
    held_until_s: Callable[[], float] = lambda: inf


@asynccontextmanager
async def open_ledger(settings: LedgerSettings, path: Path, whose: Whose, spare: Spare) -> AsyncIterator[Opened]:
    """Open the ledger; `path` is that of its file, or of the part that stays on this host. LedgerError."""
    sqlite = await SqliteLedger.open(path, LOST_WITH_THE_HOST, spare)
    opened = Opened(ledger=sqlite, trouble=lambda: _disk_full(spare), hold=trio.sleep_forever)
    try:
        if settings.kind == "etcd":
            opened = await _with_etcd(settings, path, whose, sqlite, spare)
        yield opened
    finally:
        with trio.CancelScope(shield=True):
            try:
                await opened.ledger.close()
            finally:
                await sqlite.close()


async def _with_etcd(settings: LedgerSettings, path: Path, whose: Whose, sqlite: SqliteLedger, spare: Spare) -> Opened:
    etcd = await EtcdLedger.open(
        gateway(settings),
        home_prefix(settings.etcd_prefix, whose.cluster, whose.home),
        whose.node,
        path.with_name("etcd.lock"),
        stand_in=whose.stand_in,
        patience_s=0.0 if whose.stand_in else PATIENCE_S,
        lease_s=settings.etcd_lease_s,
    )

    def trouble() -> NodeError | None:
        return LedgerAway(f"this home's ledger takes nothing: {etcd.away}") if etcd.away else _disk_full(spare)

    return Opened(
        ledger=PartedLedger(etcd, sqlite, LOST_WITH_THE_HOST),
        trouble=trouble,
        hold=etcd.run,
        held_until_s=lambda: etcd.held_until_s,
    )


def gateway(settings: LedgerSettings) -> EtcdGateway:
    """Return a client of the etcd that is configured. InvalidConfig, LedgerError."""
    access = EtcdAccess(
        urls=settings.etcd_urls,
        ca_file=settings.etcd_ca_file or "",
        cert_file=settings.etcd_cert_file or "",
        key_file=settings.etcd_key_file or "",
        user=settings.etcd_user or "",
        password=settings.etcd_password(),
    )
    try:
        return EtcdGateway(access)
    except OSError as error:
        raise LedgerError(f"the certificates for etcd can't be used: {error}") from error


def _disk_full(spare: Spare) -> NodeError | None:
    return DiskFull("the disk of this node is full") if spare.waiting else None
