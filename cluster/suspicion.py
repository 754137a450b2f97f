"""Suspicion: how long a silent member has to answer, and how far a node trusts its own judgement.

Owns the time-out formula and the local health score. It knows nothing of probes, packets or clocks: times are handed
in. Follows Lifeguard (Dadgar, Phillips, Currey 2018, sections IV.A to IV.C); the longer time-out for members whose
host still takes connections is ours.
"""

from __future__ import annotations

import math

from cluster.config import GossipConfig


def shortest_s(config: GossipConfig, members: int, silent: bool) -> float:
    """Return the time-out that confirmations can bring a suspicion down to, in seconds."""
    base = config.suspicion_min_s + config.suspicion_per_decade_s * max(0.0, math.log10(max(1, members)) - 1)
    return base * config.silent_factor if silent else base


def timeout_s(config: GossipConfig, members: int, confirmations: int, silent: bool) -> float:
    """Return how long after its start a suspicion expires; confirmations move it from the longest to the shortest.

    `members` counts the live ones. Two nodes can't confirm for each other, so then the shortest time holds at once.
    """
    shortest = shortest_s(config, members, silent)
    needed = min(config.suspicion_confirmations, members - 2)
    if needed < 1:
        return shortest
    longest = shortest_s(config, members, silent=False) * max(
        config.suspicion_max_factor, config.silent_factor if silent else 1.0
    )
    share = math.log(confirmations + 1) / math.log(needed + 1)
    return max(shortest, longest - (longest - shortest) * share)


class Suspicion:
    """One member under suspicion: since when, by whom, and whether anybody reached its host."""

    __slots__ = ("accusers", "deadline_s", "silent", "started_s")

    def __init__(self, started_s: float, by: str, silent: bool) -> None:
        self.started_s = started_s
        self.accusers = [by]
        self.silent = silent
        self.deadline_s = math.inf

    @property
    def confirmations(self) -> int:
        """How many have confirmed the first accuser."""
        return len(self.accusers) - 1

    def confirm(self, by: str, silent: bool, enough: int) -> bool:
        """Count another accuser; return whether that tells anything new."""
        news = silent and not self.silent
        self.silent = self.silent or silent
        if by in self.accusers or self.confirmations >= enough:
            return news
        self.accusers.append(by)
        return True


class LocalHealth:
    """Lifeguard's score: 0 is healthy; every step stretches this node's probe interval and time-outs by one unit."""

    def __init__(self, worst: int) -> None:
        self._worst = worst
        self.score = 0

    @property
    def factor(self) -> int:
        """By how much to stretch."""
        return self.score + 1

    def change(self, steps: int) -> None:
        """Move the score by some steps, down for answers in time, up for signs of own trouble."""
        self.score = min(max(self.score + steps, 0), self._worst)
