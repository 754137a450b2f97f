"""What operators set for the whole cluster: partitions, accounts, users, licences, reservations, weights of ranks.

One map of named entries, the same on every node: each entry is written as a whole, with a version above any seen, and
the highest (version, author) wins wherever two meet (a last-writer-wins map, Shapiro et al. 2011). Two operators who
change different entries on both sides of a partition lose nothing; of two who change the same one, the later version
stays. A removed entry stays for a while as one without a value, so that an older copy can't bring it back.
Pure values and merging; who tells whom is settings_exchange.py's business.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from scheduler.errors import InvalidSpec
from scheduler.model import Constraint, Resources
from scheduler.spec.part import require

ENTRIES_MAX = 1_000
NAMES_MAX = 256
REMOVED_KEEP_S = 30 * 86_400.0
EVERYONE = "*"
TASKS = "tasks"
TIER_MAX = 1_000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}|\*")


class Setting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The base of what can be set."""


class Partition(Setting, frozen=True, tag="partition"):
    """Nodes by their labels, with limits and defaults for the jobs that name it (or, of the default one, name none)."""

    constraints: tuple[Constraint, ...] = ()
    time_limit_max_s: float | None = None
    time_limit_default_s: float | None = None
    priority: int = 0
    users: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    open: bool = True
    default: bool = False
    tier: int = 0


class Account(Setting, frozen=True, tag="account"):
    """Who may use it (nobody named: everyone), its share, and what all its jobs together may take (0: no limit)."""

    users: tuple[str, ...] = ()
    shares: int = 1
    tasks_max: int = 0
    cpu_milli_max: int = 0
    memory_bytes_max: int = 0
    jobs_max: int = 0


class User(Setting, frozen=True, tag="user"):
    """A user's account where a job names none, share, and limits as an account's; the user `*` is everybody else."""

    account: str = ""
    shares: int = 1
    tasks_max: int = 0
    cpu_milli_max: int = 0
    memory_bytes_max: int = 0
    jobs_max: int = 0


class Licence(Setting, frozen=True, tag="licence"):
    """How many of it the whole cluster may use at once."""

    count: int


class Reservation(Setting, frozen=True, tag="reservation"):
    """Nodes for some users or accounts, for a time. Jobs that would run into it don't start there before it."""

    nodes: tuple[str, ...]
    start_unix_s: float
    end_unix_s: float
    users: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()


class Ranking(Setting, frozen=True, tag="ranking"):
    """How the parts of a rank weigh, each in seconds of waiting, and how fast what was used is forgotten."""

    priority_s: float = 3600.0
    share_s: float = 86_400.0
    half_life_s: float = 7 * 86_400.0


class PreemptMode(enum.StrEnum):
    """What becomes of tasks that stand in the way of a higher tier."""

    OFF = "off"
    REQUEUE = "requeue"
    FREEZE = "freeze"


class Preemption(Setting, frozen=True, tag="preemption"):
    """Whether running tasks give way to waiting jobs of a higher tier, after how long, and how often each at most.

    `patience_s`: none has to for what comes free so soon by itself. It should be longer than most tasks' grace, so that
    a new leader waits for what the last one had stopped.
    """

    mode: PreemptMode = PreemptMode.OFF
    run_min_s: float = 60.0
    patience_s: float = 10.0
    times_max: int = 3


AnySetting = Partition | Account | User | Licence | Reservation | Ranking | Preemption
KINDS: dict[str, type[Setting]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (Partition, Account, User, Licence, Reservation, Ranking, Preemption)
}
S = TypeVar("S", bound=Setting)
NO_PREEMPTION = Preemption()


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One entry, `KIND/NAME`. Without a value it was removed. It may be forgotten after `forget_unix_s`, if not 0."""

    name: str
    version: int
    author: int
    value: AnySetting | None
    forget_unix_s: float = 0.0

    @property
    def order(self) -> tuple[int, int]:
        """The higher wins."""
        return self.version, self.author


class Settings:
    """All entries known here. Iterate with `of`, change with `write` and `merge`."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._digest = b""

    def entries(self) -> list[Entry]:
        """Return all entries, removed ones included."""
        return list(self._entries.values())

    def get(self, kind: type[S], name: str) -> S | None:
        """Return a setting, or None when it is not there."""
        entry = self._entries.get(f"{kind.__struct_config__.tag}/{name}")
        return entry.value if entry is not None and isinstance(entry.value, kind) else None

    def of(self, kind: type[S]) -> Iterator[tuple[str, S]]:
        """Yield (name, setting) of one kind."""
        for entry in self._entries.values():
            if isinstance(entry.value, kind):
                yield entry.name.partition("/")[2], entry.value

    @property
    def ranking(self) -> Ranking:
        """Return the weights of ranks."""
        return self.get(Ranking, "default") or Ranking()

    @property
    def preemption(self) -> Preemption:
        """Return whether and when tasks give way."""
        return self.get(Preemption, "default") or NO_PREEMPTION

    def written(self, name: str, value: AnySetting | None, author: int, unix_s: float) -> Entry:
        """Return the entry that would replace the present one; InvalidSpec for what can't be taken."""
        check(name, value)
        old = self._entries.get(name)
        if old is None and (value is None or len(self._entries) >= ENTRIES_MAX):
            raise InvalidSpec("name", name, f"one of at most {ENTRIES_MAX} that are set")
        forget = unix_s + REMOVED_KEEP_S if value is None else _forget_unix_s(value)
        return Entry(name, (old.version if old else 0) + 1, author, value, forget)

    def merge(self, entries: Iterable[Entry], unix_s: float) -> list[Entry]:
        """Take in what is newer than what is known; return just that."""
        taken = []
        for entry in entries:
            old = self._entries.get(entry.name)
            stale = entry.forget_unix_s and entry.forget_unix_s < unix_s
            if stale or (old is not None and old.order >= entry.order) or not _takes(entry):
                continue
            if old is None and len(self._entries) >= ENTRIES_MAX:
                continue
            self._entries[entry.name] = entry
            taken.append(entry)
        self._digest = b""
        return taken

    def forget(self, unix_s: float) -> list[str]:
        """Drop what nobody needs to remember any more; return the names."""
        names = [name for name, each in self._entries.items() if 0 < each.forget_unix_s < unix_s]
        for name in names:
            del self._entries[name]
        self._digest = b""
        return names

    @property
    def digest(self) -> bytes:
        """Eight bytes that differ whenever two maps differ."""
        if not self._digest:
            words = [f"{name} {self._entries[name].order}" for name in sorted(self._entries)]
            self._digest = hashlib.blake2b("\n".join(words).encode(), digest_size=8).digest()
        return self._digest


