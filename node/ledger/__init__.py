"""The node's durable record: one protocol, several backends."""

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
)
from node.ledger.sqlite import SqliteLedger

__all__ = [
    "InvalidChange",
    "Ledger",
    "LedgerClosed",
    "LedgerCorrupt",
    "LedgerError",
    "LedgerFull",
    "LedgerLocked",
    "LedgerOverloaded",
    "MemoryLedger",
    "SqliteLedger",
]
