"""Waiting jobs in the order in which they may slip into gaps, searchable by size and length.

Owns the order and the search, not the rule of what may start: EASY backfilling (`scheduler.backfill`) gives the limits.
Blocks of bounded size keep the smallest need and the shortest estimate of their jobs, so that a pass over thousands of
waiting jobs looks into few of them.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

BLOCK_MAX = 64

Key = tuple[float, int]


class Waiting(NamedTuple):
    """A job that waits: what it needs, how long it says it runs, and its place in the order of arrival."""

    job: int
    need: int
    estimate_s: float
    arrival: int


class _Block:
    """Up to BLOCK_MAX waiting jobs in order; parallel lists, because a pass reads little else than numbers."""

    __slots__ = ("estimates", "jobs", "keys", "least_need", "needs", "shortest_s")

    def __init__(self, keys: list[Key], jobs: list[Waiting]) -> None:
        self.keys = keys
        self.jobs = jobs
        self.needs = [each.need for each in jobs]
        self.estimates = [each.estimate_s for each in jobs]
        self.summarise()

    def summarise(self) -> None:
        self.least_need = min(self.needs)
        self.shortest_s = min(self.estimates)

    def insert(self, place: int, key: Key, job: Waiting) -> None:
        self.keys.insert(place, key)
        self.jobs.insert(place, job)
        self.needs.insert(place, job.need)
        self.estimates.insert(place, job.estimate_s)
        self.least_need = min(self.least_need, job.need)
        self.shortest_s = min(self.shortest_s, job.estimate_s)

    def remove(self, place: int) -> None:
        del self.keys[place], self.jobs[place], self.needs[place], self.estimates[place]


class Candidates:
    """Jobs sorted by (order, arrival), where `order` is a number the caller chooses: all equal for arrival order."""

    __slots__ = ("_blocks", "_firsts", "count")

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._firsts: list[Key] = []
        self.count = 0

    def add(self, order: float, job: Waiting) -> None:
        """Insert a job into the order."""
        key = (order, job.arrival)
        self.count += 1
        if not self._blocks:
            self._blocks.append(_Block([key], [job]))
            self._firsts.append(key)
            return
        index = max(0, bisect_left(self._firsts, key) - 1)
        block = self._blocks[index]
        block.insert(bisect_left(block.keys, key), key, job)
        self._firsts[index] = block.keys[0]
        if len(block.keys) > BLOCK_MAX:
            half = BLOCK_MAX // 2
            self._blocks[index : index + 1] = [
                _Block(block.keys[:half], block.jobs[:half]),
                _Block(block.keys[half:], block.jobs[half:]),
            ]
            self._firsts[index : index + 1] = [block.keys[0], block.keys[half]]

    def remove(self, order: float, job: Waiting) -> None:
        """Take a job out."""
        key = (order, job.arrival)
        index = bisect_left(self._firsts, key)
        if index == len(self._firsts) or self._firsts[index] != key:
            index -= 1
        block = self._blocks[index]
        block.remove(bisect_left(block.keys, key))
        self._changed(index)
        self.count -= 1

    def any_within(self, free: int) -> bool:
        """Whether any job needs at most that much."""
        for block in self._blocks:  # noqa: SIM110 - asked after every end; a generator costs three times as much
            if block.least_need <= free:
                return True
        return False

    def pick(self, now_s: float, free: int, shadow_s: float, extra: int) -> list[Waiting]:
        """Remove and return, in order, the jobs that may start now.

        A job may if it needs at most `free`, and either says it ends by `shadow_s` or needs at most `extra`; every one
        that is picked leaves less for the next.
        """
        picked: list[Waiting] = []
        index = 0
        while index < len(self._blocks) and free > 0:
            block = self._blocks[index]
            least = block.least_need
            if least > free or (least > extra and now_s + block.shortest_s > shadow_s):
                index += 1
                continue
            chosen = []
            for place, need in enumerate(block.needs):
                if need > free:
                    continue
                if now_s + block.estimates[place] > shadow_s:
                    if need > extra:
                        continue
                    extra -= need
                free -= need
                chosen.append(place)
            if not chosen:
                index += 1
                continue
            picked += [block.jobs[place] for place in chosen]
            for place in reversed(chosen):
                block.remove(place)
            if not self._changed(index):
                index += 1
        self.count -= len(picked)
        return picked

    def _changed(self, index: int) -> bool:
        """Bring a block's summary up to date after removals; whether the block is gone for being empty."""
        block = self._blocks[index]
        if block.keys:
            block.summarise()
            self._firsts[index] = block.keys[0]
            return False
        del self._blocks[index], self._firsts[index]
        return True
