"""A batch trace through whole agents' machines while hosts fail: every job runs to its end all the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from node.cli.sim_run import run
from sim.homes_replay import replay_homes
from sim.many_homes import Setting
from sim.outages import Outage, by_rate
from sim.workload import Job, Workload, lublin


def small() -> Workload:
    work = Workload("small")
    for number in range(4):
        work.append(Job(number + 1, 10 * number, 500, 600, 2, 1))
    return work


def test_jobs_of_a_lost_host_start_again_where_there_is_room() -> None:
    """Job 2 has a rank on n4, which is down from 100 to 400: it starts again when n4 is back."""
    setting = Setting(homes=2, home_first=1)
    calm = replay_homes(small(), 4, setting)
    hit = replay_homes(small(), 4, Setting(homes=2, home_first=1, outages=(Outage(3, 100.0, 400.0),)))
    assert [round(at_s or 0) for at_s in calm.starts_s] == [0, 10, 500, 510]
    assert hit.policy == "easy, 2 homes, 1 failure"
    assert [round(at_s or 0) for at_s in hit.starts_s] == [0, 401, 500, 901]


@pytest.mark.parametrize("seed", range(2))
def test_every_job_runs_and_the_same_seed_gives_the_same_starts(seed: int) -> None:
    work = lublin(jobs=40, processors=8, seed=seed, load=0.6)
    outages = tuple(by_rate(8, work.submit_s[-1], 20_000, 600, seed))
    setting = Setting(homes=2, loss=0.05, seed=seed, outages=outages)
    first = replay_homes(work, 8, setting)
    assert len(outages) > 3, f"seed {seed}"
    assert first.complete, f"seed {seed}"
    assert None not in first.starts_s, f"seed {seed}"
    assert replay_homes(work, 8, setting).starts_s == first.starts_s, f"seed {seed}"


def test_a_replay_can_be_ended_after_the_last_submission_too() -> None:
    told = []

    def watch(done: int, _now_s: float) -> bool:
        told.append(done)
        return done < 4

    run = replay_homes(small(), 4, Setting(homes=2, home_first=1), watch)
    assert not run.complete
    assert told == [0, 1, 2, 3, 4]


def test_failures_of_a_trace_come_by_list_and_need_homes(tmp_path: Path) -> None:
    trace, failures = tmp_path / "trace.swf", tmp_path / "failures.csv"
    trace.write_text("; MaxProcs: 2\n" + "".join(f"{n} 0 -1 50 1 -1 -1 1 60 -1 1 1 1 1 1 1 -1 -1\n" for n in (1, 2)))
    failures.write_text("node,down_s,up_s\nn1,20,200\n")
    words = [str(trace), "--failures", str(failures)]
    done = CliRunner().invoke(run, [*words, "--homes", "1", "--json"])
    assert json.loads(done.output)["max_wait_s"] == pytest.approx(50, abs=2), done.output
    refused = CliRunner().invoke(run, words)
    assert refused.exit_code != 0
    assert "--failures: goes with --nodes and --pods, or with --homes, only" in str(refused.exception)


def test_real_gossip_finds_out_by_itself_who_is_lost_and_back() -> None:
    """The same jobs start as with modelled gossip, and n4, lost at 100 s, is used again once it is back at 400 s."""
    outages = (Outage(3, 100.0, 400.0),)
    modelled = replay_homes(small(), 4, Setting(homes=2, home_first=1))
    real = replay_homes(small(), 4, Setting(homes=2, home_first=1, real_gossip=True))
    assert [round(at_s or 0) for at_s in real.starts_s] == [round(at_s or 0) for at_s in modelled.starts_s]
    assert real.policy == "easy, 2 homes, real gossip"
    hit = replay_homes(small(), 4, Setting(homes=2, home_first=1, real_gossip=True, outages=outages))
    assert None not in hit.starts_s
    lost = max(each.end_s for each in hit.ran if each.node == 3 and each.start_s < 100)
    back = min(each.start_s for each in hit.ran if each.node == 3 and each.start_s > 100)
    assert lost == 100
    assert 400 < back < 420
    assert (
        replay_homes(small(), 4, Setting(homes=2, home_first=1, real_gossip=True, outages=outages)).starts_s
        == hit.starts_s
    ), "same seed, same run"


def test_a_compressed_trace_comes_out_in_its_own_times() -> None:
    calm = replay_homes(small(), 4, Setting(homes=2, home_first=1))
    pressed = replay_homes(small(), 4, Setting(homes=2, home_first=1, faster=10.0))
    assert pressed.starts_s == pytest.approx(calm.starts_s, abs=10)
    assert max(each.end_s for each in pressed.ran) == pytest.approx(1010, abs=20)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gossip", "2"], "--gossip: goes with --homes only"),
        (["--loss", "0.1"], "--loss: goes with --homes only"),
        (["--homes", "1", "--gossip", "soon"], "--gossip: 'soon' is not valid; seconds from 0 to 3600, or real"),
        (["--homes", "1", "--gossip", "-1"], "--gossip: '-1' is not valid"),
        (["--homes", "1", "--faster", "0"], "faster: 0.0 is not valid"),
    ],
)
def test_what_belongs_to_homes_is_not_ignored_without_them(tmp_path: Path, words: list[str], message: str) -> None:
    trace = tmp_path / "trace.swf"
    trace.write_text("; MaxProcs: 2\n1 0 -1 50 1 -1 -1 1 60 -1 1 1 1 1 1 1 -1 -1\n")
    refused = CliRunner().invoke(run, [str(trace), *words])
    assert message in str(refused.exception)
