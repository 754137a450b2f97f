"""Why this node, and which were the next best; and that asking again does not look at every node again."""

from __future__ import annotations

import pytest

from scheduler.index import ClusterView, Membership
from scheduler.model import Constraint, Report, Resources
from scheduler.score import POLICIES, WHY
from scheduler.survey import REMEMBERED_MAX, Surveys

SIZE, REQUEST = Resources(1000, 1000), Resources(100, 100)


def view_of(nodes: int, policy: str = "best-fit") -> ClusterView:
    view = ClusterView("n1", 1, POLICIES[policy], 5)
    for number in range(1, nodes + 1):
        busy = Resources(number % 10 * 100, number % 10 * 100)
        view.hear(Report(f"n{number}", number, 1, 1, SIZE, SIZE, busy))
        view.heard_of(f"n{number}", Membership.ALIVE, number)
    return view


@pytest.mark.parametrize("policy", POLICIES)
def test_the_next_best_are_others_that_have_room(policy: str):
    view = view_of(12, policy)
    (chosen,) = view.place(REQUEST, (), 1, 7)
    others = view.best(REQUEST, (), 7, count=2, avoid={chosen})
    assert len({chosen, *others}) == 3
    assert policy in WHY


def test_who_asks_again_gets_the_same_survey_until_one_node_in_a_hundred_changed():
    view = view_of(300)
    surveys = Surveys(view)
    first = surveys.of(REQUEST, ())
    assert (first.nodes, first.fitting) == (300, 300)
    for key in range(3):
        view.claim(key, "n9", Resources(30, 30))
        assert surveys.of(REQUEST, ()) is first
    view.claim(9, "n9", Resources(30, 30))
    assert surveys.of(REQUEST, ()).fitting == 299


def test_in_a_small_cluster_every_change_shows_at_once():
    view = view_of(9)
    surveys = Surveys(view)
    assert surveys.of(REQUEST, ()).fitting == 9
    view.claim("a", "n9", REQUEST)
    assert surveys.of(REQUEST, ()).fitting == 8
    view.release("a")
    assert surveys.of(REQUEST, ()).fitting == 9


def test_what_surveys_remember_is_bounded():
    surveys = Surveys(view_of(2))
    for each in range(REMEMBERED_MAX + 10):
        surveys.of(REQUEST, (Constraint(f"label{each}"),))
    assert len(surveys._known) <= REMEMBERED_MAX
