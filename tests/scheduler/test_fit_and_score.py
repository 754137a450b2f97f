"""One answer to "does it fit?", and scores in their range."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scheduler.fit import fits, shortages, unmet
from scheduler.model import Constraint, Operator, Resources
from scheduler.score import best_fit, draw, spread

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


@given(RESOURCES, RESOURCES)
def test_scores_of_what_fits_lie_between_0_and_1_and_mirror_each_other(request, free):
    if fits(request, free):
        permitted = free + Resources(1, 1)
        tight, roomy = best_fit(request, free, permitted), spread(request, free, permitted)
        assert -1e-9 <= tight <= 1 + 1e-9
        assert abs(tight + roomy - 1) < 1e-9


def test_best_fit_prefers_the_fuller_node_and_spread_the_emptier():
    request, permitted = Resources(10, 10), Resources(100, 100)
    full, empty = Resources(20, 20), Resources(90, 90)
    assert best_fit(request, full, permitted) > best_fit(request, empty, permitted)
    assert spread(request, full, permitted) < spread(request, empty, permitted)


def test_best_fit_keeps_extras_for_tasks_that_need_them():
    request = Resources(10, 10)
    plain, with_gpu = Resources(100, 100), Resources(100, 100, (("gpu", 2),))
    assert best_fit(request, plain, plain) > best_fit(request, with_gpu, with_gpu)


def test_constraints_compare_labels():
    labels = {"zone": "a", "ssd": ""}
    met = (Constraint("zone", Operator.IN, ("a", "b")), Constraint("ssd"), Constraint("rack", Operator.NOT_IN, ("r1",)))
    assert unmet(met, labels) is None
    excluded = Constraint("zone", Operator.NOT_IN, ("a",))
    assert unmet((*met, excluded), labels) == excluded
    assert unmet((Constraint("rack"),), labels) == Constraint("rack")


def test_draws_are_stable_and_spread_out():
    assert draw(1001, 3) == draw(1001, 3)
    assert len({draw(seed, number) % 1000 for seed in range(40) for number in range(40)}) > 700
