"""More is promised than there is: what use, kills and failures make of it, and that nothing is lost on the way."""

from __future__ import annotations

import random
from itertools import islice
from math import inf
from pathlib import Path

import pytest

from sim.errors import BadTrace, BadValue
from sim.nodes import Demand, NodeSpec
from sim.outages import Outage, by_rate, downtime_s, parse_rate, read_outages
from sim.overcommitted import Ratios, overcommit
from sim.placement import Visit
from sim.usage import Model, Series, Step, parse_model, read_series

GIB = 1024


def nodes(count: int = 1) -> list[NodeSpec]:
    return [NodeSpec(f"n{number}", 8000, 8 * GIB) for number in range(count)]


def stays(count: int, memory_mib: int = GIB, cpu_milli: int = 1000, leave_s: float = 100.0) -> list[Visit]:
    return [Visit(0.0, leave_s, Demand(cpu_milli, memory_mib)) for _ in range(count)] + [
        Visit(leave_s + 1, leave_s + 2, Demand(1, 1))
    ]


def half() -> Series:
    return Series([[Step(0.0, 0.5, 0.5)]])


def test_without_overcommit_nothing_is_killed_and_the_rest_is_refused() -> None:
    run = overcommit(nodes(), stays(10), "best-fit")
    assert (run.refused, run.oom_kills, run.cpu_short) == (2, 0, 0)
    assert run.memory_committed_peak == 1


def test_what_is_promised_twice_fits_while_half_of_it_is_used() -> None:
    run = overcommit(nodes(), stays(16), "best-fit", Ratios(2, 2), half())
    assert (run.refused, run.oom_kills, run.cpu_short) == (0, 0, 0)
    assert run.memory_committed_peak == 2
    assert run.cpu_used == pytest.approx(100 / 101, abs=0.01)


def test_memory_that_is_not_there_kills_and_cpu_that_is_not_there_is_short() -> None:
    memory = overcommit(nodes(), stays(16), "best-fit", Ratios(2, 2))
    assert memory.oom_kills > 0
    cpu = overcommit(nodes(), stays(16, memory_mib=16), "best-fit", Ratios(2, 1))
    assert (cpu.oom_kills, cpu.refused) == (0, 0)
    assert cpu.cpu_short == pytest.approx(0.5, abs=0.01)


def test_who_is_furthest_above_its_request_is_killed() -> None:
    """The second task grows beyond its request and beyond the node; the first stays within and lives."""
    grows = Series([[Step(0.0, 0.1, 0.5)], [Step(0.0, 0.1, 0.5), Step(10.0, 0.1, 12.0), Step(1e9, 0.1, 12.0)]], seed=0)
    drawn = [next(islice(grows.of(number, 0.0), 1, 2), Step(0, 0, 0)).memory for number in range(20)]
    calm, wild = drawn.index(0), drawn.index(12)
    visits = [Visit(0.0, inf, Demand(10, GIB)) for _ in range(max(calm, wild) + 1)] + [Visit(20.0, 21.0, Demand(1, 1))]
    run = overcommit(nodes(2), visits, "best-fit", Ratios(1, 1), grows)
    assert run.oom_kills > 0
    assert run.tasks == len(visits)


def test_a_failed_nodes_tasks_start_elsewhere_after_a_while() -> None:
    visits = [*stays(8, leave_s=1000.0)]
    run = overcommit(nodes(2), visits, "best-fit", outages=[Outage(0, 100.0, 200.0), Outage(1, 100.0, 150.0)])
    assert (run.outages, run.lost, run.restarted + run.refused) == (2, 8, 8)
    alone = overcommit(nodes(1), visits, "best-fit", outages=[Outage(0, 100.0, 110.0)], notice_s=30)
    assert (alone.lost, alone.restarted, alone.refused) == (8, 8, 0)


