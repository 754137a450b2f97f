"""What the cluster's settings mean for one job: its partition, account and reservation, and nodes kept for others.

What a partition says of limits, labels and priority is applied when a job is taken, so that a later change touches
later jobs alone; whether it is open, and reservations, are looked at when a job may start. Nodes look too, for they are
the authority on themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf

import msgspec

from scheduler.abilities import requirements
from scheduler.errors import InvalidSpec, Overloaded
from scheduler.jobs import Block, Job
from scheduler.model import Constraint, JobKind, JobSpec, Operator
from scheduler.reporting import WHOLE, WHOLE_NODE
from scheduler.settings import EVERYONE, Account, Licence, Partition, Reservation, Settings, User
from scheduler.spec.part import require
from scheduler.wall import WallClock, date

NODE = "node"
PRIORITY_MAX = 1_000_000


class Rules:
    """The settings, read for jobs."""

    def __init__(self, settings: Settings, wall: WallClock) -> None:
        self.settings = settings
        self.wall = wall

    # --- when a job is taken

    def applied(self, owner: str, spec: JobSpec, unix_s: float) -> JobSpec:
        """Return the job as it is to be queued; InvalidSpec for what this owner may not have."""
        queueing = spec.queueing
        account = self._account(owner, queueing.account)
        name, partition = self._partition(queueing.partition)
        if partition is not None:
            spec = self._in_partition(owner, account, spec, name, partition)
        spec = self._in_reservation(owner, account, spec, unix_s)
        require(not spec.request.get(WHOLE_NODE), "extra", WHOLE_NODE, "queueing.exclusive instead")
        if queueing.exclusive:
            spec = msgspec.structs.replace(spec, request=spec.request + WHOLE)
        for licence in queueing.licences:
            known = ", ".join(sorted(each for each, _ in self.settings.of(Licence))) or "none are set"
            require(self.settings.get(Licence, licence), "queueing.licences", licence, f"a licence of these: {known}")
        priority = max(-PRIORITY_MAX, min(PRIORITY_MAX, spec.priority - queueing.nice))
        queueing = msgspec.structs.replace(spec.queueing, account=account, partition=name)
        return msgspec.structs.replace(spec, queueing=queueing, priority=priority)

    def check_count(self, owner: str, jobs: Iterable[Job], coming: int) -> None:
        """Raise Overloaded if this home had more unfinished jobs of a user than it may; counted only if limited."""
        user = self.settings.get(User, owner) or self.settings.get(User, EVERYONE)
        most = user.jobs_max if user is not None else 0
        if most and sum(each.record.owner == owner and not each.finished for each in jobs) + coming > most:
            raise Overloaded(f"{owner} has {most} unfinished jobs at this home, the most that jobs_max allows a user")

    def _account(self, owner: str, wanted: str) -> str:
        user = self.settings.get(User, owner)
        name = wanted or (user.account if user is not None else "")
        accounts = dict(self.settings.of(Account))
        if not name:
            return ""
        known = ", ".join(sorted(each for each, value in accounts.items() if not value.users or owner in value.users))
        mine = name in accounts and (not accounts[name].users or owner in accounts[name].users)
        require(mine, "queueing.account", name, f"an account of yours: {known or 'there are none'}")
        return name

    def _partition(self, wanted: str) -> tuple[str, Partition | None]:
        if not wanted:
            return next(((name, each) for name, each in self.settings.of(Partition) if each.default), ("", None))
        partition = self.settings.get(Partition, wanted)
        known = ", ".join(sorted(name for name, _ in self.settings.of(Partition)))
        require(partition, "queueing.partition", wanted, f"a partition: {known or 'there are none'}")
        return wanted, partition

    def _in_partition(self, owner: str, account: str, spec: JobSpec, name: str, partition: Partition) -> JobSpec:
        if (partition.users or partition.accounts) and not _among(owner, account, partition.users, partition.accounts):
            raise InvalidSpec("queueing.partition", name, "a partition that you or your account may use")
        limit_s, most_s = spec.time_limit_s, partition.time_limit_max_s
        if limit_s is None and spec.kind is JobKind.BATCH:
            limit_s = partition.time_limit_default_s or most_s
        if most_s is not None and (limit_s or inf) > most_s:
            raise InvalidSpec("time_limit_s", limit_s, f"at most {most_s:g} s in partition {name}")
        return msgspec.structs.replace(
            spec,
            time_limit_s=limit_s,
            priority=spec.priority + partition.priority,
            constraints=(*spec.constraints, *(each for each in partition.constraints if each not in spec.constraints)),
        )

    def _in_reservation(self, owner: str, account: str, spec: JobSpec, unix_s: float) -> JobSpec:
        name = spec.queueing.reservation
        if not name:
            return spec
        value = self.settings.get(Reservation, name)
        mine = value is not None and _among(owner, account, value.users, value.accounts)
        if value is None or not mine or value.end_unix_s <= unix_s:
            raise InvalidSpec("queueing.reservation", name, "a reservation for you or your account that is not over")
        return msgspec.structs.replace(
            spec, constraints=(*spec.constraints, Constraint(NODE, Operator.IN, value.nodes))
        )

    def tier(self, spec: JobSpec) -> int:
        """Return how high a job stands among those that preempt each other: its partition's tier."""
        partition = self.settings.get(Partition, spec.queueing.partition) if spec.queueing.partition else None
        return partition.tier if partition is not None else 0

    # --- when it may start

    def blocks(self, job: Job, now: float) -> Iterator[tuple[Block, float]]:
        """Yield what keeps a job from starting, and when to look again."""
        queueing = job.spec.queueing
        partition = self.settings.get(Partition, queueing.partition) if queueing.partition else None
        if partition is not None and not partition.open:
            yield Block("partition", f"partition {queueing.partition} is closed"), inf
        if queueing.reservation:
            value = self.settings.get(Reservation, queueing.reservation)
            unix_s = self.wall.unix_s(now)
            if value is None or value.end_unix_s <= unix_s:
                yield Block("reservation", f"reservation {queueing.reservation} is over"), inf
            elif value.start_unix_s > unix_s:
                when = self.wall.when(value.start_unix_s)
                yield (
                    Block("reservation", f"reservation {queueing.reservation} begins {date(value.start_unix_s)}"),
                    when,
                )

    def constraints(self, spec: JobSpec, now: float) -> tuple[Constraint, ...]:
        """Return what a node must be for a job that starts now: what its spec implies, and not kept for others."""
        kept = [name for _, value in self._reserved(spec, now) for name in value.nodes]
        if not kept:
            return requirements(spec)
        return (*requirements(spec), Constraint(NODE, Operator.NOT_IN, tuple(sorted(set(kept)))))

    def refusal(self, spec: JobSpec, node: str, now: float) -> str | None:
        """Return why this node does not take the job: it is, or soon will be, kept for others."""
        for name, value in self._reserved(spec, now):
            if node in value.nodes:
                return f"reserved as {name} until {date(value.end_unix_s)}"
        return None

    def _reserved(self, spec: JobSpec, now: float) -> Iterator[tuple[str, Reservation]]:
        """Yield the reservations of others that a job which starts now would run into."""
        unix_s = self.wall.unix_s(now)
        until_s = unix_s + (inf if spec.time_limit_s is None else spec.time_limit_s)
        for name, value in self.settings.of(Reservation):
            if name != spec.queueing.reservation and value.start_unix_s < until_s and unix_s < value.end_unix_s:
                yield name, value


def _among(owner: str, account: str, users: tuple[str, ...], accounts: tuple[str, ...]) -> bool:
    return owner in users or (bool(account) and account in accounts)
