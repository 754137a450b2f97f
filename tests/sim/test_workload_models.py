"""The models: same seed, same workload; the load asked for; the shape the paper describes."""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from node.cli.sim_model import model
from sim.errors import BadValue
from sim.traces.openb import read_visits
from sim.traces.swf import read_swf
from sim.workload import SHAPES, lublin, services


def test_the_same_seed_gives_the_same_jobs_and_another_gives_others() -> None:
    assert list(lublin(300, 128, 7)) == list(lublin(300, 128, 7))
    assert list(lublin(300, 128, 7)) != list(lublin(300, 128, 8))


def test_more_jobs_begin_with_the_same_sizes_and_run_times() -> None:
    assert lublin(600, 128, 7).needs[:300] == lublin(300, 128, 7).needs
    assert lublin(600, 128, 7).run_s[:300] == lublin(300, 128, 7).run_s


@pytest.mark.parametrize("load", [0.3, 0.9])
def test_the_load_is_the_one_asked_for(load: float) -> None:
    work = lublin(5000, 128, 3, load=load)
    area = sum(need * run for need, run in zip(work.needs, work.run_s, strict=True))
    assert area / (128 * work.submit_s[-1]) == pytest.approx(load, rel=0.001)


def test_sizes_and_run_times_have_the_models_shape() -> None:
    work = lublin(20_000, 256, 1)
    serial = sum(need == 1 for need in work.needs) / len(work)
    powers = sum(need & (need - 1) == 0 for need in work.needs) / len(work)
    assert 0.24 < serial < 0.45
    assert powers > 0.6
    assert min(work.needs) >= 1
    assert max(work.needs) <= 256
    assert min(work.run_s) >= 1
    assert statistics.median(work.run_s) < statistics.mean(work.run_s)
    assert all(estimate >= run for estimate, run in zip(work.estimate_s, work.run_s, strict=True))
    assert work.submit_s == sorted(work.submit_s)


def test_more_arrives_by_day_than_by_night() -> None:
    from sim.workload import _arrivals, _day_weights, random

    times = _arrivals(random.Random(1), 20_000)
    hours = Counter(int(time / 3600 + 5.5) % 24 for time in times)
    assert hours[14] > 3 * hours[5]
    assert statistics.mean(_day_weights()) == pytest.approx(1)


def test_services_come_at_the_rate_asked_for() -> None:
    containers = list(services(20_000, 2.0, 600, 5, day_swing=0))
    assert containers[-1].arrive_s == pytest.approx(10_000, rel=0.05)
    assert statistics.mean(each.stay_s for each in containers) == pytest.approx(600, rel=0.05)
    assert {(each.cpu_milli, each.memory_mib) for each in containers} == {shape[:2] for shape in SHAPES}
    assert list(services(50, 2.0, 600, 5)) == list(services(50, 2.0, 600, 5))


@pytest.mark.parametrize(
    "arguments",
    [(0, 8, 1), (10, 0, 1), (10, 8, 1, 0.0), (10, 8, 1, 0.5, 0)],
    ids=["jobs", "processors", "load", "users"],
)
def test_parameters_out_of_range_are_named(arguments: tuple[int, int, int], request: pytest.FixtureRequest) -> None:
    with pytest.raises(BadValue, match=request.node.callspec.id):
        lublin(*arguments)


def test_the_command_writes_what_the_models_draw_and_the_same_again(tmp_path: Path) -> None:
    def drawn(*words: object) -> bytes:
        done = CliRunner().invoke(model, [*map(str, words), "-o", str(tmp_path / "out")])
        assert done.exit_code == 0, done.output
        return (tmp_path / "out").read_bytes()

    batch = ("lublin", "--jobs", 50, "--processors", 64, "--seed", 3)
    assert drawn(*batch) == drawn(*batch) != drawn(*batch[:-1], 4)
    assert drawn(*batch)
    assert list(read_swf(tmp_path / "out").workload) == list(lublin(50, 64, 3))
    drawn("services", "--count", 20, "--swing", 0)
    visits, bad = read_visits(tmp_path / "out")
    assert (len(visits), bad.count) == (20, 0)


def test_the_command_names_what_no_model_can_draw(tmp_path: Path) -> None:
    done = CliRunner().invoke(model, ["lublin", "--load", "0", "-o", str(tmp_path / "out")])
    assert "load: 0.0 is not valid" in str(done.exception)
    done = CliRunner().invoke(model, ["services", "--swing", "2", "-o", str(tmp_path / "out")])
    assert "day_swing: 2.0 is not valid" in str(done.exception)
