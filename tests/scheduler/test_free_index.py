"""The index finds what a look at every node would."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from scheduler.buckets import FreeIndex, bucket_of, least_of

SHAPES = ((8000, 16_384), (16_000, 65_536), (96_000, 393_216), (7, 3))


def share(request: tuple[int, int], free: tuple[int, int], whole: tuple[int, int]) -> Fraction:
    return sum((Fraction(f - r, w) for r, f, w in zip(request, free, whole, strict=True)), Fraction(0))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shapes", [1, 4])
def test_the_index_agrees_with_a_look_at_every_node(seed: int, shapes: int) -> None:
    rng = random.Random(seed)
    index, whole, free, held = FreeIndex(), {}, {}, []
    for node in range(120):
        whole[node] = free[node] = rng.choice(SHAPES[:shapes])
        index.add(node, *whole[node])
    for _ in range(1500):
        if held and rng.random() < 0.45:
            node, cpu, memory = held.pop(rng.randrange(len(held)))
            free[node] = (free[node][0] + cpu, free[node][1] + memory)
            index.change(node, cpu, memory)
            continue
        wanted = (rng.choice((1, 3, 250, 1000, 4000, 9000)), rng.choice((0, 1, 512, 1000, 8192, 30_000)))
        fits = [node for node in free if free[node][0] >= wanted[0] and free[node][1] >= wanted[1]]
        rated = [(share(wanted, free[node], whole[node]), node) for node in fits]
        tightest, emptiest = index.best_fit(*wanted), index.spread(*wanted)
        assert (tightest and tightest.node) == (min(rated)[1] if rated else None), f"seed {seed}"
        most = max(rated, key=lambda each: (each[0], -each[1]))[1] if rated else None
        assert (emptiest and emptiest.node) == most, f"seed {seed}"
        if tightest is not None:
            assert Fraction(tightest.left, tightest.whole) == min(rated)[0]
            node = rng.choice((tightest.node, most))
            held.append((node, *wanted))
            free[node] = (free[node][0] - wanted[0], free[node][1] - wanted[1])
            index.change(node, -wanted[0], -wanted[1])
            assert index.free(node) == free[node]


def test_a_node_that_left_is_never_found() -> None:
    index = FreeIndex()
    index.add(1, 100, 100)
    index.add(2, 100, 100)
    index.remove(1)
    assert len(index) == 1
    assert index.best_fit(50, 50) == (2, 10_000, 10_000)
    index.add(2, 40, 40)
    assert index.best_fit(50, 50) is None
    with pytest.raises(KeyError):
        index.remove(1)


def test_buckets_are_in_order_and_know_their_least() -> None:
    places = [bucket_of(cpu) for cpu in range(5000)]
    assert places == sorted(places)
    for place in range(places[-1]):
        assert bucket_of(least_of(place)) == place
        assert place == 0 or bucket_of(least_of(place) - 1) == place - 1
