"""What users, accounts and licences may take at once, cluster-wide: counted by the leader, told by the homes.

A job draws on quotas: its user's, its account's, and the licences it names, each with an amount for each of its tasks.
A home tallies what its live attempts draw and tells the leader with every change, always before what else it says of
the same jobs; the leader adds the homes' tallies to the orders on their way. So with one leader nothing passes a limit
by more than messages in flight, and a job with a quota always goes through the line. The amounts are `Resources`, in
which tasks (and licences) are extras. Safety does not rest on it, fairness does.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.index import ClusterView
from scheduler.jobs import Job
from scheduler.messages import Draws, Tally
from scheduler.model import JobSpec, Resources
from scheduler.repeat import Repeat
from scheduler.settings import EVERYONE, TASKS, Account, Licence, Settings, User, limits_of

UNBOUNDED = 1 << 60


def draws_of(settings: Settings, owner: str, spec: JobSpec) -> Draws:
    """Return the quotas that a job's tasks draw on: (name, amount of one task)."""
    return tuple(_draws(settings, owner, spec))


def _draws(settings: Settings, owner: str, spec: JobSpec) -> Iterator[tuple[str, Resources]]:
    user = settings.get(User, owner) or settings.get(User, EVERYONE)
    if user is not None and _limits(user):
        yield f"user/{owner}", _one_task(spec)
    account = settings.get(Account, spec.queueing.account) if spec.queueing.account else None
    if account is not None and _limits(account):
        yield f"account/{spec.queueing.account}", _one_task(spec)
    for name, count in sorted(spec.queueing.licences.items()):
        yield f"licence/{name}", Resources(0, 0, ((TASKS, count),))


def _one_task(spec: JobSpec) -> Resources:
    return Resources(spec.request.cpu_milli, spec.request.memory_bytes, ((TASKS, 1),))


def _limits(value: User | Account) -> bool:
    return any(amount for _, amount in limits_of(value).items())


def limit_of(settings: Settings, name: str) -> Resources | None:
    """Return a quota's limit, 0 in a dimension meaning none; None where nothing is limited (any more)."""
    kind, _, own = name.partition("/")
    value: User | Account | Licence | None
    match kind:
        case "user":
            value = settings.get(User, own) or settings.get(User, EVERYONE)
        case "account":
            value = settings.get(Account, own)
        case _:
            return limits_of(settings.get(Licence, own) or Licence(count=0))
    return limits_of(value) if value is not None else None


class QuotasKept:
    """The leader's side: what is in use of every quota, and how much more a job may have."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tallies: dict[str, dict[str, tuple[tuple[int, int], Resources]]] = {}
        self._flying: dict[int, tuple[Draws, int]] = {}
        self._in_flight: dict[str, Resources] = {}
        self.version = 0

    def clear(self) -> None:
        """A reign begins or ends: all is told anew."""
        self._tallies.clear()
        self._flying.clear()
        self._in_flight.clear()
        self.version += 1

    def on_forgotten(self, home: str) -> None:
        """Nobody remembers this home: what it drew is given back. Until then its containers may run on elsewhere."""
        for homes in self._tallies.values():
            if homes.pop(home, None) is not None:
                self.version += 1

    def on_tally(self, home: str, tally: Tally) -> None:
        """A home's word on what its attempts draw; older words than the one known are not believed."""
        homes = self._tallies.setdefault(tally.quota, {})
        order = (tally.boot_epoch, tally.version)
        if home not in homes or homes[home][0] < order:
            homes[home] = (order, tally.amount)
            self.version += 1

    def flight(self, job: int, draws: Draws, units: int) -> None:
        """So many units (tasks, or whole gangs) of a job are ordered and not told by its home yet."""
        for old, sign in ((self._flying.pop(job, ((), 0)), -1), ((draws, units), 1)):
            for name, amount in old[0]:
                flying = self._in_flight.get(name, Resources())
                self._in_flight[name] = flying + amount * (sign * old[1])
        if draws and units:
            self._flying[job] = (draws, units)

    def room(self, draws: Draws) -> int:
        """Return how many units more may start."""
        return min((self._room(name, amount) for name, amount in draws), default=UNBOUNDED)

    def blocking(self, draws: Draws) -> str:
        """Return the first quota that has no room, "" if none."""
        return next((name for name, amount in draws if self._room(name, amount) <= 0), "")

    def _room(self, name: str, amount: Resources) -> int:
        limit = limit_of(self._settings, name)
        if limit is None:
            return UNBOUNDED
        used = self._in_flight.get(name, Resources())
        for _, told in self._tallies.get(name, {}).values():
            used = used + told
        licence = name.startswith("licence/")
        rooms = [
            (most - used.get(dimension)) // need
            for dimension, need in amount.items()
            if need and ((most := limit.get(dimension)) or licence)
        ]
        return max(0, min(rooms, default=UNBOUNDED))


class QuotasTold:
    """The home's side: what its live attempts draw, told to whoever leads."""

    def __init__(
        self, config: SchedulerConfig, view: ClusterView, alarms: Alarms, settings: Settings, boot_epoch: int
    ) -> None:
        self._view = view
        self._settings = settings
        self._boot_epoch = boot_epoch
        self._draws: dict[int, tuple[Draws, int]] = {}
        self._sums: dict[str, Resources] = {}
        self._version = 0
        self._said: dict[str, int] = {}
        self._tallies: Repeat[Hashable] = Repeat("tallies", config, alarms, view.alive, self._speak)

    def draws(self, job: Job) -> Draws:
        """Return what one task of the job draws on."""
        return draws_of(self._settings, job.record.owner, job.spec)

    def count(self, job: Job) -> None:
        """A job changed, or the settings did: bring its tally up to date."""
        live = len(job.live)
        draws = self.draws(job) if live or job.id in self._draws else ()
        old = self._draws.get(job.id, ((), 0))
        if (draws if live else (), live) == old:
            return
        for (names, count), sign in ((old, -1), ((draws, live), 1)):
            for name, amount in names:
                self._sums[name] = self._sums.get(name, Resources()) + amount * (sign * count)
                self._tallies.say(self._view.leader, name)
        if live and draws:
            self._draws[job.id] = (draws, live)
        else:
            self._draws.pop(job.id, None)

    def retell(self) -> None:
        """A new leader is to know all."""
        for name in self._sums:
            self._tallies.say(self._view.leader, name)

    def follow(self, old_leader: str) -> None:
        """Another node leads now."""
        self._tallies.forget(old_leader)
        self.retell()

    def speak(self, fx: Effects, leader: str, names: Iterable[str]) -> None:
        """Say how it stands with these quotas, before what else is said of jobs that draw on them."""
        self._speak(fx, leader, list(names))

    def on_heard(self, leader: str, quota: str, version: int) -> None:
        """The leader knows."""
        if version == self._said.get(quota):
            self._tallies.answered(leader, quota)

    def on_up(self, node: str) -> None:
        """A node is back; if it leads, it is told again."""
        self._tallies.back(node)

    def ring(self, fx: Effects, leader: str) -> None:
        """Repeat what was not answered."""
        self._tallies.ring(fx, leader)

    def flush(self, fx: Effects) -> None:
        """At the end of an event: say what is fresh."""
        self._tallies.flush(fx)

    def _speak(self, fx: Effects, leader: str, names: Iterable[Hashable]) -> None:
        self._version += 1
        for name in names:
            text = str(name)
            self._said[text] = self._version
            fx.say(leader, Tally(text, self._boot_epoch, self._version, self._sums.get(text, Resources())))
