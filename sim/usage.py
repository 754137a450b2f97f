"""What tasks really use, as shares of what they asked for, over their age: from a file, or from a model.

A file is CSV with a line for each change: `series,time_s,cpu,memory` (`series` may be left out for a single one): from
`time_s` after a task's start on, it uses that share of its requested CPU and memory; shares above 1 are bursts. Every
task draws one series by its own number, and runs through it again from the start when it is over. The model draws each
task's mean, phase and noise: a day's swing around a mean (Reiss et al., SoCC 2012, find use far below requests, and
days in it). Owns formats and draws; what use does to a node is another's business. Same seed, same use.
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

from sim.errors import BadTrace, BadValue
from sim.traces.text import BadLines, open_text
from sim.workload import DAY_S

ROWS_MAX = 10_000_000
SHARE_MAX = 100.0
STEP_S = 300.0


class Step(NamedTuple):
    """From this age on, this much of what was asked for."""

    age_s: float
    cpu: float
    memory: float


class Usage(Protocol):
    """Where tasks' use comes from."""

    def of(self, task: int, at_s: float) -> Iterator[Step]:
        """Yield a task's steps, the first at age 0, for as long as anybody asks; `at_s` is when it starts."""
        ...


class Everything:
    """Every task uses all it asked for, all the time."""

    def of(self, task: int, at_s: float) -> Iterator[Step]:
        """Yield the one step."""
        yield Step(0.0, 1.0, 1.0)


class Series:
    """Recorded series; see the module's header."""

    def __init__(self, series: list[list[Step]], seed: int = 0) -> None:
        self._series = series
        self._seed = seed

    def of(self, task: int, at_s: float) -> Iterator[Step]:
        """Yield the steps of the series the task draws, again and again."""
        steps = self._series[random.Random(f"usage {self._seed} {task}").randrange(len(self._series))]
        if len(steps) == 1:
            yield steps[0]
            return
        # The last step lasts as long as the one before it did.
        span_s = steps[-1].age_s + (steps[-1].age_s - steps[-2].age_s)
        begun_s = 0.0
        while True:
            for age_s, cpu, memory in steps:
                yield Step(begun_s + age_s, cpu, memory)
            begun_s += span_s


class Model:
    """A day's swing around each task's own mean; memory moves a quarter as much as CPU."""

    def __init__(self, mean: float = 0.4, swing: float = 0.5, noise: float = 0.2, seed: int = 0) -> None:
        for name, value, high in (("mean", mean, SHARE_MAX), ("swing", swing, 1.0), ("noise", noise, 2.0)):
            if not 0 <= value <= high:
                raise BadValue(f"usage {name}", value, f"from 0 to {high:g}")
        self.mean, self.swing, self.noise, self.seed = mean, swing, noise, seed

    def of(self, task: int, at_s: float) -> Iterator[Step]:
        """Yield a step for every five minutes."""
        rng = random.Random(f"usage {self.seed} {task}")
        mean = self.mean * rng.lognormvariate(0.0, self.noise)
        phase = rng.gauss(0.0, 0.1)
        age_s = 0.0
        while True:
            day = math.sin(2 * math.pi * ((at_s + age_s) / DAY_S + phase))
            shake = rng.lognormvariate(0.0, self.noise / 2)
            cpu = min(SHARE_MAX, mean * (1 + self.swing * day) * shake)
            memory = min(SHARE_MAX, mean * (1 + self.swing * day / 4))
            yield Step(age_s, cpu, memory)
            age_s += STEP_S


def parse_model(text: str, seed: int = 0) -> Model:
    """Read `mean=0.4,swing=0.5,noise=0.2`, each of which may be left out; raises BadValue."""
    values = {}
    for pair in filter(None, text.split(",")):
        name, _, value = pair.partition("=")
        try:
            values[name.strip()] = float(value)
        except ValueError:
            raise BadValue("usage", repr(pair), "NAME=NUMBER with mean, swing or noise") from None
    if not values.keys() <= {"mean", "swing", "noise"}:
        raise BadValue("usage", repr(text), "NAME=NUMBER with mean, swing or noise")
    return Model(**values, seed=seed)


def read_series(path: str | Path, strict: bool = False, seed: int = 0) -> tuple[Series, BadLines]:
    """Read recorded series; raises BadTrace for a file that holds none, and with `strict` for the first bad line."""
    bad = BadLines(str(path), strict)
    found: dict[str, list[Step]] = {}
    try:
        with open_text(path) as lines:
            rows = csv.DictReader(lines)
            missing = {"time_s", "cpu", "memory"} - set(rows.fieldnames or ())
            if missing:
                raise BadTrace(str(path), f"no column {min(missing)!r} in its first line", 1)
            for row in islice(rows, ROWS_MAX):
                try:
                    step = Step(*(_number(name, row[name]) for name in ("time_s", "cpu", "memory")))
                    steps = found.setdefault(row.get("series") or "", [])
                    _check(step, steps)
                except ValueError as error:
                    bad.add(rows.line_num, str(error))
                    continue
                steps.append(step)
    except (OSError, EOFError, csv.Error) as error:
        raise BadTrace(str(path), f"cannot be read: {error}") from None
    series = [steps for steps in found.values() if steps]
    if not series:
        raise BadTrace(str(path), f"no series ({bad.count} bad lines)")
    return Series(series, seed), bad


def _check(step: Step, before: list[Step]) -> None:
    if not before and step.age_s:
        raise ValueError("time_s: a series begins at 0")
    if before and step.age_s <= before[-1].age_s:
        raise ValueError(f"time_s: {step.age_s:g} is not after {before[-1].age_s:g}")
    if max(step.cpu, step.memory) > SHARE_MAX:
        raise ValueError(f"a share above {SHARE_MAX:g}")


def _number(name: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        raise ValueError(f"{name}: {(text or '')[:20]!r} is no number") from None
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: {value} is not valid; 0 or more")
    return value
