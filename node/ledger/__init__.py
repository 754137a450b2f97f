"""The node's durable record: one protocol, several backends."""

from node.ledger.etcd import EtcdLedger
from node.ledger.memory import MemoryLedger
from node.ledger.protocol import (
    InvalidChange,
    Ledger,
    LedgerClosed,
    LedgerCorrupt,
    LedgerError,
    LedgerFull,
    LedgerLocked,
    LedgerOverloaded,
    LedgerTaken,
)
from node.ledger.sqlite import SqliteLedger

__all__ = [
    "EtcdLedger",
    "InvalidChange",
    "Ledger",
    "LedgerClosed",
    "LedgerCorrupt",
    "LedgerError",
    "LedgerFull",
    "LedgerLocked",
    "LedgerOverloaded",
    "LedgerTaken",
    "MemoryLedger",
    "SqliteLedger",
]
