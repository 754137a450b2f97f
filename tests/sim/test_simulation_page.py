"""The examples of docs/simulation.md run, and the public names are there."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest

import sim
from scheduler.backfill import PLANNERS
from sim.policies import POLICIES
from sim.results import Summary

PAGE = (Path(__file__).parents[2] / "docs" / "simulation.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_run(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(EXAMPLES[number], {})


def test_the_planners_example_says_what_happens() -> None:
    from scheduler.backfill import Easy

    planner = Easy(processors=100)
    assert list(planner.submitted(0.0, job=1, need=80, estimate_s=600.0)) == [1]
    assert list(planner.submitted(5.0, job=2, need=50, estimate_s=600.0)) == []
    assert planner.reservation() == (2, 600.0, 50)
    assert list(planner.submitted(6.0, job=3, need=20, estimate_s=60.0)) == [3]
    assert list(planner.ended(100.0, job=1)) == [2]


def test_every_policy_and_figure_is_on_the_page() -> None:
    for name in (*PLANNERS, *POLICIES):
        assert name in PAGE
    for name in ("avg_bounded_slowdown", "mean_wait_s", "max_wait_s", "makespan_s", "utilisation", "fairness"):
        assert name in PAGE
        assert name in Summary._fields


def test_public_names_are_where_they_are_said_to_be() -> None:
    for each in pkgutil.iter_modules(sim.__path__):
        importlib.import_module(f"sim.{each.name}")
    for name in sim.__all__:
        # A module of the same name would hide it from `from sim import NAME`.
        assert not isinstance(getattr(sim, name), ModuleType), name
        assert getattr(sim, name).__doc__, name
    with pytest.raises(AttributeError, match="module 'sim' has no attribute 'nothing'"):
        sim.nothing  # noqa: B018


def test_the_tour_says_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "simulation-tour.md"
    text = re.sub(r"```(pycon)?\n", "\n", page.read_text())
    tour = doctest.DocTestParser().get_doctest(text, {}, "the tour", str(page), 0)
    told: list[str] = []
    assert doctest.DocTestRunner().run(tour, out=told.append).failed == 0, "".join(told)
    assert len(tour.examples) > 20
