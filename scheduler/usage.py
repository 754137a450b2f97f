"""Who used what, by day: the home's counters, which only grow, and what they mean for fair shares.

A home counts each attempt of its own jobs once, when it ends, in the same change of the ledger as that end: so the
counters add up over restarts, and those of several homes are merged by adding. What is charged for fair shares is what
a task keeps others from: the greater of its cores and its memory at MEMORY_PER_CORE_BYTES a core, in core seconds; it
is decayed when it is read (half of it is forgotten in each half-life), the counters are not. Days are those of UTC by
the home's wall clock; an attempt counts on the day it ends. Knows no ranks and no leader.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from scheduler.effects import Effects
from scheduler.jobs import Job
from scheduler.messages import BATCH_MAX, Spent
from scheduler.model import AllocationId, JobSpec, Result
from scheduler.outcomes import ran_s
from scheduler.records import USAGE, Rows, read_table
from scheduler.wall import WallClock

DAY_S = 86_400
DAYS_KEPT = 400
MEMORY_PER_CORE_BYTES = 4 << 30
_JOB = "job"


class Used(msgspec.Struct, frozen=True, array_like=True):
    """Sums over attempts that ended. Times are in milliseconds: of running, of reserved cores, of charge, of CPU."""

    attempts: int = 0
    succeeded: int = 0
    run_ms: int = 0
    core_ms: int = 0
    memory_mib_s: int = 0
    charged_ms: int = 0
    cpu_ms: int = 0

    def __add__(self, other: Used) -> Used:
        mine, theirs = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return Used(*(a + b for a, b in zip(mine, theirs, strict=True)))


class UsageRow(msgspec.Struct, frozen=True):
    """What an account's user used on a day (days since 1970)."""

    day: int
    account: str
    user: str
    used: Used


class JobUsage(msgspec.Struct, frozen=True):
    """What a job used in all, for as long as its home remembers it."""

    job: int
    name: str
    account: str
    user: str
    used: Used


_encode = msgspec.msgpack.Encoder().encode


class Usage:
    """The counters of one home."""

    def __init__(self, wall: WallClock) -> None:
        self._wall = wall
        self._days: dict[tuple[int, str, str], Used] = {}
        self._jobs: dict[int, Used] = {}
        self._since: dict[AllocationId, float] = {}
        self.changes = 0

    def restore(self, rows: Rows) -> None:
        """Take over what the ledger remembers."""
        for key, used in read_table(rows, USAGE, Used).items():
            first, _, rest = key.partition("/")
            if first == _JOB:
                self._jobs[int(rest)] = used
            else:
                account, _, user = rest.partition("/")
                self._days[int(first), account, user] = used

    def began(self, id_: AllocationId, now: float) -> None:
        """An attempt runs, as far as its home knows since now."""
        self._since.setdefault(id_, now)

    def ended(self, fx: Effects, job: Job, id_: AllocationId, result: Result | None) -> None:
        """An attempt is over; one that never ran counts as an attempt alone."""
        since_s = self._since.pop(id_, None)
        run_s = ran_s(result) if result is not None else 0.0
        if not run_s and since_s is not None:
            run_s = fx.now - since_s
        self._count(fx, job, _used(job.spec, run_s, result))

    def drop(self, fx: Effects, job_id: int) -> None:
        """The job is forgotten; its days are not."""
        if self._jobs.pop(job_id, None) is not None:
            fx.delete(USAGE, f"{_JOB}/{job_id}")

    def rows(self) -> list[UsageRow]:
        """Return every day of every account and user."""
        return [UsageRow(*key, used) for key, used in sorted(self._days.items())]

    def of_jobs(self, jobs: dict[int, Job]) -> Iterator[JobUsage]:
        """Yield what each remembered job used."""
        for job_id, used in self._jobs.items():
            record = jobs[job_id].record
            yield JobUsage(job_id, record.spec.name, record.spec.queueing.account, record.owner, used)

    def charges_s(self, now: float, half_life_s: float) -> dict[tuple[str, str], float]:
        """Return the decayed charge, in core seconds, by (account, user)."""
        today = self._wall.unix_s(now)
        found: dict[tuple[str, str], float] = {}
        for (day, account, user), used in self._days.items():
            age_s = max(0.0, today - (day + 0.5) * DAY_S)
            charge_s = used.charged_ms / 1000 * 0.5 ** (age_s / half_life_s)
            found[account, user] = found.get((account, user), 0.0) + charge_s
        return found

    def tell(self, fx: Effects, leader: str, half_life_s: float) -> None:
        """Tell the leader the largest charges, as many as a message takes."""
        charges = sorted(self.charges_s(fx.now, half_life_s).items(), key=lambda each: -each[1])[:BATCH_MAX]
        if charges:
            fx.say(leader, Spent(tuple((*key, charge_s) for key, charge_s in charges)))

    def _count(self, fx: Effects, job: Job, used: Used) -> None:
        day = int(self._wall.unix_s(fx.now) // DAY_S)
        account, owner = job.spec.queueing.account, job.record.owner
        key = day, account, owner
        if key not in self._days:
            self._forget(fx, day - DAYS_KEPT)
        self._days[key] = self._days.get(key, Used()) + used
        self._jobs[job.id] = self._jobs.get(job.id, Used()) + used
        fx.put(USAGE, f"{day}/{account}/{owner}", _encode(self._days[key]))
        fx.put(USAGE, f"{_JOB}/{job.id}", _encode(self._jobs[job.id]))
        self.changes += 1

    def _forget(self, fx: Effects, before: int) -> None:
        for day, account, user in [key for key in self._days if key[0] < before]:
            del self._days[day, account, user]
            fx.delete(USAGE, f"{day}/{account}/{user}")


def _used(spec: JobSpec, run_s: float, result: Result | None) -> Used:
    run_ms = round(run_s * 1000)
    request = spec.request
    cores_milli = max(request.cpu_milli, request.memory_bytes * 1000 // MEMORY_PER_CORE_BYTES)
    return Used(
        attempts=1,
        succeeded=int(result is not None and result.success),
        run_ms=run_ms,
        core_ms=run_ms * request.cpu_milli // 1000,
        memory_mib_s=run_ms * (request.memory_bytes >> 20) // 1000,
        charged_ms=run_ms * cores_milli // 1000,
        cpu_ms=(result.cpu_ns // 1_000_000) if result is not None else 0,
    )
