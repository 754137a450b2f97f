"""Where work was, and when: the figures behind the report's heat maps.

A machine of equal processors has no places of its own; here each job takes the lowest processors that are free when it
starts, which shows how much of the machine was ever needed. Where nodes ran the work, what they ran is counted. Owns
the counting; how it is drawn, the report's page does. Sizes are bounded: rows stand for several processors where there
are many, columns for equal stretches of time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from sim.replay import Ran
from sim.results import Outcome

ROWS_MAX = 48
COLUMNS = 120

Pieces = list[tuple[int, int]]


class Grid(NamedTuple):
    """Busy shares from 0 to 1: `shares[row][column]`; `edges` are the rows' first places, and the end of the last."""

    start_s: float
    end_s: float
    edges: list[int]
    shares: list[list[float]]


def busy_nodes(ran: Iterable[Ran], count: int) -> Grid | None:
    """Return how busy each of `count` nodes of one processor was over time; None where nothing ran."""
    return _grid([(each.start_s, each.end_s, [(each.node, each.node + 1)]) for each in ran], count)


def busy_processors(jobs: Sequence[Outcome], processors: int) -> Grid | None:
    """Return how busy the processors were over time, each job on the lowest free ones; None where nothing ran."""
    pool = _Pool(processors)
    held: list[tuple[float, int, Pieces]] = []
    laid = []
    for place in sorted(range(len(jobs)), key=lambda place: jobs[place].start_s):
        job = jobs[place]
        while held and held[0][0] <= job.start_s:
            pool.give(heappop(held)[2])
        pieces = pool.take(job.need)
        heappush(held, (job.end_s, place, pieces))
        laid.append((job.start_s, job.end_s, pieces))
    return _grid(laid, processors)


class _Pool:
    """Free processors as stretches, the lowest first."""

    def __init__(self, processors: int) -> None:
        self._lows, self._highs = [0], [processors]

    def take(self, need: int) -> Pieces:
        pieces: Pieces = []
        used = 0
        for low, high in zip(self._lows, self._highs, strict=True):
            if not need:
                break
            upto = min(high, low + need)
            need -= upto - low
            pieces.append((low, upto))
            if upto == high:
                used += 1
            else:
                self._lows[used] = upto
        del self._lows[:used], self._highs[:used]
        return pieces

    def give(self, pieces: Pieces) -> None:
        for low, high in pieces:
            place = bisect_left(self._lows, low)
            if place < len(self._lows) and self._lows[place] == high:
                self._lows[place] = low
            else:
                self._lows.insert(place, low)
                self._highs.insert(place, high)
            if place and self._highs[place - 1] == low:
                self._highs[place - 1] = self._highs[place]
                del self._lows[place], self._highs[place]


def _grid(laid: Sequence[tuple[float, float, Pieces]], count: int) -> Grid | None:
    if not laid:
        return None
    start_s, end_s = min(each[0] for each in laid), max(each[1] for each in laid)
    if end_s <= start_s:
        return None
    rows, width_s = min(count, ROWS_MAX), (end_s - start_s) / COLUMNS
    edges = [-(-row * count // rows) for row in range(rows + 1)]
    areas = [[0.0] * COLUMNS for _ in range(rows)]
    for from_s, to_s, pieces in laid:
        stretches = _columns(from_s - start_s, to_s - start_s, width_s)
        for low, high in pieces:
            for row in range(low * rows // count, (high - 1) * rows // count + 1):
                share = (min(high, edges[row + 1]) - max(low, edges[row])) / (edges[row + 1] - edges[row])
                area = areas[row]
                for column, part in stretches:
                    area[column] += share * part
    shares = [[round(min(1.0, each), 2) for each in area] for area in areas]
    return Grid(start_s, end_s, edges, shares)


def _columns(from_s: float, to_s: float, width_s: float) -> list[tuple[int, float]]:
    """Return which columns a stretch of time covers, and what part of each."""
    first, last = int(from_s / width_s), min(COLUMNS - 1, int(to_s / width_s))
    return [
        (column, (min(to_s, (column + 1) * width_s) - max(from_s, column * width_s)) / width_s)
        for column in range(min(first, last), last + 1)
    ]
