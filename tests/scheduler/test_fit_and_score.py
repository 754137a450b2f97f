"""One answer to "does it fit?", and scores in their range."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scheduler.fit import fits, shortages, unmet
from scheduler.model import Constraint, Operator, Resources
from scheduler.score import POLICIES, balance, cosine, dot_product, mixed, norm

AMOUNTS = st.integers(0, 50)
EXTRAS = st.dictionaries(st.sampled_from(["gpu", "licence"]), AMOUNTS).map(lambda found: tuple(sorted(found.items())))
RESOURCES = st.builds(Resources, AMOUNTS, AMOUNTS, EXTRAS)


@given(RESOURCES, RESOURCES)
def test_what_fits_leaves_no_dimension_negative(request, free):
    left = free - request
    assert fits(request, free) == all(amount >= 0 for _, amount in left.items() if request.get(_) > 0)


@given(RESOURCES, RESOURCES)
def test_a_shortage_names_the_dimension_and_both_amounts(request, free):
    for short in shortages(request, free):
        assert short.need == request.get(short.dimension) > short.free == free.get(short.dimension)


@given(RESOURCES, RESOURCES, RESOURCES)
def test_amounts_add_up_in_every_dimension(one, two, three):
    assert (one + two) + three == one + (two + three)
    assert all(((one + two) - two).get(name) == amount for name, amount in one.items())
    assert (one * 3) == one + one + one


def test_an_extra_that_a_node_lacks_is_short():
    (short,) = shortages(Resources(1, 1, (("gpu", 1),)), Resources(10, 10))
    assert (short.dimension, short.need, short.free) == ("gpu", 1, 0)


def test_a_request_of_nothing_fits_even_where_more_is_committed_than_permitted():
    assert fits(Resources(0, 5), Resources(-3, 5))


SHARES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8)


@given(SHARES)
def test_scores_of_what_fits_lie_between_0_and_1(pairs):
    asked, free = tuple(min(pair) for pair in pairs), tuple(max(pair) for pair in pairs)
    for policy in POLICIES.values():
        if policy.fine is not None:
            assert -1e-9 <= policy.fine(asked, free) <= 1 + 1e-9, policy.name


def test_each_score_prefers_what_it_says():
    small, even, lopsided = (0.1, 0.1), (0.3, 0.3), (0.2, 0.4)
    assert balance(small, even) > balance(small, lopsided)
    assert norm(small, even) > norm(small, lopsided)
    assert dot_product(small, (0.5, 0.5)) > dot_product(small, even)
    assert cosine((0.1, 0.2), lopsided) > cosine((0.1, 0.2), even)


def test_constraints_compare_labels():
    labels = {"zone": "a", "ssd": ""}
    met = (Constraint("zone", Operator.IN, ("a", "b")), Constraint("ssd"), Constraint("rack", Operator.NOT_IN, ("r1",)))
    assert unmet(met, labels) is None
    excluded = Constraint("zone", Operator.NOT_IN, ("a",))
    assert unmet((*met, excluded), labels) == excluded
    assert unmet((Constraint("rack"),), labels) == Constraint("rack")


def test_numbers_are_mixed_well():
    assert len({mixed(number) % 1000 for number in range(2000)}) > 700
    assert all(0 <= mixed(number) < 1 << 32 for number in range(100))
