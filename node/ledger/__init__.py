"""The node's durable record: one protocol, several backends."""

from node.ledger.memory import MemoryLedger
from node.ledger.protocol import (
    Change,
    Delete,
    InvalidChange,
    Ledger,
    LedgerClosed,
    LedgerCorrupt,
    LedgerError,
    LedgerFull,
    LedgerLocked,
    LedgerOverloaded,
    Put,
)
from node.ledger.sqlite import SqliteLedger

__all__ = [
    "Change",
    "Delete",
    "InvalidChange",
    "Ledger",
    "LedgerClosed",
    "LedgerCorrupt",
    "LedgerError",
    "LedgerFull",
    "LedgerLocked",
    "LedgerOverloaded",
    "MemoryLedger",
    "Put",
    "SqliteLedger",
]