def test_overlapping_outages_give_a_node_back_once() -> None:
    visits = [Visit(0.0, 1.0, Demand(1, 1)), *(Visit(50.0, 60.0, Demand(1000, GIB)) for _ in range(16))]
    outages = [Outage(0, 2.0, 10.0), Outage(0, 5.0, 20.0)]
    assert overcommit(nodes(1), visits, "best-fit", outages=outages).refused == 8


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("policy", ["best-fit", "first-fit"])
def test_tasks_and_resources_are_conserved(seed: int, policy: str) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    visits = sorted(
        Visit(at, at + rng.expovariate(1 / 500), Demand(rng.randrange(100, 4000), rng.randrange(64, 4 * GIB)))
        for at in (rng.uniform(0, 5000) for _ in range(300))
    )
    specs = nodes(rng.randrange(1, 6))
    outages = by_rate(len(specs), 5000, 1500, 300, seed)
    ratios = Ratios(rng.uniform(1, 3), rng.uniform(1, 2))
    run = overcommit(specs, visits, policy, ratios, Model(mean=0.7, noise=0.5, seed=seed), outages, seed=seed)
    again = overcommit(specs, visits, policy, ratios, Model(mean=0.7, noise=0.5, seed=seed), outages, seed=seed)
    assert run == again
    assert run.tasks == 300
    assert 0 <= run.cpu_used <= 1 + 1e-9
    assert 0 <= run.memory_used <= 1 + 1e-9
    assert run.cpu_committed <= ratios.cpu + 1e-9
    assert run.memory_committed_peak <= ratios.memory + 1e-9
    assert run.restarted <= run.oom_kills + run.lost
    assert all(-1e-9 <= point.memory_used <= 1 + 1e-9 for point in run.curve)


def test_a_models_days_swing_and_its_draws_are_its_tasks() -> None:
    model = Model(mean=0.5, swing=0.8, noise=0.0, seed=3)
    day = [step.cpu for step in islice(model.of(7, 0.0), 288)]
    assert max(day) > 0.8
    assert min(day) < 0.2
    assert list(islice(model.of(7, 0.0), 5)) == list(islice(model.of(7, 0.0), 5))
    assert parse_model("mean=0.3").mean == 0.3
    for text in ("mean", "speed=1", "mean=-1", "noise=9"):
        with pytest.raises(BadValue, match="usage"):
            parse_model(text)


def test_series_are_read_and_run_through_again(tmp_path: Path) -> None:
    path = tmp_path / "use.csv"
    path.write_text("series,time_s,cpu,memory\na,0,0.1,0.2\na,60,0.3,0.4\nb,5,1,1\nb,0,x,1\na,50,1,1\n")
    series, bad = read_series(path)
    assert list(islice(series.of(1, 0.0), 4)) == [
        Step(0, 0.1, 0.2), Step(60, 0.3, 0.4), Step(120, 0.1, 0.2), Step(180, 0.3, 0.4),
    ]  # fmt: skip
    assert [line for line, _ in bad.first] == [4, 5, 6]
    path.write_text("a,b\n1,2\n")
    with pytest.raises(BadTrace, match="no column 'cpu'"):
        read_series(path)


def test_outages_come_by_rate_or_from_a_list(tmp_path: Path) -> None:
    drawn = by_rate(100, 86_400 * 30, 86_400 * 10, 3600, seed=1)
    assert 200 < len(drawn) < 400
    assert by_rate(101, 86_400 * 30, 86_400 * 10, 3600, seed=1)[:5] is not drawn
    assert {each for each in by_rate(101, 1e6, 1e5, 3600, 1) if each.node < 100} == set(by_rate(100, 1e6, 1e5, 3600, 1))
    assert downtime_s([Outage(0, 1, 5), Outage(1, 8, inf)], 10) == 6
    assert parse_rate("every=30d,repair=2h") == (2_592_000, 7200)
    for text in ("often", "every=x", "every=1d,colour=2"):
        with pytest.raises(BadValue, match="failures"):
            parse_rate(text)
    path = tmp_path / "outages.csv"
    path.write_text("node,down_s,up_s\nn1,10,20\nn0,5,\n")
    assert read_outages(path, ["n0", "n1"]) == [Outage(0, 5, inf), Outage(1, 10, 20)]
    path.write_text("node,down_s,up_s\nn9,10,20\n")
    with pytest.raises(BadTrace, match=":2: no node 'n9'"):
        read_outages(path, ["n0", "n1"])
