"""Node numbers are unique, small and kept."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from scheduler.numbers import Claim, choose, home_number


def claim(node: str, number: int, *, boot_epoch: int = 1, unsettled: bool = True) -> Claim:
    return Claim(unsettled, boot_epoch, node, number)


def test_the_first_node_takes_number_one() -> None:
    assert choose(claim("a", 0), {}) == 1


def test_a_newcomer_takes_the_smallest_free_number() -> None:
    assert choose(claim("c", 0), {"a": claim("a", 1), "b": claim("b", 3)}) == 2


def test_of_two_equal_claims_the_earlier_boot_keeps_it() -> None:
    early, late = claim("b", 1, boot_epoch=10), claim("a", 1, boot_epoch=11)
    assert choose(early, {"a": late}) == 1
    assert choose(late, {"b": early}) == 2


def test_a_settled_claim_beats_an_earlier_boot() -> None:
    settled = claim("z", 1, boot_epoch=99, unsettled=False)
    assert choose(settled, {"a": claim("a", 1, boot_epoch=1)}) == 1


def test_a_job_id_names_its_home() -> None:
    assert home_number(12_007) == 7


@given(st.integers(0, 2**32))
def test_nodes_that_start_at_once_end_with_different_numbers(seed: int) -> None:
    rng = random.Random(seed)
    claims = {f"n{i}": claim(f"n{i}", 0, boot_epoch=rng.randrange(3)) for i in range(8)}
    for _ in range(16):
        for name in rng.sample(sorted(claims), len(claims)):
            mine = claims[name]
            claims[name] = claim(name, choose(mine, claims), boot_epoch=mine.boot_epoch)
    numbers = [held.number for held in claims.values()]
    assert sorted(numbers) == list(range(1, 9)), f"seed {seed}: {numbers}"
