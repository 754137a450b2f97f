"""A lab's own history is a trace, and a copy of it tells what would happen: both from real agents."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.command_line import CommandLine, eventually

pytestmark = pytest.mark.slow

RUNS_S = (0.2, 0.5, 0.3, 0.4, 0.2)


@pytest.fixture(scope="module")
def lab(fofoca: CommandLine) -> CommandLine:
    fofoca.ok("lab", "up", "--nodes", 2, "--cpu", 1, "--memory", "1G", "--runtime", "process")
    return fofoca


def test_what_a_lab_ran_is_replayed_from_its_history(lab: CommandLine, tmp_path: Path) -> None:
    ids = [int(lab.ok("submit", "--cpu", 1, "--time", "20s", "--", "sleep", run_s).out) for run_s in RUNS_S]
    lab.ok("wait", *ids)
    table, trace = tmp_path / "history.csv", tmp_path / "history.swf"
    for file in (table, trace):
        lab.ok("history", "-o", file)
    ran = {int(row.split(",")[0]): row.split(",") for row in table.read_text().splitlines()[1:]}
    assert set(ids) <= set(ran)
    told = {}
    for file in (table, trace):
        words = ("--processors", 2, "--policy", "fcfs", "--json", "--csv", tmp_path / "out.csv")
        told[file] = lab.ok("sim", "run", file, *words).json
        assert (told[file]["jobs"], told[file]["bad_lines"]) == (len(ran), 0)
        starts = [float(line.split(",")[4]) for line in (tmp_path / "out.csv").read_text().splitlines()[1:]]
        assert starts == sorted(starts)
    assert told[table]["makespan_s"] == pytest.approx(told[trace]["makespan_s"], abs=0.01)
    assert told[table]["mean_turnaround_s"] >= min(RUNS_S)


def test_a_copy_of_a_lab_tells_what_more_nodes_would_bring_and_changes_nothing(lab: CommandLine) -> None:
    running = [int(lab.ok("submit", "--cpu", 1, "--time", "10m", "--", "sleep", 300).out) for _ in range(2)]
    waiting = int(lab.ok("submit", "--name", "waits", "--cpu", 1, "--time", "1m", "--", "sleep", 1).out)
    states = [*[(job, "running") for job in running], (waiting, "pending")]

    def now() -> list[tuple[int, str]]:
        return [(job, lab.ok("job", job, "--json").json["state"]) for job, _ in states]

    eventually("two run and one waits", lambda: now() == states)
    told = lab.ok("sim", "what-if", "--add", "1xn1", "--json").json
    [before], [after] = told["now"]["jobs"], told["then"]["jobs"]
    assert (before["name"], after["name"]) == ("waits", "waits")
    assert 300 < before["first_s"] < 620
    assert (after["first_s"] < 60, after["nodes"]) == (True, ["n1-new-1"])
    assert now() == states
    lab.ok("cancel", *running, waiting)
