"""Many nodes in the order in which a policy likes them, so that the first that fits is found without a look at all.

Nodes lie on shelves by what they have free of one resource, eight shelves to a power of two (as the free lists of TLSF,
Masmano et al., ECRTS 2004); on a shelf they are sorted by level: the lower, the more a policy likes them. A shelf that
is too small for a request is never opened; nor is one that can hold nothing better than what was found, when levels
grow with what is free. On one shelf the free amounts of one resource are nearly alike, so that levels are nearly in the
order of the other one, and the first node that fits is a few steps from where a binary search lands.

Equal levels are near-equals. They lie on a ring by a number each node has for good; a search begins at its seed's place
on the ring and takes the first that fits (as in consistent hashing, Karger et al. 1997): drawn, yet found in O(log n).

Owns the order; knows neither nodes nor resources. A place on a shelf is one integer, (level, ring, slot).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence

STEP_BITS = 3
SLOT_BITS, RING_BITS = 20, 32
FRACTION_BITS = 48
SLOTS_MAX = 1 << SLOT_BITS
LEVEL_SHIFT = SLOT_BITS + RING_BITS
SLOT_MASK, RING_MASK, LOW_MASK = SLOTS_MAX - 1, (1 << RING_BITS) - 1, (1 << LEVEL_SHIFT) - 1
NOTHING = 1 << 256

Scan = Callable[[Sequence[int], int, int], int]
"""Finds, from an index of these places on and up to a last place, the index of the first whose slot fits; or -1."""


def shelf_of(amount: int) -> int:
    """Return the shelf of a free amount; order is kept."""
    if amount <= 0:
        return 0
    shift = amount.bit_length() - STEP_BITS - 1
    return (shift << STEP_BITS) + (amount >> shift) if shift > 0 else amount


def least_of(shelf: int) -> int:
    """Return the least amount of a shelf."""
    shift = (shelf >> STEP_BITS) - 1
    return (shelf - (shift << STEP_BITS)) << shift if shift > 0 else shelf


SHELVES = shelf_of(1 << 62) + 1
LEAST = tuple(least_of(shelf) for shelf in range(SHELVES))


def rank_of(level: int, ring: int, slot: int, seed: int) -> int:
    """Return how good a place is for a seed, the least best: by level, then by the way on the ring, then by slot."""
    return (level << LEVEL_SHIFT) | (((ring - seed) & RING_MASK) << SLOT_BITS) | slot


class Shelves:
    """Slots by amount and level. `growth`: how much a level grows at least with a unit of the amount, in fractions of
    2**FRACTION_BITS; None where levels don't grow with what is free.
    """

    __slots__ = ("_filled", "_floors", "_shelves", "places")

    def __init__(self, growth: int | None) -> None:
        self._shelves: list[list[int]] = [[] for _ in range(SHELVES)]
        self._filled = 0
        self._floors = None if growth is None else [least * growth for least in LEAST]
        self.places: dict[int, tuple[int, int]] = {}

    def put(self, slot: int, amount: int, level: int, ring: int) -> None:
        """File a slot, or file it anew."""
        shelf, place = shelf_of(amount), (level << LEVEL_SHIFT) | (ring << SLOT_BITS) | slot
        old = self.places.get(slot)
        if old is not None:
            if old == (shelf, place):
                return
            self._take(*old)
        self.places[slot] = (shelf, place)
        insort(self._shelves[shelf], place)
        self._filled |= 1 << shelf

    def drop(self, slot: int) -> None:
        """Take a slot out, if it is there."""
        old = self.places.pop(slot, None)
        if old is not None:
            self._take(*old)

    def _take(self, shelf: int, place: int) -> None:
        places = self._shelves[shelf]
        del places[bisect_left(places, place)]
        if not places:
            self._filled &= ~(1 << shelf)

    def first(self, amount: int, rest: int, bonus: int, seed: int, scan: Scan) -> int:
        """Return the slot that a policy likes best of those that fit, -1 when none does.

        `rest`: the level, in the same fractions, of what else is asked for; `bonus`: the most that a level was lowered.
        """
        best = NOTHING
        lowest = shelf_of(amount)
        filled, floors, shelves = self._filled >> lowest, self._floors, self._shelves
        floor = -NOTHING
        while filled:
            # Written out, not over _opened(): this is where most of a decision's time goes.
            bit = filled & -filled
            filled ^= bit
            shelf = lowest + bit.bit_length() - 1
            if floors is not None:
                floor = (((floors[shelf] + rest) >> FRACTION_BITS) - bonus) << LEVEL_SHIFT
                if floor > best:
                    break
            places = shelves[shelf]
            if places[-1] >= floor and places[0] >> LEVEL_SHIFT <= best >> LEVEL_SHIFT:
                best = min(best, _first_on(places, floor, seed, scan, best))
        return best & SLOT_MASK if best != NOTHING else -1

    def firsts(self, amount: int, rest: int, bonus: int, seed: int, scan: Scan, count: int) -> list[int]:
        """Return the best that fits of each of the first `count` shelves that have one."""
        found: list[int] = []
        for shelf, floor in self._opened(amount, rest, bonus):
            best = _first_on(shelf, floor, seed, scan, NOTHING)
            if best != NOTHING:
                found.append(best & SLOT_MASK)
                if len(found) == count:
                    break
        return found

    def above(self, amount: int) -> Iterator[int]:
        """Yield the slots of the shelves that may have enough."""
        for shelf, _ in self._opened(amount, 0, 0):
            for place in shelf:
                yield place & SLOT_MASK

    def _opened(self, amount: int, rest: int, bonus: int) -> Iterator[tuple[Sequence[int], int]]:
        """Yield the shelves that may have enough, smallest first, and a rank that nothing fitting there is below."""
        lowest = shelf_of(amount)
        filled, floors = self._filled >> lowest, self._floors
        while filled:
            bit = filled & -filled
            filled ^= bit
            shelf = lowest + bit.bit_length() - 1
            floor = -NOTHING if floors is None else (((floors[shelf] + rest) >> FRACTION_BITS) - bonus) << LEVEL_SHIFT
            yield self._shelves[shelf], floor


def _first_on(places: Sequence[int], floor: int, seed: int, scan: Scan, below: int) -> int:
    """Return the least rank on one shelf of what fits, if it is below (in level at least); else NOTHING."""
    place = scan(places, bisect_left(places, floor), below | LOW_MASK)
    return _drawn(places, place, seed, scan) if place >= 0 else NOTHING


def _drawn(places: Sequence[int], place: int, seed: int, scan: Scan) -> int:
    """Return the least rank of what fits on the level of the first that does, at `place`."""
    first = places[place]
    level = first >> LEVEL_SHIFT
    if place + 1 < len(places) and places[place + 1] >> LEVEL_SHIFT == level:
        begin = bisect_left(places, (level << LEVEL_SHIFT) | (seed << SLOT_BITS), place)
        nearest = scan(places, begin, first | LOW_MASK)
        if nearest >= 0:
            first = places[nearest]
    return rank_of(level, (first >> SLOT_BITS) & RING_MASK, first & SLOT_MASK, seed)
