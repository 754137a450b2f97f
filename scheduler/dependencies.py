"""What a job waits for when it waits for another job: facts about the other one, and what they mean.

A fact (it began, it ended, how) never becomes untrue, so news may come late, doubled or out of order. A job that
nobody knows any more has ended long ago: whoever waits for its end need not wait, whoever waits for how it ended will
wait for ever. Pure functions; who tells whom is follow.py's business. The meanings are Slurm's.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from scheduler.jobs import Job, ranges
from scheduler.model import State
from scheduler.spec.queueing import After, Dependency

Ranges = tuple[tuple[int, int], ...]


class Verdict(enum.Enum):
    """How it stands with one dependency."""

    MET = "met"
    WAITS = "waits"
    NEVER = "never"


@dataclass(slots=True)
class Standing:
    """What is known of a job that others wait for. `begun_s`: since when all its tasks have begun, on our clock."""

    known: bool = True
    begun_s: float | None = None
    ended: bool = False
    succeeded: bool = False

    @property
    def settled(self) -> bool:
        """Whether nothing more is to be learnt of it."""
        return self.ended or not self.known

    def learn(self, newer: Standing) -> None:
        """Take in what somebody says."""
        self.known = self.known and newer.known
        self.begun_s = newer.begun_s if self.begun_s is None else self.begun_s
        self.ended = self.ended or newer.ended
        self.succeeded = self.succeeded or newer.succeeded


def standing_of(job: Job) -> Standing:
    """Return the facts about a job of this home."""
    return Standing(True, job.begun_s, job.finished, job.finished and job.state is State.SUCCEEDED)


def verdict(dependency: Dependency, standing: Standing | None, now: float) -> Verdict:
    """Judge one dependency by what is known of its job (None: nothing yet)."""
    if standing is None:
        return Verdict.WAITS
    match dependency.kind:
        case After.CORRESPONDING:
            return Verdict.MET if standing.known else Verdict.NEVER
        case After.AFTER:
            begun = standing.begun_s is not None and now >= standing.begun_s + dependency.delay_s
            return Verdict.MET if begun or not standing.known else Verdict.WAITS
        case After.ANY:
            return Verdict.MET if standing.settled else Verdict.WAITS
        case After.OK | After.NOT_OK:
            if not standing.known:
                return Verdict.NEVER
            if not standing.ended:
                return Verdict.WAITS
            return Verdict.MET if standing.succeeded is (dependency.kind is After.OK) else Verdict.NEVER


def together(verdicts: Iterable[Verdict], alternatives: bool) -> Verdict:
    """Judge a job's dependencies together: all of them are needed, or one is (`alternatives`)."""
    found = set(verdicts)
    if not found:
        return Verdict.MET
    decisive, other = (Verdict.MET, Verdict.NEVER) if alternatives else (Verdict.NEVER, Verdict.MET)
    if decisive in found:
        return decisive
    return other if found == {other} else Verdict.WAITS


def describe(dependency: Dependency) -> str:
    """Write a dependency as users do: `afterok:1001`."""
    return f"{dependency.kind.value}:{dependency.job}" + (f"+{dependency.delay_s:g}s" if dependency.delay_s else "")


def why(dependency: Dependency, standing: Standing | None) -> str:
    """Say what keeps a dependency from being met."""
    if standing is None:
        return f"{describe(dependency)}: nothing heard from that job's home yet"
    if not standing.known:
        return f"{describe(dependency)}: there is no such job any more"
    if standing.ended:
        return f"{describe(dependency)}: that job has {'succeeded' if standing.succeeded else 'not succeeded'}"
    begun = "is running" if standing.begun_s is not None else "has not begun everything"
    return f"{describe(dependency)}: that job {begun}"


def succeeded_ranges(job: Job, past: int = -1) -> Ranges:
    """Return the indices above `past` of the tasks that have succeeded, as ranges (first, last)."""
    indices = (index for index in sorted(job.tasks) if index > past and job.tasks[index].state is State.SUCCEEDED)
    return tuple(ranges(indices))
