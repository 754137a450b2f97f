"""How good is a node for a task? Higher is better, for a task that fits.

name            range    prefers, and where it is from
best-fit        [0, 1]   the least left over: the mean over all dimensions the cluster has, each as a share of what its
                         largest node has. Best Fit (Johnson 1974) in vector form (Panigrahy et al. 2011); a node with
                         free extras that the task does not need leaves more over, so it is kept for tasks that do
spread          [0, 1]   the emptiest node, by the mean share of its own capacity that is free: worst fit
balance         [0, 1]   the best fit whose CPU and memory run out together: 1 less the mean left over and less their
                         difference, halved (Kubernetes' BalancedAllocation, beside best fit)
dot-product     [0, 1]   demand along what is free: their mean product (Tetris: Grandl et al., SIGCOMM 2014)
cosine          [0, 1]   the same without regard to size: the angle between them (Panigrahy et al. 2011)
norm            [0, 1]   1 less the mean square of what is left over (norm-based greedy: Panigrahy et al. 2011)
residue         any      the least growth of what the expected work can't use, then the best fit (scheduler.residue)

Best fit and spread order nodes by a level that knows no request, so that they are found in an index. The others choose
by their score among the fullest node that fits of each of some classes of free CPU (scheduler.shelves).
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import NamedTuple

Shares = tuple[float, ...]
Fine = Callable[[Shares, Shares], float]


class Policy(NamedTuple):
    """`emptiest`: the order is worst fit, not best fit. `fine`: chooses in the short list, by the shares of the largest
    node that are asked for and free; `learns`: by residue instead.
    """

    name: str
    emptiest: bool = False
    fine: Fine | None = None
    learns: bool = False


def balance(asked: Shares, free: Shares) -> float:
    """Return 1 less the mean left over and less the difference of CPU's and memory's, halved."""
    left = [have - need for need, have in zip(asked, free, strict=True)]
    return 1.0 - (sum(left) / len(left) + abs(left[0] - left[1])) / 2


def dot_product(asked: Shares, free: Shares) -> float:
    """Return the mean product of demand and free."""
    return sum(need * have for need, have in zip(asked, free, strict=True)) / len(free)


def cosine(asked: Shares, free: Shares) -> float:
    """Return the cosine of the angle between demand and free."""
    length = sqrt(sum(need * need for need in asked) * sum(have * have for have in free))
    return dot_product(asked, free) * len(free) / length if length else 0.0


def norm(asked: Shares, free: Shares) -> float:
    """Return 1 less the mean square of what is left over."""
    return 1.0 - sum((have - need) ** 2 for need, have in zip(asked, free, strict=True)) / len(free)


POLICIES: dict[str, Policy] = {
    each.name: each
    for each in (
        Policy("best-fit"),
        Policy("spread", emptiest=True),
        Policy("balance", fine=balance),
        Policy("dot-product", fine=dot_product),
        Policy("cosine", fine=cosine),
        Policy("norm", fine=norm),
        Policy("residue", learns=True),
    )
}


WHY = {
    "best-fit": "the fullest it fits on",
    "spread": "the emptiest",
    "balance": "CPU and memory run out together",
    "dot-product": "what it asks for is most like what is free",
    "cosine": "what it asks for is most like what is free",
    "norm": "the least left over",
    "residue": "the least becomes useless to others",
}
"""Why each policy chooses a node, for those who ask."""


def mixed(number: int) -> int:
    """Return 32 well-mixed bits of a number (the finaliser of SplitMix64, Steele et al. 2014)."""
    z = (number * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (z ^ (z >> 31)) >> 32
