"""How good is a node for a task? Higher is better; every score lies in [0, 1] for a task that fits.

`best_fit` prefers the node with the least left over (Best Fit, Johnson 1974, in the vector form of Panigrahy et al.
2011 with equal weights over all dimensions the node has): a node with free extras that the task does not need leaves
more over, so it is kept for tasks that do. `spread` is its mirror, worst fit: the emptiest node wins.
"""

from __future__ import annotations

from collections.abc import Callable

from scheduler.model import Resources

Score = Callable[[Resources, Resources, Resources], float]


def left_over(request: Resources, free: Resources, permitted: Resources) -> float:
    """Return the mean share of `permitted` that stays free after placing, in [0, 1]; 0 is a full node."""
    total = 0.0
    dimensions = 0
    for dimension, most in permitted.items():
        if most > 0:
            total += (free.get(dimension) - request.get(dimension)) / most
            dimensions += 1
    return total / dimensions if dimensions else 0.0


def best_fit(request: Resources, free: Resources, permitted: Resources) -> float:
    """Range [0, 1], 1 fills the node exactly."""
    return 1.0 - left_over(request, free, permitted)


def spread(request: Resources, free: Resources, permitted: Resources) -> float:
    """Range [0, 1], 1 leaves the node empty."""
    return left_over(request, free, permitted)


POLICIES: dict[str, Score] = {"best-fit": best_fit, "spread": spread}


def draw(seed: int, number: int) -> int:
    """Return 64 well-mixed bits of (seed, number): a stable tie-breaker (the finaliser of SplitMix64, Steele 2014)."""
    z = (seed * 0x9E3779B97F4A7C15 + number * 0xD1B54A32D192ED03) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return z ^ (z >> 31)
