"""The fragmentation measure against its definition."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.fragmentation import Fragmentation, Kind

KINDS = st.builds(
    lambda weight, cpu, need: Kind(weight, cpu, *need),
    st.integers(1, 9),
    st.sampled_from([0, 1000, 4000, 16_000]),
    st.sampled_from([(0, 0), (1, 100), (1, 500), (1, 510), (1, 1000), (2, 1000), (4, 1000), (8, 1000)]),
)


def defined(mix: list[Kind], cpu_milli: int, devices: list[int]) -> float:
    """The paper's words: everything where a task cannot run or wants no GPU, else the devices too small for it."""
    total = 0.0
    for kind in mix:
        enough = [free for free in devices if free >= kind.gpu_milli]
        runs = kind.gpus > 0 and kind.cpu_milli <= cpu_milli and len(enough) >= kind.gpus
        unusable = sum(free for free in devices if free < kind.gpu_milli) if runs else sum(devices)
        total += kind.weight * unusable
    return total / sum(kind.weight for kind in mix)


@given(
    mix=st.lists(KINDS, min_size=1, max_size=8),
    cpu_milli=st.integers(0, 20_000),
    devices=st.lists(st.sampled_from([0, 90, 100, 499, 500, 505, 999, 1000]), max_size=8),
)
def test_the_measure_is_the_one_defined(mix: list[Kind], cpu_milli: int, devices: list[int]) -> None:
    assert Fragmentation(mix).measure(cpu_milli, devices) == pytest.approx(defined(mix, cpu_milli, devices))


@pytest.mark.parametrize("seed", range(3))
def test_it_lies_between_nothing_and_all_that_is_free(seed: int) -> None:
    rng = random.Random(seed)
    mix = Fragmentation([Kind(1, 1000, 1, 500), Kind(1, 1000, 2, 1000)])
    for _ in range(200):
        devices = [rng.randrange(1001) for _ in range(rng.randrange(9))]
        assert -1e-9 <= mix.measure(rng.randrange(3000), devices) <= sum(devices) + 1e-9, f"seed {seed}"


def test_a_mix_of_nothing_finds_everything_unusable() -> None:
    assert Fragmentation([]).measure(1000, [1000, 500]) == 1500
