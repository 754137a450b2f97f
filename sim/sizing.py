"""How few nodes are enough? Bisection over the number of nodes, judged on the trace and on resamples of it.

Owns the search. A size is good when the targets are met in at least `confidence` of the inputs: the trace itself and
its resamples (sim/resample.py). More nodes are taken to be no worse, which EASY does not promise (Graham's anomalies,
1969): so the search ends at a size that is good where the next smaller one is not, and says what it tried.

With several node types and prices it looks for the cheapest mix: the cheapest fleet of one type first, then fleets in
which part of it gives way to another type, each filled up to the fewest that are enough. That is a heuristic: it finds
what two types do better together, and promises no optimum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sim.cluster import NodeType
from sim.errors import BadValue
from sim.targets import Target

NODES_MAX = 1_000_000
SHARES_TRIED = (0.25, 0.5, 0.75)

Figures = Mapping[str, float]
Fleet = tuple[int, ...]
Judge = Callable[[Fleet], Sequence[Figures] | None]
"""What every input's replay was like with so many nodes of each type; None: the fleet can't take the largest task."""


class Trial(NamedTuple):
    """One size that was tried: `share` of the inputs met the targets; the figures are the trace's own."""

    counts: Fleet
    share: float
    figures: Figures


class Sizing(NamedTuple):
    """The answer, its price an hour, and all trials in their order."""

    best: Trial
    price: float
    trials: list[Trial]


def size(
    judge: Judge, types: Sequence[NodeType], targets: Sequence[Target], confidence: float, start: int,
    tell: Callable[[Trial], object] = lambda trial: None,
) -> Sizing:  # fmt: skip
    """Return the fewest (cheapest) nodes that meet the targets; `start` is where the search begins.

    `tell` hears of every trial as it ends. Raises BadValue when no size meets the targets.
    """
    if not 0 < confidence <= 1:
        raise BadValue("confidence", confidence, "above 0, at most 1")
    search = _Search(judge, types, targets, confidence, tell)
    singles = [search.fewest(place, start) for place in range(len(types))]
    good = [fleet for fleet in singles if fleet is not None]
    if not good:
        raise BadValue("target", ",".join(each.text for each in targets), "no number of nodes up to a million meets it")
    best = min(good, key=search.cost)
    if len(types) > 1 and any(each.price for each in types):
        best = search.mix(best)
    return Sizing(search.trial(best), search.price(best), search.trials)


class _Search:
    def __init__(
        self, judge: Judge, types: Sequence[NodeType], targets: Sequence[Target], confidence: float,
        tell: Callable[[Trial], object],
    ) -> None:  # fmt: skip
        self._judge = judge
        self._tell = tell
        self._types = types
        self._targets = targets
        self._confidence = confidence
        self._known: dict[Fleet, Trial] = {}

    @property
    def trials(self) -> list[Trial]:
        return list(self._known.values())

    def price(self, fleet: Fleet) -> float:
        return sum(each.price * count for each, count in zip(self._types, fleet, strict=True))

    def cost(self, fleet: Fleet) -> tuple[float, int]:
        return self.price(fleet), sum(fleet)

    def trial(self, fleet: Fleet) -> Trial:
        known = self._known.get(fleet)
        if known is None:
            runs = self._judge(fleet) if any(fleet) else None
            met = [all(target.met(figures) for target in self._targets) for figures in runs or ()]
            share = sum(met) / len(met) if met else 0.0
            known = self._known[fleet] = Trial(fleet, share, runs[0] if runs else {})
            self._tell(known)
        return known

    def good(self, fleet: Fleet) -> bool:
        return self.trial(fleet).share >= self._confidence

    def fewest(self, place: int, start: int, beside: Fleet | None = None) -> Fleet | None:
        """Return the fewest nodes of one type that are enough (beside others), None if none are."""
        base = beside or (0,) * len(self._types)

        def fleet(count: int) -> Fleet:
            return (*base[:place], count, *base[place + 1 :])

        low, high = -1, max(1, start)
        while not self.good(fleet(high)):
            low, high = high, high * 2
            if high > NODES_MAX:
                return None
        floor = low
        while high - low > 1:
            middle = (low + high) // 2
            if floor < 0 and middle == 0 and not any(fleet(0)):
                break
            low, high = (low, middle) if self.good(fleet(middle)) else (middle, high)
        return fleet(high)

    def mix(self, best: Fleet) -> Fleet:
        """Let part of the best single type give way to each other type; keep what is cheaper."""
        main = max(range(len(best)), key=best.__getitem__)
        for other in range(len(best)):
            for share in SHARES_TRIED if other != main else ():
                kept = list((0,) * len(best))
                kept[main] = round(max(best) * share)
                found = self.fewest(other, 1, tuple(kept))
                if found is not None and self.cost(found) < self.cost(best):
                    best = found
        return best