def _forget_unix_s(value: AnySetting) -> float:
    return value.end_unix_s + REMOVED_KEEP_S if isinstance(value, Reservation) else 0.0


def _takes(entry: Entry) -> bool:
    try:
        check(entry.name, entry.value)
    except InvalidSpec:
        return False
    return True


def check(name: str, value: AnySetting | None) -> None:
    """Raise InvalidSpec for the first thing that makes no sense."""
    kind, _, own = name.partition("/")
    require(kind in KINDS, "kind", kind, f"one of {', '.join(KINDS)}")
    require(_NAME.fullmatch(own), "name", own, "1 to 63 letters, digits, '.', '_' or '-'")
    require(own != EVERYONE or kind == "user", "name", own, "* stands for everybody else among users alone")
    if value is None:
        return
    require(isinstance(value, KINDS[kind]), "kind", kind, f"a {kind}'s fields")
    match value:
        case Partition():
            _check_partition(value)
        case Account() | User():
            _check_amounts(value)
        case Licence():
            require(0 <= value.count <= 1 << 40, "count", value.count, "0 or more")
        case Reservation():
            _check_reservation(value)
        case Ranking():
            _check_ranking(own, value)
        case Preemption():
            _check_preemption(own, value)


def _check_partition(value: Partition) -> None:
    require(len(value.constraints) <= 8, "constraints", len(value.constraints), "at most 8")
    require(abs(value.priority) <= 1_000_000, "priority", value.priority, "from -1000000 to 1000000")
    require(0 <= value.tier <= TIER_MAX, "tier", value.tier, f"from 0 to {TIER_MAX}")
    for field in ("time_limit_max_s", "time_limit_default_s"):
        limit = getattr(value, field)
        require(limit is None or 0 < limit <= 1e9, field, limit, "a positive number of seconds")
    low = value.time_limit_default_s or 0
    high = value.time_limit_max_s
    require(high is None or low <= high, "time_limit_default_s", low, f"at most time_limit_max_s, {high}")
    _check_names(value.users, value.accounts)


def _check_amounts(value: Account | User) -> None:
    require(1 <= value.shares <= 1_000_000, "shares", value.shares, "from 1 to 1000000")
    for field in ("tasks_max", "cpu_milli_max", "memory_bytes_max", "jobs_max"):
        amount = getattr(value, field)
        require(0 <= amount <= 1 << 60, field, amount, "0 (no limit) or more")
    if isinstance(value, Account):
        _check_names(value.users, ())


def _check_reservation(value: Reservation) -> None:
    require(1 <= len(value.nodes) <= NAMES_MAX, "nodes", len(value.nodes), f"1 to {NAMES_MAX} nodes")
    require(value.users or value.accounts, "users", value.users, "a user or an account for whom it is")
    require(0 < value.start_unix_s < value.end_unix_s <= 1e11, "end_unix_s", value.end_unix_s, "an end after its start")
    _check_names(value.users, value.accounts)


def _check_ranking(name: str, value: Ranking) -> None:
    require(name == "default", "name", name, "ranking/default, there is one alone")
    for field in ("priority_s", "share_s"):
        weight = getattr(value, field)
        require(0 <= weight <= 1e9, field, weight, "seconds, 0 or more")
    require(60 <= value.half_life_s <= 1e9, "half_life_s", value.half_life_s, "seconds, 60 or more")


def _check_preemption(name: str, value: Preemption) -> None:
    require(name == "default", "name", name, "preemption/default, there is one alone")
    for field in ("run_min_s", "patience_s"):
        require(0 <= getattr(value, field) <= 1e9, field, getattr(value, field), "seconds, 0 or more")
    require(0 <= value.times_max <= 1_000_000, "times_max", value.times_max, "from 0 to 1000000")


def _check_names(users: tuple[str, ...], accounts: tuple[str, ...]) -> None:
    for field, names in (("users", users), ("accounts", accounts)):
        require(len(names) <= NAMES_MAX, field, len(names), f"at most {NAMES_MAX}")
        wrong = next((each for each in names if not _NAME.fullmatch(each)), None)
        require(wrong is None, field, wrong, "names")


def limits_of(value: Account | User | Licence) -> Resources:
    """Return what may be used at once, as an amount in which 0 is no limit; tasks and licences are extras."""
    if isinstance(value, Licence):
        return Resources(0, 0, ((TASKS, value.count),))
    extra = ((TASKS, value.tasks_max),) if value.tasks_max else ()
    return Resources(value.cpu_milli_max, value.memory_bytes_max, extra)
