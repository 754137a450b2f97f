"""How much of what a node has left will the expected work not be able to use?

The mix of requests is learned from those that were asked for. For the common ones, a table over free CPU and memory has
the most of it that any multiset of them fills (an unbounded knapsack in two dimensions; Gilmore, Gomory 1966, price
their cutting patterns so); what remains is residue. Placing a task where residue grows least keeps leftovers that
others fill to the brim: online packing by the distribution of sizes, as Sum-of-Squares does in one dimension (Csirik et
al., J. ACM 2006), and fragmentation gradient descent for GPUs (Weng et al., ATC 2023).

Pure and deterministic: the same requests give the same tables. Bounds: KINDS_MAX kinds are counted, the COMMON most
demanded ones are in a table of CELLS x CELLS; it is made anew after 64 requests, 128 more, and so on, MEMORY at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter

KINDS_MAX = 256
COMMON = 24
CELLS = 128
FIRST, MEMORY = 64, 65_536

Size = tuple[int, int]
Kind = tuple[int, int, float]


class Residue:
    """The expected work of a cluster, whose largest node has `cpu` and `memory` (any units)."""

    def __init__(self, cpu: int, memory: int) -> None:
        self._counts: dict[Size, int] = {}
        self._seen = 0
        self._due = FIRST
        self.resize(cpu, memory)

    def resize(self, cpu: int, memory: int) -> None:
        """The largest node is another one; what was learned stays."""
        self._cpu, self._memory = max(cpu, 1), max(memory, 1)
        self._cpu_unit, self._memory_unit = -(-self._cpu // CELLS), -(-self._memory // CELLS)
        self._table: list[list[float]] = []
        if self._counts:
            self._make()

    def learn(self, cpu: int, memory: int, count: int) -> None:
        """So many such requests were asked for."""
        counts = self._counts
        counts[(cpu, memory)] = counts.get((cpu, memory), 0) + count
        self._seen += count
        if self._seen >= self._due:
            self._make()
            self._due = self._seen + min(self._seen, MEMORY)
        if len(counts) > KINDS_MAX or self._seen > 4 * MEMORY:
            self._fade()

    def of(self, cpu: int, memory: int) -> float:
        """Return the residue of that much room: from 0 (all usable) to 2 (a whole largest node, of no use)."""
        whole = cpu / self._cpu + memory / self._memory
        if not self._table:
            return whole
        row = self._table[min(cpu // self._cpu_unit, CELLS)]
        return max(0.0, whole - row[min(memory // self._memory_unit, CELLS)])

    def growth(self, request: Size, free: Size) -> float:
        """Return how much more is residue once the request has its part of what is free; 0 before anything is known."""
        if not self._table:
            return 0.0
        return self.of(free[0] - request[0], free[1] - request[1]) - self.of(*free)

    def _fade(self) -> None:
        """Forget half of the past, and the rarest kinds."""
        ranked = sorted(self._counts.items(), key=lambda pair: (-pair[1], pair[0]))[: KINDS_MAX // 2]
        self._counts = {size: -(-count // 2) for size, count in ranked}
        self._due -= self._seen // 2
        self._seen -= self._seen // 2

    def _make(self) -> None:
        kinds = list(self._common())
        table: list[list[float]] = []
        for cpu in range(CELLS + 1):
            row = list(table[-1]) if table else [0.0] * (CELLS + 1)
            for cpu_cells, memory_cells, value in kinds:
                if cpu_cells <= cpu:
                    source = row if cpu_cells == 0 else table[cpu - cpu_cells]
                    filled = [value + each for each in source[: CELLS + 1 - memory_cells]]
                    row[memory_cells:] = map(max, row[memory_cells:], filled)
            table.append(row)
        self._table = table

    def _common(self) -> Iterable[Kind]:
        """Yield the most demanded kinds: cells of CPU and memory, rounded to the nearest, and what they fill."""
        demand = (
            (count * (size[0] / self._cpu + size[1] / self._memory), size) for size, count in self._counts.items()
        )
        for _, (cpu, memory) in sorted(demand, key=itemgetter(0, 1), reverse=True)[:COMMON]:
            cells = (round(cpu / self._cpu_unit), round(memory / self._memory_unit))
            if any(cells) and cells[0] <= CELLS and cells[1] <= CELLS:
                yield *cells, cpu / self._cpu + memory / self._memory
