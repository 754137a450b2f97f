"""Batch jobs to be replayed: what a trace reader fills, what a model draws.

Owns the columns of a workload and the models: Lublin and Feitelson's for batch jobs ("The workload on parallel
supercomputers", JPDC 63, 2003, its one-type parameters) and a Poisson process with a daily cycle for services. Knows
nothing of machines, policies or files. The same seed gives the same workload, byte for byte.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from sim.errors import BadValue

JOBS_MAX = 10_000_000
DAY_S = 86_400


class Job(NamedTuple):
    """One batch job: times in seconds, `need` in processors, `user` a number (-1: unknown)."""

    id: int
    submit_s: float
    run_s: float
    estimate_s: float
    need: int
    user: int


class Workload:
    """Jobs in order of submission, column by column: a million jobs cost a million numbers a column, no objects."""

    __slots__ = ("estimate_s", "ids", "name", "needs", "run_s", "submit_s", "users")

    def __init__(self, name: str) -> None:
        self.name = name
        self.ids: list[int] = []
        self.submit_s: list[float] = []
        self.run_s: list[float] = []
        self.estimate_s: list[float] = []
        self.needs: list[int] = []
        self.users: list[int] = []

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Job]:
        return map(Job, self.ids, self.submit_s, self.run_s, self.estimate_s, self.needs, self.users)

    def append(self, job: Job) -> None:
        """Add a job; call `sort` when they do not come in order of submission."""
        self.ids.append(job.id)
        self.submit_s.append(job.submit_s)
        self.run_s.append(job.run_s)
        self.estimate_s.append(job.estimate_s)
        self.needs.append(job.need)
        self.users.append(job.user)

    def sort(self) -> None:
        """Bring the jobs into order of submission; equal ones stay as they came."""
        times = self.submit_s
        if times == sorted(times):
            return
        order = sorted(range(len(times)), key=times.__getitem__)
        for column in ("ids", "submit_s", "run_s", "estimate_s", "needs", "users"):
            values = getattr(self, column)
            setattr(self, column, [values[place] for place in order])


# --- Lublin and Feitelson's model. Sizes: log2 of the size is two-stage uniform. Run times: their log is a mixture
# of two gammas whose weight depends on the size. Arrivals: the logarithm of the gap is gamma, stretched by the day.

SERIAL_SHARE, POWER_OF_TWO_SHARE = 0.244, 0.576
SIZE_LOW, SIZE_MIDDLE_BELOW_HIGH, SIZE_LOW_SHARE = 0.8, 2.5, 0.86
SHORT_RUN, LONG_RUN = (4.2, 0.94), (312.0, 0.03)
SHORT_SHARE_PER_PROCESSOR, SHORT_SHARE = -0.0054, 0.78
LOG_RUN_MAX = 12.0
GAP = (10.2303, 0.4871)
DAY_PEAK = (8.1737, 3.9631)
DAY_START = 11
BUCKETS_PER_DAY = 48
ROUND_ESTIMATES_S = (60, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800, 43_200, 86_400, 129_600, 172_800, 259_200)


def lublin(jobs: int, processors: int, seed: int, load: float = 0.8, users: int = 100) -> Workload:
    """Draw a batch workload for a machine of that size.

    `load` is the sum of processors x run time over processors x span of submissions; the gaps the model draws are
    stretched by one factor to meet it. The model has no estimates: they are drawn as users give them, one to five
    times the run time, rounded up to a round figure. Times are whole seconds.
    """
    _check("jobs", jobs, 1 <= jobs <= JOBS_MAX, f"from 1 to {JOBS_MAX}")
    _check("processors", processors, processors >= 1, "at least 1")
    _check("load", load, 0 < load < 10, "above 0, below 10")
    _check("users", users, users >= 1, "at least 1")
    streams = [random.Random(f"lublin {seed} {name}") for name in ("size", "run", "gap", "estimate", "user")]
    sizes, runs, gaps, estimates, owners = streams
    work = Workload(f"lublin-{jobs}-{processors}-{seed}")
    needs = [_size(sizes, processors) for _ in range(jobs)]
    run_s = [_run_s(runs, need) for need in needs]
    submit_s = _arrivals(gaps, jobs)
    area = sum(map(int.__mul__, needs, run_s))
    stretch = area / (load * processors * submit_s[-1]) if jobs > 1 else 1.0
    work.ids = list(range(1, jobs + 1))
    work.needs = needs
    work.run_s = list(run_s)
    work.submit_s = [int(each * stretch) for each in submit_s]
    work.estimate_s = [_estimate_s(estimates, each) for each in run_s]
    work.users = [min(int(owners.paretovariate(1.0)), users) for _ in range(jobs)]
    return work


def _size(rng: random.Random, processors: int) -> int:
    if processors == 1 or rng.random() < SERIAL_SHARE:
        return 1
    high = math.log2(processors)
    low = min(SIZE_LOW, high)
    middle = max(low, high - SIZE_MIDDLE_BELOW_HIGH)
    log_size = rng.uniform(low, middle) if rng.random() < SIZE_LOW_SHARE else rng.uniform(middle, high)
    if rng.random() < POWER_OF_TWO_SHARE:
        log_size = int(log_size + 0.5)
    return max(1, min(processors, int(2**log_size + 0.5)))


def _run_s(rng: random.Random, need: int) -> int:
    short = min(1.0, max(0.0, SHORT_SHARE + SHORT_SHARE_PER_PROCESSOR * need))
    while True:
        log_run = rng.gammavariate(*(SHORT_RUN if rng.random() < short else LONG_RUN))
        if log_run <= LOG_RUN_MAX:
            return max(1, int(math.exp(log_run)))


def _arrivals(rng: random.Random, jobs: int) -> list[float]:
    """Gaps are drawn as if it were always rush hour, and pass slowly through the hours in which little arrives."""
    weights = _day_weights()
    bucket_s = DAY_S / BUCKETS_PER_DAY
    times, bucket, left = [], DAY_START, bucket_s
    now = 0.0
    for _ in range(jobs):
        gap = math.exp(rng.gammavariate(*GAP))
        while gap > left * weights[bucket]:
            gap -= left * weights[bucket]
            now += left
            bucket, left = (bucket + 1) % BUCKETS_PER_DAY, bucket_s
        passed = gap / weights[bucket]
        now += passed
        left -= passed
        times.append(now)
    return times


def _day_weights() -> list[float]:
    """The share of each half hour, from midnight, in a day's arrivals: a gamma density over half hours that begins in
    the early morning and reaches past midnight; mean 1."""
    shape, scale = DAY_PEAK
    weights = [0.0] * BUCKETS_PER_DAY
    for place in range(DAY_START, DAY_START + BUCKETS_PER_DAY):
        weights[place % BUCKETS_PER_DAY] = (place + 0.5) ** (shape - 1) * math.exp(-(place + 0.5) / scale)
    mean = sum(weights) / BUCKETS_PER_DAY
    return [each / mean for each in weights]


def _estimate_s(rng: random.Random, run_s: int) -> int:
    wanted = run_s * rng.uniform(1, 5)
    place = bisect_left(ROUND_ESTIMATES_S, wanted)
    return ROUND_ESTIMATES_S[place] if place < len(ROUND_ESTIMATES_S) else math.ceil(wanted)


# --- services


class Container(NamedTuple):
    """One container of a service: when it comes, how long it stays (infinity: for ever), what it requests."""

    arrive_s: float
    stay_s: float
    cpu_milli: int
    memory_mib: int


# (cpu_milli, memory_mib, weight): the small shapes are the common ones.
SHAPES = (
    (250, 512, 20), (500, 1024, 20), (500, 4096, 5), (1000, 2048, 15), (2000, 4096, 10), (2000, 16_384, 5),
    (4000, 8192, 10), (4000, 32_768, 3), (8000, 16_384, 6), (8000, 65_536, 2), (16_000, 32_768, 3), (32_000, 65_536, 1),
)  # fmt: skip


def services(
    count: int, per_second: float, mean_stay_s: float, seed: int, day_swing: float = 0.5
) -> Iterator[Container]:
    """Yield container arrivals: a Poisson process whose rate swings by +- `day_swing` over the day (by thinning, Lewis
    and Shedler 1979), exponential stays, shapes of a public cloud's kind (SHAPES)."""
    _check("count", count, 0 <= count <= 100 * JOBS_MAX, "not negative")
    _check("per_second", per_second, per_second > 0, "above 0")
    _check("mean_stay_s", mean_stay_s, mean_stay_s > 0, "above 0")
    _check("day_swing", day_swing, 0 <= day_swing <= 1, "from 0 to 1")
    rng = random.Random(f"services {seed}")
    sums = list(accumulate(weight for _, _, weight in SHAPES))
    peak, now, made = per_second * (1 + day_swing), 0.0, 0
    while made < count:
        now += rng.expovariate(peak)
        rate = per_second * (1 + day_swing * math.sin(2 * math.pi * now / DAY_S))
        if rng.random() * peak > rate:
            continue
        cpu_milli, memory_mib, _ = SHAPES[bisect_left(sums, rng.random() * sums[-1])]
        made += 1
        yield Container(now, rng.expovariate(1 / mean_stay_s), cpu_milli, memory_mib)


def _check(name: str, value: object, good: bool, expected: str) -> None:
    if not good:
        raise BadValue(name, value, expected)
