"""Sizing and sweeping from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from node.cli.sim_nodes import _figures
from sim.nodes import Demand, NodeSpec
from sim.placement import place
from sim.trials import BatchInputs

SWF = "; MaxProcs: 8\n" + "".join(
    f"{job} {job * 60} 0 600 {1 + job % 4} -1 -1 {1 + job % 4} 900 -1 1 {job % 3} -1 -1 -1 -1 -1 -1\n"
    for job in range(1, 200)
)
SACCT = "JobIDRaw|User|Submit|ElapsedRaw|TimelimitRaw|AllocCPUS\n1|ana|100|60|2|4\n2|bo|110|60|2|8\n"


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "trace.swf"
    path.write_text(SWF)
    return str(path)


def test_a_size_is_found_and_shown_with_what_was_tried(fofoca: Callable[..., Any], trace: str) -> None:
    words = ["sim", "size", trace, "--target", "p95_wait<10m", "--resamples", "2"]
    found = json.loads(fofoca(*words, "--json").out)
    assert found["share"] >= 0.9
    assert found["figures"]["p95_wait_s"] < 600
    assert found["nodes"]["processor"] == found["figures"]["processors"]
    assert "enough in" in fofoca(*words).out


def test_a_sweep_goes_on_with_what_its_file_has(fofoca: Callable[..., Any], trace: str, tmp_path: Path) -> None:
    out = tmp_path / "sweep.jsonl"
    first = fofoca("sim", "sweep", trace, "--policy", "easy,sjbf", "--processors", "24,32", "--out", str(out))
    assert first.code == 0
    assert len(out.read_text().splitlines()) == 4
    more = fofoca(
        "sim", "sweep", trace, "--policy", "easy,sjbf", "--processors", "24,32,40", "--out", str(out), "--json"
    )
    assert len(json.loads(more.out)) == 6
    assert len(out.read_text().splitlines()) == 6


def test_a_sweep_does_not_take_results_of_another_file_of_that_name(
    fofoca: Callable[..., Any], trace: str, tmp_path: Path
) -> None:
    words = ["sim", "sweep", trace, "--processors", "24", "--out", str(tmp_path / "sweep.jsonl"), "--json"]
    first = json.loads(fofoca(*words).out)
    Path(trace).write_text(SWF.replace(" 600 ", " 700 "))
    (again,) = json.loads(fofoca(*words).out)
    assert again["figures"]["utilisation"] > first[0]["figures"]["utilisation"]
    assert len((tmp_path / "sweep.jsonl").read_text().splitlines()) == 2


def test_planning_takes_the_filter_and_tells_of_bad_lines(
    fofoca: Callable[..., Any], trace: str, tmp_path: Path
) -> None:
    with Path(trace).open("a") as out:
        out.write("200 12000 0 600 4 -1 -1 4 -1 -1 1 1 -1 -1 -1 -1 -1 -1\nno job\n")
    sweep = ["sim", "sweep", trace, "--processors", "24", "--json", "--filter"]
    for name, jobs in (("none", 200), ("strong", 199)):
        done = fofoca(*sweep, name, "--out", str(tmp_path / "sweep.jsonl"))
        assert json.loads(done.out)[0]["figures"]["jobs"] == jobs
        assert f"bad line {trace}:202: 2 fields" in done.err
    assert "left out: 1 jobs (strong filter)" in done.err
    size = ["sim", "size", trace, "--target", "p95_wait<10m", "--resamples", "0"]
    done = fofoca(*size, "--filter", "strong", "--json")
    assert json.loads(done.out)["figures"]["jobs"] == 199
    assert fofoca(*size, "--strict").code == 2
    pods = tmp_path / "pods.csv"
    pods.write_text("cpu_milli,memory_mib,creation_time,deletion_time\n1000,1024,0,10\nmany,1,0,1\n")
    words = ["sim", "size", "--pods", str(pods), "--target", "refused<1%", "--node-type", "a:cpu=1,memory=1G"]
    assert "bad line" in fofoca(*words, "--resamples", "0").err
    assert fofoca(*words, "--filter", "strong").err == "fofoca: --filter: goes with TRACE only\n"


def test_slurms_own_records_are_replayed(fofoca: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "dump.txt"
    path.write_text(SACCT)
    found = json.loads(fofoca("sim", "run", str(path), "--processors", "8", "--json").out)
    assert (found["jobs"], found["max_wait_s"]) == (2, 50)


def test_wrong_words_are_one_line(fofoca: Callable[..., Any], trace: str, tmp_path: Path) -> None:
    for words in (
        ["size", trace, "--target", "speed<3"],
        ["size", trace, "--target", "p95_wait<1m", "--node-type", "big"],
        ["size", "--target", "p95_wait<1m"],
        ["sweep", trace, "--policy", "best", "--out", str(tmp_path / "x")],
        ["sweep", trace, "--processors", "0", "--out", str(tmp_path / "x")],
        ["sweep", "--pods", trace, "--out", str(tmp_path / "x")],
        ["run", trace, "--mapping", trace],
    ):
        result = fofoca("sim", *words)
        assert (result.code, result.out) == (2, ""), words
        assert result.err.startswith("fofoca: ")


CLUSTER = '[[node]]\nname = "a"\ncount = 2\ncpu = 8\nmemory = "8G"\n'
PODS = "cpu_milli,memory_mib,creation_time,deletion_time\n" + "".join(
    f"1000,1024,{number},{number + 5000}\n" for number in range(40)
)


def test_overcommit_is_compared_and_swept(fofoca: Callable[..., Any], tmp_path: Path) -> None:
    cluster, pods, page, out = (tmp_path / name for name in ("c.toml", "p.csv", "o.html", "s.jsonl"))
    cluster.write_text(CLUSTER)
    pods.write_text(PODS)
    where = ["--cluster", str(cluster), "--pods", str(pods)]
    words = ["sim", "run", *where, "--arrivals", "trace", "--overcommit", "1,2:2", "--usage", "mean=0.3,noise=0"]
    runs = json.loads(fofoca(*words, "--report", str(page), "--json").out)["runs"]
    assert [run["refused"] for run in runs] == [24, 8]
    assert "Memory promised" in page.read_text()
    swept = fofoca("sim", "sweep", *where, "--overcommit", "1,2", "--usage", "mean=0.3", "--out", str(out), "--json")
    assert [round(run["figures"]["refused"] * 40) for run in json.loads(swept.out)] == [24, 8]
    failing = fofoca(*words, "--failures", "every=1h,repair=10m", "--json")
    assert json.loads(failing.out)["runs"][0]["outages"] >= 0
    for wrong in (["--usage", "speed=1"], ["--failures", "often=1"], ["--overcommit", "x"], ["--overcommit", "0"]):
        assert fofoca("sim", "run", *where, "--arrivals", "trace", *wrong).code == 2
    assert fofoca("sim", "run", *where, "--overcommit", "2").code == 2


def test_ctrl_c_shows_the_sizes_that_were_tried(
    fofoca: Callable[..., Any], trace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes = BatchInputs.run, set()

    def pressed_at_the_third(self: BatchInputs, number: int, processors: int, *words: Any) -> Any:
        sizes.add(processors)
        if len(sizes) == 3:
            raise KeyboardInterrupt
        return real(self, number, processors, *words)

    monkeypatch.setattr(BatchInputs, "run", pressed_at_the_third)
    done = fofoca("sim", "size", trace, "--target", "p95_wait<1m", "--resamples", "0", "--json")
    assert done.code == 130
    assert len(json.loads(done.out)["trials"]) == 2
    assert "interrupted; these sizes were tried" in done.err


def test_a_seed_that_was_interrupted_does_not_count_beside_others() -> None:
    whole = place([NodeSpec("n1", 4000, 4096)], [Demand(1000, 1024)] * 4, "best-fit")
    cut = whole._replace(seed=1, allocated_fraction=0.1, complete=False)
    figures = _figures("best-fit", [whole, cut], {})
    assert (figures["allocated_fraction"], figures["complete"]) == (1.0, False)
    assert _figures("best-fit", [cut], {})["allocated_fraction"] == 0.1
