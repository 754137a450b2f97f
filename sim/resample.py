"""Other weeks that might have been: a trace's days drawn again, to see how sure a result is.

Block bootstrap (Künsch, Annals of Statistics 17, 1989): the trace is cut into blocks of whole days, blocks are drawn
with replacement until the length is the same, and what arrives in a block keeps its time of day, its size and its
owner. Bursts within a day survive, so that a bad day may come twice or never. A trace of less than two weeks is cut
into fourteen equal blocks instead. The same seed gives the same resample.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from math import ceil

from sim.placement import Visit
from sim.workload import DAY_S, Workload

BLOCKS_MIN = 14


def resample_jobs(workload: Workload, seed: int) -> Workload:
    """Return a workload of about as many jobs over the same span."""
    drawn = Workload(f"{workload.name}, resample {seed}")
    jobs = list(workload)
    for start, end, shift_s in _blocks(workload.submit_s, seed):
        for job in jobs[start:end]:
            drawn.append(job._replace(submit_s=job.submit_s + shift_s))
    return drawn


def resample_visits(visits: Sequence[Visit], seed: int) -> list[Visit]:
    """Return visits over the same span; each stays as long as it did."""
    times = [visit.arrive_s for visit in visits]
    return [
        visit._replace(arrive_s=visit.arrive_s + shift_s, leave_s=visit.leave_s + shift_s)
        for start, end, shift_s in _blocks(times, seed)
        for visit in visits[start:end]
    ]


def _blocks(times: Sequence[float], seed: int) -> Iterator[tuple[int, int, float]]:
    """Yield (from, to, shift) of the drawn blocks, in the order of their new places."""
    if not times:
        return
    first, span_s = times[0], times[-1] - times[0]
    block_s = DAY_S if span_s >= BLOCKS_MIN * DAY_S else (span_s / BLOCKS_MIN or 1.0)
    count = max(1, ceil(span_s / block_s))
    cuts = [bisect_left(times, first + place * block_s) for place in range(count)] + [len(times)]
    rng = random.Random(f"resample {seed}")
    for place in range(count):
        drawn = rng.randrange(count)
        yield cuts[drawn], cuts[drawn + 1], (place - drawn) * block_s
