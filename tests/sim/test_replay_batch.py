"""Conservation and determinism of batch replays, and how they are stopped."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.backfill import PLANNERS
from sim.errors import BadValue
from sim.replay import Schedule, replay_jobs
from sim.results import outcomes, summarise
from sim.traces.swf import read_swf, write_swf
from sim.workload import Workload, lublin

SMALL = Path(__file__).with_name("lublin-400.swf")
FIGURES = Path(__file__).with_name("lublin-400.txt")


def busy_at_most(schedule: Schedule) -> int:
    """The most processors ever held at once; at one instant, ends count before starts."""
    changes = []
    for each in outcomes(schedule):
        if each.run_s > 0:
            changes += [(each.start_s, 1, each.need), (each.end_s, 0, -each.need)]
    held = most = 0
    for _, _, need in sorted(changes):
        held += need
        assert held >= 0
        most = max(most, held)
    return most


@pytest.mark.parametrize("policy", PLANNERS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1 << 20), processors=st.sampled_from([1, 7, 64]), clairvoyant=st.booleans())
def test_jobs_in_are_jobs_out_and_never_beyond_the_machine(
    policy: str, seed: int, processors: int, clairvoyant: bool
) -> None:
    work = lublin(120, processors, seed, load=1.2)
    schedule = replay_jobs(work, processors, policy, clairvoyant)
    ended = list(outcomes(schedule))
    assert schedule.complete
    assert [each.id for each in ended] == work.ids, f"seed {seed}"
    assert all(each.wait_s >= 0 for each in ended)
    assert busy_at_most(schedule) <= processors, f"seed {seed}"
    assert summarise(schedule).utilisation <= 1


@pytest.mark.parametrize("policy", PLANNERS)
def test_the_small_trace_gives_its_figures(policy: str) -> None:
    """The figures were worked out by the plain rules of the backfilling tests."""
    trace = read_swf(SMALL)
    result = summarise(replay_jobs(trace.workload, trace.processors, policy))
    figures = dict(each.split() for each in FIGURES.read_text().splitlines())
    assert f"{result.avg_bounded_slowdown:.6f}" == figures[policy]


@pytest.mark.parametrize("policy", PLANNERS)
def test_the_same_trace_gives_the_same_bytes(policy: str) -> None:
    written = []
    for _ in range(2):
        trace = read_swf(SMALL)
        out = io.StringIO()
        write_swf(out, trace.workload, trace.processors, replay_jobs(trace.workload, trace.processors, policy).starts_s)
        written.append(out.getvalue())
    assert written[0] == written[1]


def test_clairvoyance_plans_with_the_run_times() -> None:
    trace = read_swf(SMALL)
    with_estimates = replay_jobs(trace.workload, trace.processors, "easy")
    trace.workload.estimate_s = trace.workload.run_s
    assert replay_jobs(trace.workload, trace.processors, "easy", clairvoyant=True).starts_s == (
        replay_jobs(trace.workload, trace.processors, "easy").starts_s
    )
    assert replay_jobs(trace.workload, trace.processors, "easy").starts_s != with_estimates.starts_s


def test_a_replay_that_is_stopped_tells_of_the_jobs_that_had_ended() -> None:
    work = lublin(2000, 64, 1)
    schedule = replay_jobs(work, 64, "easy", watch=lambda done, _now: done < 1000)
    ended = list(outcomes(schedule))
    assert not schedule.complete
    assert 0 < len(ended) < 1500
    assert all(each.end_s <= schedule.until_s for each in ended)
    whole = {each.id: each for each in outcomes(replay_jobs(work, 64, "easy"))}
    assert all(whole[each.id] == each for each in ended)
    assert summarise(schedule).jobs + summarise(schedule).jobs_unfinished == 2000


def test_an_unknown_policy_and_a_machine_too_small_are_refused() -> None:
    work = lublin(50, 64, 1)
    with pytest.raises(BadValue, match="policy: best is not valid; one of fcfs, easy, sjbf, conservative"):
        replay_jobs(work, 64, "best")
    with pytest.raises(BadValue, match="processors: 1 is not valid; a job asks for"):
        replay_jobs(work, 1, "easy")


def test_nothing_to_replay_is_no_error() -> None:
    result = summarise(replay_jobs(Workload("nothing"), 4, "conservative"))
    assert (result.jobs, result.utilisation, result.fairness) == (0, 0, 1)
