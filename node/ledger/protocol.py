"""What a ledger promises: tables of bytes that survive kill -9 and power loss once a commit has returned. For tables
named when it is opened, kill -9 is enough: a power loss may take their newest commits (docs/decisions/0007).

A ledger knows nothing of jobs: the machines own keys and encodings (a change is a Put or a Delete of
`scheduler.events`), it owns atomicity, order and durability.
The whole content is read once at start and lives in the machines' memory afterwards, so there is no query:
the ledger is a write-ahead record of state, not a database to ask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

from node.errors import NodeError
from scheduler.events import Change, Delete, Put

Content: TypeAlias = Mapping[str, Mapping[str, bytes]]

TABLE_NAME_BYTES_MAX = 64
KEY_BYTES_MAX = 512
VALUE_BYTES_MAX = 16 * 2**20
CHANGES_PER_COMMIT_MAX = 100_000


class LedgerError(NodeError):
    """The root of the ledger's errors; its text is fit for an operator's eyes.

    When `commit` raises it, that commit is not known to be durable (after a failed sync nobody can know). The machines'
    memory is then ahead of the disk, so every later commit is refused too: stop the agent, repair what the text says,
    start it again.
    """


class LedgerLocked(LedgerError):
    """The operator's fault: another agent uses this ledger."""


class LedgerTaken(LedgerError):
    """Another agent holds this home's record now: this one may not write any more."""


class LedgerCorrupt(LedgerError):
    """What is stored is damaged, or was not written by a ledger of this version."""


class LedgerFull(LedgerError):
    """No space left on the ledger's disk."""


class LedgerOverloaded(LedgerError):
    """More commits wait than the queue's bound allows; nothing of this one was taken."""


class LedgerClosed(LedgerError):
    """The ledger was closed, or failed earlier."""


class InvalidChange(LedgerError):
    """Our bug: a change that no backend takes. Nothing was written and the ledger stays usable."""


class Ledger(Protocol):
    """One node's durable record. Used by one agent, from one trio loop."""

    async def load(self) -> Content:
        """Read everything: table -> key -> value. Tables without keys are left out. Called once, before any commit."""
        ...

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make the changes durable, all or none; return when they are.

        Commits take effect in the order of the calls, also when several wait at once, and later changes of one commit
        win over earlier ones. A cancelled caller only stops waiting: its commit still happens in its turn.
        Raises LedgerError; see there what that means.
        """
        ...

    async def close(self) -> None:
        """Finish the commits that wait, then let go of the store. A second call does nothing."""
        ...


def check_changes(changes: Sequence[Change]) -> int:
    """Return the size in bytes of what would be written; raise InvalidChange for what no backend takes."""
    if len(changes) > CHANGES_PER_COMMIT_MAX:
        raise InvalidChange(f"a commit of {len(changes)} changes; at most {CHANGES_PER_COMMIT_MAX} are taken")
    return sum(_check_change(change) for change in changes)


def _check_change(change: Change) -> int:
    if not isinstance(change, Put | Delete):
        raise InvalidChange(f"{change!r}: a change is a Put or a Delete of scheduler.events")
    size = _check_table(change.table) + _check_key(change)
    if isinstance(change, Delete):
        return size
    if not isinstance(change.value, bytes):
        raise InvalidChange(f"{change.table}[{change.key!r}]: a value is bytes, not {type(change.value).__name__}")
    if len(change.value) > VALUE_BYTES_MAX:
        raise InvalidChange(
            f"{change.table}[{change.key!r}]: a value of {len(change.value)} bytes; at most {VALUE_BYTES_MAX} are taken"
        )
    return size + len(change.value)


def _check_table(table: str) -> int:
    if not (table.isidentifier() and table.isascii() and len(table) <= TABLE_NAME_BYTES_MAX):
        raise InvalidChange(f"table {table!r}: use an ASCII identifier of at most {TABLE_NAME_BYTES_MAX} characters")
    return len(table)


def _check_key(change: Change) -> int:
    key = change.key
    if not isinstance(key, str):
        raise InvalidChange(f"{change.table}[{key!r}]: a key is str, not {type(key).__name__}")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidChange(f"{change.table}[{key!r}]: a key is valid Unicode") from None
    if size > KEY_BYTES_MAX or "\0" in key:
        raise InvalidChange(f"{change.table}[{key!r}]: a key has at most {KEY_BYTES_MAX} bytes and no NUL")
    return size
