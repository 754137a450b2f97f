"""Many nodes in the order of best fit with near-equals, found by a few operations on bits.

A node lies in a cell. Its row is what it has free of one resource, in steps; row and column add up to its level, so the
column is what it has free of all else, and a level is a diagonal: an integer with a bit for each row that has somebody
there (as free lists are found in TLSF, Masmano et al., ECRTS 2004). Nothing that fits a request lies in a lower row or
column than its own amounts. A search goes up the diagonals from that corner and takes from the first that has a node
that fits: the more nodes there are, the sooner. Only in the request's own row and column may nodes have too little;
everywhere else they fit, unless a third resource is lacking.

All nodes of a level are near-equals. In each cell they lie on a ring by a number each node has for good; a search
begins at its seed's place on the ring and takes the first that fits (as in consistent hashing, Karger et al. 1997).

Owns the order; knows neither nodes nor resources. For few levels (STEPS_MAX); scheduler.shelves is for any number.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from scheduler.shelves import FRACTION_BITS, NOTHING, RING_BITS, SLOT_BITS, SLOT_MASK, Scan

STEPS_MAX = 1024
COLUMN_BITS = 12
COLUMN_MASK = (1 << COLUMN_BITS) - 1
PLACE_MASK = (1 << (RING_BITS + SLOT_BITS)) - 1


class _Cell:
    """Places on the ring. A search that found nothing here tells the next: nobody has so much of the amount, or so much
    of all else, as it asked for.
    """

    __slots__ = ("amount_lacking", "places", "rest_lacking")

    def __init__(self, place: int) -> None:
        self.places = [place]
        self.amount_lacking = self.rest_lacking = NOTHING


class Grid:
    """Slots by amount and level. `growth`: how much a level grows with a unit of the amount, in fractions of
    2**FRACTION_BITS; `bonus`: the most that a level may be lowered; `flat`: nodes have CPU and memory alone.
    """

    __slots__ = ("_bonus", "_cells", "_diagonals", "_flat", "_growth", "places")

    def __init__(self, growth: int, bonus: int, flat: bool) -> None:
        self._growth = growth
        self._bonus = bonus
        self._flat = flat
        self._diagonals: list[int] = []
        self._cells: dict[int, _Cell] = {}
        self.places: dict[int, tuple[int, int]] = {}

    def put(self, slot: int, amount: int, total: int, lowered: int, ring: int) -> None:
        """File a slot, or file it anew. Its level is `total`, in fractions, rounded down and `lowered` by a bonus."""
        own = amount * self._growth if amount > 0 else 0
        row = own >> FRACTION_BITS
        column = (total >> FRACTION_BITS) - lowered - row + self._bonus
        key, place = (row << COLUMN_BITS) | column, (ring << SLOT_BITS) | slot
        cell, old = self._cells.get(key), self.places.get(slot)
        if old is None or old[0] != key or old[1] != place:
            self.places[slot] = (key, place)
            if cell is None:
                cell = self._cells[key] = _Cell(place)
                self._mark(row + column, 1 << row)
            else:
                insort(cell.places, place)
            if old is not None:
                self._take(*old)
        assert cell is not None, "what is filed lies in a cell"
        if amount >= cell.amount_lacking:
            cell.amount_lacking = NOTHING
        if total - own >= cell.rest_lacking:
            cell.rest_lacking = NOTHING

    def drop(self, slot: int) -> None:
        """Take a slot out, if it is there."""
        old = self.places.pop(slot, None)
        if old is not None:
            self._take(*old)

    def _take(self, key: int, place: int) -> None:
        places = self._cells[key].places
        if len(places) > 1:
            del places[bisect_left(places, place)]
            return
        del self._cells[key]
        row = key >> COLUMN_BITS
        self._diagonals[row + (key & COLUMN_MASK)] ^= 1 << row

    def _mark(self, diagonal: int, bit: int) -> None:
        while len(self._diagonals) <= diagonal:
            self._diagonals.append(0)
        self._diagonals[diagonal] |= bit

    def first(self, amount: int, rest: int, bonus: int, seed: int, scan: Scan, plain: bool, every: bool) -> int:
        """Return the slot that suits with the least level, and of these with the least way from the seed on the ring;
        -1 when none does. `rest`: the level, in fractions, of what else is asked for; `plain`: CPU and memory are asked
        for and nothing else; `every`: whatever fits suits.
        """
        cells, diagonals, origin = self._cells, self._diagonals, seed << SLOT_BITS
        lowest, least = (amount * self._growth) >> FRACTION_BITS, (rest >> FRACTION_BITS) + self._bonus - bonus
        # Beyond its own row and column a plain request fits; fractions that add up may carry one into a column.
        sure = lowest + 1, least + 2 if plain and every and self._flat and not bonus else NOTHING
        nearest, found = NOTHING, -1
        for diagonal in range(lowest + least, len(diagonals)):
            # Written out: this is where most of a decision's time goes.
            rows = (diagonals[diagonal] >> lowest) & ((2 << (diagonal - lowest - least)) - 1)
            while rows:
                bit = rows & -rows
                rows ^= bit
                row = lowest + bit.bit_length() - 1
                cell = cells[(row << COLUMN_BITS) + diagonal - row]
                if plain and (amount >= cell.amount_lacking or rest >= cell.rest_lacking):
                    continue
                places = cell.places
                at = bisect_left(places, origin)
                if row < sure[0] or diagonal - row < sure[1]:
                    at = _around(places, at, scan)
                    if at < 0:
                        if plain and every:
                            self._remember(cell, row > lowest, diagonal - row > least + 1, amount, rest)
                        continue
                elif at == len(places):
                    at = 0
                way = (places[at] - origin) & PLACE_MASK
                if way < nearest:
                    nearest, found = way, places[at] & SLOT_MASK
            if found >= 0:
                break
        return found

    def all(self, amount: int, rest: int, bonus: int, seed: int, scan: Scan, plain: bool, every: bool) -> Iterator[int]:
        """Yield all slots that suit in the order in which `first` would find them, were each found dropped; nothing may
        be filed meanwhile. A diagonal is looked at as a whole, so one slot alone is cheaper to get from `first`.
        """
        lowest, least = (amount * self._growth) >> FRACTION_BITS, (rest >> FRACTION_BITS) + self._bonus - bonus
        sure = lowest + 1, least + 2 if plain and every and self._flat and not bonus else NOTHING
        origin = seed << SLOT_BITS
        for diagonal in range(lowest + least, len(self._diagonals)):
            rows = (self._diagonals[diagonal] >> lowest) & ((2 << (diagonal - lowest - least)) - 1)
            ways: list[int] = []
            while rows:
                bit = rows & -rows
                rows ^= bit
                row = lowest + bit.bit_length() - 1
                cell = self._cells[(row << COLUMN_BITS) + diagonal - row]
                if plain and (amount >= cell.amount_lacking or rest >= cell.rest_lacking):
                    continue
                places = cell.places
                if row < sure[0] or diagonal - row < sure[1]:
                    places = _suiting(places, scan)
                ways += [(place - origin) & PLACE_MASK for place in places]
            ways.sort()
            for way in ways:
                yield (way + origin) & SLOT_MASK

    def _remember(self, cell: _Cell, enough: bool, enough_else: bool, amount: int, rest: int) -> None:
        """Remember what nobody in a cell has, where it is certain which of the two it is."""
        if enough:
            cell.rest_lacking = min(cell.rest_lacking, rest)
        elif self._flat and enough_else:
            cell.amount_lacking = min(cell.amount_lacking, amount)

    def above(self, amount: int) -> Iterator[int]:
        """Yield the slots that may have enough."""
        lowest = (amount * self._growth) >> FRACTION_BITS
        for key, cell in self._cells.items():
            if key >> COLUMN_BITS >= lowest:
                for place in cell.places:
                    yield place & SLOT_MASK


def _suiting(places: list[int], scan: Scan) -> list[int]:
    """Return the places that suit."""
    found, at = [], scan(places, 0, PLACE_MASK)
    while at >= 0:
        found.append(places[at])
        at = scan(places, at + 1, PLACE_MASK)
    return found


def _around(places: list[int], begin: int, scan: Scan) -> int:
    """Return the index of the first that suits from one on, once around the ring; or -1."""
    at = scan(places, begin, PLACE_MASK)
    return scan(places, 0, places[begin - 1]) if at < 0 < begin else at
