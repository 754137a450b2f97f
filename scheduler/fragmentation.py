"""How much of a node's GPUs is left in pieces that the expected work cannot use.

The measure of Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient
Descent" (USENIX ATC 2023). Given the mix of tasks a cluster sees, F(node) is the expected amount of free GPU that a
random task of the mix cannot take: all that is free where the task does not fit at all (or asks for no GPU), else the
sum of the devices too small for it. Placing a task where F grows least keeps room usable.

Pure: it knows the mix and numbers, neither nodes nor policies. Devices are in thousandths.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

WHOLE_MILLI = 1000
DEVICES_MAX = 64


class Kind(NamedTuple):
    """A kind of task in the mix: how common it is, and what it asks for. `gpus` devices of `gpu_milli` each."""

    weight: float
    cpu_milli: int
    gpus: int
    gpu_milli: int


class Fragmentation:
    """F for one mix. Tables over (what CPU allows, device size), so that a question costs one step a device."""

    def __init__(self, mix: Iterable[Kind]) -> None:
        kinds = list(mix)
        total = sum(kind.weight for kind in kinds) or 1.0
        self._levels = sorted({kind.cpu_milli for kind in kinds})
        self._one: list[list[float]] = [[0.0] * (WHOLE_MILLI + 1)]
        self._many: list[list[float]] = [[0.0] * (DEVICES_MAX + 1)]
        for level in self._levels:
            one, many = [0.0] * (WHOLE_MILLI + 1), [0.0] * (DEVICES_MAX + 1)
            for kind in kinds:
                if kind.cpu_milli <= level and kind.gpus == 1:
                    one[kind.gpu_milli] += kind.weight / total
                elif kind.cpu_milli <= level and kind.gpus > 1:
                    many[min(kind.gpus, DEVICES_MAX)] += kind.weight / total
            self._one.append(list(accumulate(one)))
            self._many.append(list(accumulate(many)))

    def measure(self, cpu_milli: int, devices: Sequence[int]) -> float:
        """Return F in thousandths of a device, from 0 (all usable by all) to the sum of what is free."""
        level = bisect_right(self._levels, cpu_milli)
        one = self._one[level]
        largest = one[max(devices, default=0)]
        several = self._many[level][devices.count(WHOLE_MILLI)]
        nobody = 1.0 - largest - several
        total = 0.0
        for free in devices:
            if free == WHOLE_MILLI:
                total += free * nobody
            elif free:
                total += free * (nobody + largest - one[free] + several)
        return total
