"""The examples of docs/simulation.md run, and the public names are there."""

from __future__ import annotations

import re
from pathlib import Path

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
    for name in sim.__all__:
        assert getattr(sim, name) is not None
    with pytest.raises(AttributeError, match="module 'sim' has no attribute 'nothing'"):
        sim.nothing  # noqa: B018
