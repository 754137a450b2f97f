"""What is free when: the two shapes of a plan over time that backfilling needs.

`Releases` knows when running jobs are expected to give back what they hold; it only ever grows towards the future and
answers one question fast: from when on is this much free? (EASY's shadow time.) `Profile` is the free amount as a step
function of time, with reservations in it, and answers: where is the earliest gap of this width and length?
(Conservative backfilling; Mu'alem and Feitelson, IEEE TPDS 2001.)

Both keep sorted lists in blocks of bounded size with a summary for each block, so that an update moves at most one
block's entries and a question skips most blocks. Amounts are integers, times are numbers of one clock in seconds.
Neither knows jobs, nodes or policies.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from math import inf

BLOCK_MAX = 128


class Releases:
    """Amounts that come free at times. `next_s` is the earliest of them, infinity when there is none.

    Releases at the same moment are one entry. With n distinct times an update costs O(log n + BLOCK_MAX) machine words,
    a question O(n / BLOCK_MAX + BLOCK_MAX) additions.
    """

    __slots__ = ("_amounts", "_lasts", "_sums", "_times", "next_s")

    def __init__(self) -> None:
        self._times: list[list[float]] = []
        self._amounts: list[list[int]] = []
        self._lasts: list[float] = []
        self._sums: list[int] = []
        self.next_s: float = inf

    def add(self, time_s: float, amount: int) -> None:
        """Expect `amount` more to come free at `time_s`."""
        lasts = self._lasts
        if not lasts:
            self._times, self._amounts, self._lasts, self._sums = [[time_s]], [[amount]], [time_s], [amount]
            self.next_s = time_s
            return
        block = bisect_left(lasts, time_s)
        if block == len(lasts):
            block -= 1
            lasts[block] = time_s
        times = self._times[block]
        place = bisect_left(times, time_s)
        self._sums[block] += amount
        if place < len(times) and times[place] == time_s:
            self._amounts[block][place] += amount
            return
        times.insert(place, time_s)
        self._amounts[block].insert(place, amount)
        if time_s < self.next_s:
            self.next_s = time_s
        if len(times) > BLOCK_MAX:
            self._split(block)

    def remove(self, time_s: float, amount: int) -> None:
        """Take back an expectation that was added; KeyError when nothing was."""
        block = bisect_left(self._lasts, time_s)
        times = self._times[block] if block < len(self._times) else []
        place = bisect_left(times, time_s)
        if place == len(times) or times[place] != time_s:
            raise KeyError(time_s)
        amounts = self._amounts[block]
        self._sums[block] -= amount
        amounts[place] -= amount
        if amounts[place] == 0:
            del times[place], amounts[place]
            if times:
                self._lasts[block] = times[-1]
            else:
                self._drop(block)
            self.next_s = self._times[0][0] if self._times else inf

    def expire(self, now_s: float) -> int:
        """Forget what was due at or before now, and return how much that was."""
        total = 0
        while self.next_s <= now_s:
            times, amounts = self._times[0], self._amounts[0]
            due = bisect_right(times, now_s)
            part = sum(amounts[:due])
            total += part
            self._sums[0] -= part
            del times[:due], amounts[:due]
            if not times:
                self._drop(0)
            self.next_s = self._times[0][0] if self._times else inf
        return total

    def earliest(self, amount: int) -> tuple[float, int]:
        """Return the first time by which at least `amount` has come free, and how much has by then.

        (infinity, all there is) when it never will.
        """
        total = 0
        block = 0
        for part in self._sums:
            if total + part >= amount:
                break
            total += part
            block += 1
        else:
            return inf, total
        for time_s, part in zip(self._times[block], self._amounts[block], strict=True):
            total += part
            if total >= amount:
                return time_s, total
        raise AssertionError("a block's sum is not the sum of its amounts")

    def items(self) -> Iterator[tuple[float, int]]:
        """Yield (time, amount) in order of time."""
        for times, amounts in zip(self._times, self._amounts, strict=True):
            yield from zip(times, amounts, strict=True)

    def _split(self, block: int) -> None:
        half = BLOCK_MAX // 2
        times, amounts = self._times[block], self._amounts[block]
        self._times[block : block + 1] = [times[:half], times[half:]]
        self._amounts[block : block + 1] = [amounts[:half], amounts[half:]]
        self._lasts[block : block + 1] = [times[half - 1], times[-1]]
        low = sum(amounts[:half])
        self._sums[block : block + 1] = [low, self._sums[block] - low]

    def _drop(self, block: int) -> None:
        del self._times[block], self._amounts[block], self._lasts[block], self._sums[block]


class Profile:
    """The free amount over time: `free[i]` from `times[i]` until `times[i + 1]`, the last one for ever.

    A flat pair of lists: with some thousands of steps, moving them in memory is cheaper than any cleverer structure in
    Python, and the searches below stop early.
    """

    __slots__ = ("_free", "_times")

    def __init__(self, now_s: float, free: int) -> None:
        self._times: list[float] = [now_s]
        self._free: list[int] = [free]

    def advance(self, now_s: float) -> None:
        """Forget the past."""
        past = bisect_right(self._times, now_s) - 1
        if past > 0:
            del self._times[:past], self._free[:past]
        if now_s > self._times[0]:
            self._times[0] = now_s

    def take(self, start_s: float, end_s: float, amount: int) -> None:
        """Reserve `amount` (give back when negative) from start to end; steps that become equal are joined."""
        if end_s <= start_s:
            return
        free, times = self._free, self._times
        first, last = self._cut(start_s), self._cut(end_s)
        free[first:last] = [each - amount for each in free[first:last]]
        for edge in (last, first):
            if 0 < edge < len(free) and free[edge] == free[edge - 1]:
                del free[edge], times[edge]

    def earliest(self, amount: int, duration_s: float, before_s: float = inf) -> float:
        """Return the start of the earliest gap of that width and length.

        With `before_s`, only a start before it counts and what lies behind it is taken to fit: so a job that holds a
        reservation from `before_s` on asks for a better one without giving up the one it has. Returns `before_s` when
        there is none, infinity without it.
        """
        times, free = self._times, self._free
        count = len(times)
        place = 0
        while place < count:
            while place < count and free[place] < amount:
                place += 1
            if place == count or times[place] >= before_s:
                return before_s
            start = times[place]
            end = min(start + duration_s, before_s)
            place += 1
            while place < count and times[place] < end and free[place] >= amount:
                place += 1
            if place == count or times[place] >= end:
                return start
        return before_s

    def at(self, time_s: float) -> int:
        """Return what is free at a time, not earlier than the last `advance`."""
        return self._free[bisect_right(self._times, time_s) - 1]

    def steps(self) -> Iterator[tuple[float, int]]:
        """Yield (from when, how much is free), in order of time."""
        yield from zip(self._times, self._free, strict=True)

    def _cut(self, time_s: float) -> int:
        """Return the index of the step that begins at a time; make one if there is none."""
        place = bisect_left(self._times, time_s)
        if place == len(self._times) or self._times[place] != time_s:
            self._times.insert(place, time_s)
            self._free.insert(place, self._free[place - 1])
        return place
