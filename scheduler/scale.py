"""What free amounts are measured by: the largest node of the cluster in each dimension, rounded up to a power of two.

Rounded, so that a little more memory on one node leaves every level where it was.
"""

from __future__ import annotations

from collections.abc import Mapping

from scheduler.model import Resources
from scheduler.shelves import FRACTION_BITS

WEIGHT_MAX = 1000


class Scale:
    """Counts the nodes of each size, by dimension. `weights`: how much a dimension counts beside the others, 1 if not
    said. `version` counts changes.
    """

    def __init__(self, steps: int, weights: Mapping[str, int]) -> None:
        self._steps = steps
        self._weights = weights
        self._sizes: dict[str, dict[int, int]] = {}
        self.version = 0
        self.whole: dict[str, int] = {}
        self.cpu = self.memory = 0
        self.extra: dict[str, int] = {}

    def swap(self, old: Resources | None, new: Resources | None) -> None:
        """A node of the old size is one of the new size (None: is not there)."""
        if old != new:
            for amounts, sign in ((old, -1), (new, 1)):
                for dimension, amount in amounts.items() if amounts is not None else ():
                    self._count(dimension, amount.bit_length() if amount > 0 else 0, sign)
            self._measure()

    def _count(self, dimension: str, bits: int, sign: int) -> None:
        if bits:
            sizes = self._sizes.setdefault(dimension, {})
            sizes[bits] = sizes.get(bits, 0) + sign
            if not sizes[bits]:
                del sizes[bits]

    def _measure(self) -> None:
        whole = {dimension: 1 << max(sizes) for dimension, sizes in sorted(self._sizes.items()) if sizes}
        if whole == self.whole:
            return
        self.whole = whole
        self.version += 1
        weights = {dimension: self._weights.get(dimension, 1) for dimension in whole}
        total = sum(weights.values()) or 1
        growth = {
            dimension: (self._steps * weights[dimension] << FRACTION_BITS) // (amount * total)
            for dimension, amount in whole.items()
        }
        self.cpu, self.memory = growth.pop("cpu", 0), growth.pop("memory", 0)
        self.extra = growth

    def level(self, amount: Resources) -> int:
        """Return what an amount adds up to: a weighted mean share in steps, times 2**FRACTION_BITS, never below 0."""
        cpu, memory = amount.cpu_milli, amount.memory_bytes
        total = (cpu * self.cpu if cpu > 0 else 0) + (memory * self.memory if memory > 0 else 0)
        for name, count in amount.extra:
            if count > 0:
                total += count * self.extra.get(name, 0)
        return total

    def growth(self, dimension: str) -> int:
        """Return what a unit of a dimension adds to a level."""
        if dimension == "cpu":
            return self.cpu
        return self.memory if dimension == "memory" else self.extra.get(dimension, 0)

    def shares(self, amount: Resources) -> tuple[float, ...]:
        """Return an amount as shares of the largest node: CPU, memory, then extras by name."""
        whole, extra = self.whole, dict(amount.extra)
        return (
            amount.cpu_milli / whole.get("cpu", 1),
            amount.memory_bytes / whole.get("memory", 1),
            *(extra.get(name, 0) / whole[name] for name in self.extra),
        )
