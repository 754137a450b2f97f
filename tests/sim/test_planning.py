"""Clusters from TOML, targets, resamples, sizing and sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from sim.cluster import NodeType, parse_node_type, read_cluster
from sim.errors import BadTrace, BadValue
from sim.grids import cut_broken_line, grid, key, read_results, sweep, write_result
from sim.nodes import Demand
from sim.overcommitted import Ratios
from sim.placement import Visit
from sim.resample import resample_jobs, resample_visits
from sim.sizing import Fleet, size
from sim.targets import parse_target
from sim.trials import BATCH_FIGURES, BatchInputs, NodeInputs
from sim.workload import DAY_S, lublin

CLUSTER = """
[[node]]
name = "big"
count = 2
cpu = 64
memory = "256G"
gpus = 4
model = "A100"
price = 3.0
labels = {rack = "r1"}

[[node]]
name = "small"
count = 3
cpu = "1500m"
memory = 1073741824
price = 0.5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "cluster.toml"
    path.write_text(text)
    return path


def test_a_cluster_is_any_mix_of_types(tmp_path: Path) -> None:
    cluster = read_cluster(write(tmp_path, CLUSTER))
    assert [spec.name for spec in cluster.specs] == ["big-1", "big-2", "small-1", "small-2", "small-3"]
    assert (cluster.specs[0].memory_mib, cluster.specs[2].cpu_milli) == (262_144, 1500)
    assert (cluster.processors, cluster.price) == (131, 7.5)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "node"),
        ('[[node]]\nname = "a"\ncpu = "lots"\nmemory = 1\n', "cpu: 'lots'"),
        ('[[node]]\nname = "a"\ncpu = 1\nmemory = "1X"\n', "memory: '1X'"),
        ('[[node]]\nname = "a"\ncpu = 0\nmemory = 1\n', "no CPU"),
        ('[[node]]\nname = "a"\ncpu = 1\nmemory = "1G"\ncount = -1\n', "count"),
        ('[[node]]\nname = "a"\ncpu = 1\nmemory = "1G"\n' * 2, "there twice"),
        ('[[node]]\nname = "a"\ncpu = 1\nmemory = "1G"\ncolour = 1\n', "colour"),
    ],
)
def test_a_wrong_cluster_names_what_is_wrong(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(BadTrace, match=why):
        read_cluster(write(tmp_path, text))


def test_a_node_type_fits_on_one_line() -> None:
    assert parse_node_type("big:cpu=64,memory=256G,price=3.2,gpus=2").price == 3.2
    for text in ("big", "big:cpu", "big:cpu=1,memory=2G,size=3", "big:cpu=0,memory=1G", ":cpu=1,memory=1G"):
        with pytest.raises(ValueError, match=r"\S"):
            parse_node_type(text)


def test_targets_know_figures_units_and_relations() -> None:
    target = parse_target("p95_wait < 10m", BATCH_FIGURES)
    assert (target.figure, target.bound, target.text) == ("p95_wait_s", 600, "p95_wait<10m")
    assert target.met({"p95_wait_s": 599.9})
    assert not target.met({"p95_wait_s": 600})
    assert parse_target("utilisation>=60%", BATCH_FIGURES).bound == 0.6
    for text in ("p95_wait", "speed<3", "utilisation<10m", "p95_wait<ten"):
        with pytest.raises(BadValue, match="target"):
            parse_target(text, BATCH_FIGURES)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_resample_keeps_days_whole_and_is_the_same_for_the_same_seed(seed: int) -> None:
    work = lublin(jobs=3000, processors=64, seed=7, load=0.7)
    drawn = resample_jobs(work, seed)
    assert list(drawn) == list(resample_jobs(work, seed))
    assert drawn.submit_s == sorted(drawn.submit_s)
    assert set(drawn.ids) <= set(work.ids)
    if work.submit_s[-1] >= 14 * DAY_S:
        offset = work.submit_s[0]
        by_id = dict(zip(work.ids, work.submit_s, strict=True))
        for job in list(drawn)[:50]:
            assert (job.submit_s - offset) % DAY_S == pytest.approx((by_id[job.id] - offset) % DAY_S)


def test_visits_of_a_resample_stay_as_long_as_they_did() -> None:
    visits = [Visit(float(at), at + 50.0, Demand(1000, 1)) for at in range(0, 1400, 10)]
    drawn = resample_visits(visits, 5)
    assert all(visit.leave_s - visit.arrive_s == pytest.approx(50) for visit in drawn)


def figures_of(bound: int) -> Sequence[Mapping[str, float]]:
    return [{"p95_wait_s": 0.0 if bound <= 0 else 1e9}]


def test_sizing_finds_the_fewest_nodes_and_where_it_stops_is_the_edge() -> None:
    asked: list[Fleet] = []

    def judge(fleet: Fleet) -> Sequence[Mapping[str, float]]:
        asked.append(fleet)
        return figures_of(137 - fleet[0])

    targets = [parse_target("p95_wait<1m", BATCH_FIGURES)]
    found = size(judge, [NodeType("n", 1, "1G")], targets, 0.9, start=10)
    assert found.best.counts == (137,)
    assert (136,) in asked
    assert len(asked) <= 16
    assert len(set(asked)) == len(asked)


def test_the_cheapest_mix_may_be_of_two_types() -> None:
    """Eight big nodes' worth of room is needed, but anything big will do: small ones are dearer for the rest."""

    def judge(fleet: Fleet) -> Sequence[Mapping[str, float]]:
        big, small = fleet
        return figures_of(100 - 16 * big - 2 * small if big >= 2 else 1)

    types = [NodeType("big", 16, "64G", price=10), NodeType("small", 2, "8G", price=1)]
    found = size(judge, types, [parse_target("p95_wait<1m", BATCH_FIGURES)], 1.0, start=1)
    assert found.price == 2 * 10 + 34
    assert found.best.counts == (2, 34)


def test_no_size_is_an_answer_of_its_own() -> None:
    with pytest.raises(BadValue, match="no number of nodes"):
        size(lambda _: figures_of(1), [NodeType("n", 1, "1G")], [parse_target("p95_wait<1s", BATCH_FIGURES)], 1, 1)


def test_more_processors_are_found_where_the_wait_must_be_short() -> None:
    inputs = BatchInputs(lublin(jobs=400, processors=32, seed=3, load=0.9))

    def judge(fleet: Fleet) -> Sequence[Mapping[str, float]] | None:
        return [inputs.run(0, fleet[0], "easy")] if fleet[0] >= inputs.largest else None

    def fewest(text: str) -> int:
        return size(judge, [NodeType("n", 1, "1G")], [parse_target(text, BATCH_FIGURES)], 1, 8).best.counts[0]

    assert inputs.largest <= fewest("p95_wait<4h") < fewest("p95_wait<1m")


def test_overcommit_takes_more_on_the_same_nodes() -> None:
    visits = [Visit(float(at), at + 1000.0, Demand(1000, 1024)) for at in range(100)]
    inputs = NodeInputs(visits)
    nodes = NodeType("n", 10, "10G", count=4).specs()
    assert inputs.run(0, nodes, "best-fit")["refused"] == pytest.approx(0.6)
    assert inputs.run(0, nodes, "best-fit", Ratios(2.5, 2.5))["refused"] == 0


def work_on(run: dict[str, int]) -> dict[str, int]:
    return {"product": run["a"] * run["b"]}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_sweep_runs_every_combination_once(processes: int) -> None:
    runs = grid({"a": [1, 2, 3], "b": [10, 20]})
    found = {key(run): figures["product"] for run, figures in sweep(runs, work_on, processes)}
    assert found == {key(run): run["a"] * run["b"] for run in runs}


def test_a_sweep_goes_on_where_a_crash_cut_its_last_line(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with path.open("w") as out:
        write_result(out, {"a": 1}, {"x": 2})
        out.write('{"run": {"a"')
    assert read_results(path) == {key({"a": 1}): {"x": 2}}
    cut_broken_line(path)
    with path.open("a") as out:
        write_result(out, {"a": 2}, {"x": 4})
    assert len(read_results(path)) == 2


def test_a_file_of_somebody_elses_is_not_touched(tmp_path: Path) -> None:
    path = write(tmp_path, CLUSTER)
    with pytest.raises(BadTrace, match="no line of a sweep"):
        read_results(path)
