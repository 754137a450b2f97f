"""The published figures for KTH-SP2, to all printed digits."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from sim.replay import replay_jobs
from sim.results import Summary, summarise
from sim.traces.swf import read_swf

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("FOFOCA_TRACES") or ROOT.parent / "shared" / "traces")
TRACE = FOLDER / "KTH-SP2-1996-2-raw.swf.gz"

pytestmark = pytest.mark.skipif(
    not TRACE.exists(), reason=f"no {TRACE.name} in {FOLDER} (FOFOCA_TRACES names the folder)"
)


@functools.cache
def summary(policy: str, clairvoyant: bool) -> Summary:
    trace = read_swf(TRACE, processors=100, strong=True)
    return summarise(replay_jobs(trace.workload, 100, policy, clairvoyant))


@pytest.mark.parametrize(
    ("policy", "clairvoyant", "slowdown"),
    [
        ("easy", False, "92.5765"),
        ("sjbf", False, "69.4054"),
        ("easy", True, "71.7224"),
        ("sjbf", True, "49.8477"),
        ("fcfs", False, "6814.9733"),
        ("conservative", False, "88.9973"),
    ],
)
def test_average_bounded_slowdown_is_the_published_one(policy: str, clairvoyant: bool, slowdown: str) -> None:
    result = summary(policy, clairvoyant)
    assert result.jobs == 28_481
    assert f"{result.avg_bounded_slowdown:.4f}" == slowdown


@pytest.mark.parametrize(
    ("policy", "wait"), [("fcfs", "353776.4091"), ("conservative", "7310.5512"), ("easy", "6836.8721")]
)
def test_mean_wait_is_the_published_one(policy: str, wait: str) -> None:
    assert f"{summary(policy, False).mean_wait_s:.4f}" == wait
