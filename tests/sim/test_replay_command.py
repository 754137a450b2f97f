"""`fofoca sim run`: the contract of its options, output and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = Path(__file__).with_name("lublin-400.swf")
CONTRACT = {"jobs", "avg_bounded_slowdown", "mean_wait_s", "max_wait_s", "makespan_s", "utilisation", "p95_wait_s"}


def fofoca(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "node.cli", "sim", "run", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_json_is_one_document_with_the_promised_fields() -> None:
    done = fofoca(SMALL, "--processors", 64, "--policy", "sjbf", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result.keys() >= CONTRACT
    assert (result["jobs"], result["policy"], result["complete"]) == (400, "sjbf", True)


def test_several_policies_come_side_by_side() -> None:
    result = json.loads(fofoca(SMALL, "--policy", "easy", "--policy", "fcfs", "--json").stdout)
    assert [each["policy"] for each in result["runs"]] == ["easy", "fcfs"]
    assert all(each.keys() >= CONTRACT for each in result["runs"])
    table = fofoca(SMALL, "--policy", "easy", "--policy", "fcfs").stdout
    assert "avg_bounded_slowdown" in table
    assert "fcfs" in table.splitlines()[0]


def test_files_are_written_for_each_policy(tmp_path: Path) -> None:
    done = fofoca(
        SMALL, "--policy", "easy", "--policy", "fcfs",
        "--schedule", tmp_path / "out.swf", "--csv", tmp_path / "out.csv", "--report", tmp_path / "out.html",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"out-easy.swf", "out-fcfs.swf", "out-easy.csv", "out-fcfs.csv", "out.html"}
    assert len((tmp_path / "out-easy.csv").read_text().splitlines()) == 401


def test_the_schedule_holds_the_waits_of_the_summary(tmp_path: Path) -> None:
    result = json.loads(fofoca(SMALL, "--schedule", tmp_path / "out.swf", "--json").stdout)
    rows = [row.split() for row in (tmp_path / "out.swf").read_text().splitlines() if not row.startswith(";")]
    assert all(len(row) == 18 for row in rows)
    assert sum(float(row[2]) for row in rows) / len(rows) == pytest.approx(result["mean_wait_s"])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "TRACE: nothing to replay"),
        (("nowhere.swf",), "nowhere.swf: no such file or directory"),
        ((SMALL, "--policy", "best"), "policy: best is not valid; one of fcfs, easy, sjbf, conservative"),
        ((SMALL, "--processors", "0"), "--processors: 0 is not valid; at least 1"),
        ((SMALL, "--processors", "many"), "'many' is not a valid integer"),
        ((SMALL, "--filter", "weak"), "'weak' is not one of"),
        ((SMALL, "--schedule", "/nowhere/out.swf"), "--schedule: /nowhere/out.swf cannot be written"),
        ((__file__,), "no job that can run"),
        ((__file__, "--strict"), "test_replay_command.py:1: "),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(words: tuple[object, ...], why: str) -> None:
    done = fofoca(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    assert len([row for row in done.stderr.splitlines() if row.startswith("fofoca: ")]) == 1


@pytest.fixture
def lists(tmp_path: Path) -> tuple[Path, Path]:
    nodes, pods = tmp_path / "nodes.csv", tmp_path / "pods.csv"
    rows = "".join(f"n{place},16000,65536,4,T4\n" for place in range(10))
    nodes.write_text("sn,cpu_milli,memory_mib,gpu,model\n" + rows)
    rows = "".join(f"p{place},1000,1024,1,{300 + place % 8 * 100},\n" for place in range(40))
    pods.write_text("name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n" + rows)
    return nodes, pods


def test_arrivals_on_nodes_tell_what_was_allocated(lists: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    done = fofoca(
        "--nodes", lists[0], "--pods", lists[1], "--policy", "best-fit", "--policy", "spread", "--seeds", 2,
        "--json", "--report", page,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    best_fit, spread = json.loads(done.stdout)["runs"]
    assert 0.8 < best_fit["allocated_fraction"] <= 1
    assert best_fit["allocated_fraction"] == pytest.approx(sum(best_fit["seeds"].values()) / 2)
    assert spread["policy"] == "spread"
    assert "How full each node ended" in page.read_text()
    assert "allocated_fraction" in fofoca("--nodes", lists[0], "--pods", lists[1]).stdout


def test_options_of_the_other_kind_of_trace_are_refused(lists: tuple[Path, Path]) -> None:
    for words, why in (
        (("--nodes", lists[0]), "--pods: goes with one of --nodes and --cluster, and no TRACE"),
        (
            (SMALL, "--nodes", lists[0], "--pods", lists[1]),
            "--pods: goes with one of --nodes and --cluster, and no TRACE",
        ),
        (("--nodes", lists[0], "--pods", lists[1], "--filter", "strong"), "--filter: goes with TRACE only"),
        ((SMALL, "--seed", 3), "--seed: goes with --nodes and --pods, or with --homes, only"),
        (("--nodes", lists[0], "--pods", lists[1], "--policy", "easy"), "policy: easy is not valid; one of best-fit"),
    ):
        done = fofoca(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert why in done.stderr


def test_bad_lines_are_named_and_the_rest_is_replayed(tmp_path: Path) -> None:
    trace = tmp_path / "damaged.swf"
    trace.write_text(SMALL.read_text() + "401 torn\n")
    done = fofoca(trace, "--json")
    result = json.loads(done.stdout)
    number = len(trace.read_text().splitlines())
    assert (result["jobs"], result["bad_lines"]) == (400, 1)
    assert result["first_bad_lines"] == [{"line": number, "why": "2 fields; a job has 18"}]


def test_progress_is_shown_on_a_terminal_and_an_interrupt_gives_the_results_so_far(tmp_path: Path) -> None:
    """A trace that conservative backfilling chews on for long: all jobs at once, none alike."""
    trace = tmp_path / "long.swf"
    shapes = ((job, 500 + job * 7 % 9000, 1 + job % 60) for job in range(30_000))
    rows = (f"{job} 0 -1 {run} 1 -1 -1 {need} 20000 -1 1 1 -1 -1 -1 -1 -1 -1\n" for job, run, need in shapes)
    trace.write_text("; MaxProcs: 64\n" + "".join(rows))
    command = [sys.executable, "-m", "node.cli", "sim", "run", str(trace), "--policy", "conservative", "--json"]
    terminal, side = os.openpty()
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=side, text=True)
    try:
        shown = b""
        while b"ETA" not in shown:
            shown += os.read(terminal, 4096)
        running.send_signal(signal.SIGINT)
        out, _ = running.communicate(timeout=60)
    finally:
        running.kill()
        os.close(side)
        os.close(terminal)
    result = json.loads(out)
    assert b"of 30,000" in shown
    assert running.returncode == 130
    assert not result["complete"]
    assert result["jobs"] + result["jobs_unfinished"] == 30_000


def test_a_trace_goes_through_the_agents_own_machines() -> None:
    words = (SMALL, "--homes", "3", "--json")
    ours, central = json.loads(fofoca(*words).stdout), json.loads(fofoca(SMALL, "--json").stdout)
    assert (ours["jobs"], ours["jobs_unfinished"]) == (central["jobs"], 0)
    assert ours["mean_wait_s"] == pytest.approx(central["mean_wait_s"], rel=0.05, abs=5)
    assert json.loads(fofoca(*words).stdout) == ours
    assert fofoca(SMALL, "--homes", "3", "--policy", "sjbf").returncode == 2
    assert fofoca(SMALL, "--homes", "3", "--clairvoyant").returncode == 2
