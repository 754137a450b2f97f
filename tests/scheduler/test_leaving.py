"""Which gangs the leader waits for, and how long."""

from __future__ import annotations

from scheduler.leaving import GIVEN_UP_MAX, Leaving
from scheduler.messages import Parting


def test_a_gang_is_waited_for_until_all_its_members_were_heard_of():
    leaving = Leaving(0.1)
    assert not leaving.waits(0.0)
    for index in (0, 1, 1):
        leaving.hear(0.01 * index, Parting(7, index, 3))
        assert leaving.waits(0.02)
    leaving.hear(0.03, Parting(7, 2, 3))
    assert not leaving.waits(0.03)


def test_who_does_not_leave_in_time_is_waited_for_once():
    leaving = Leaving(0.1)
    leaving.hear(5.0, Parting(7, 0, 3))
    assert leaving.waits(5.09)
    assert not leaving.waits(5.1)
    leaving.hear(6.0, Parting(7, 1, 3))
    assert not leaving.waits(6.0)
    leaving.hear(6.0, Parting(8, 0, 3))
    assert leaving.waits(6.0)


def test_when_most_have_left_the_rest_is_waited_for_longer_but_not_for_ever():
    leaving = Leaving(0.1)
    for index in range(3):
        leaving.hear(0.0, Parting(7, index, 4))
    leaving.hear(0.0, Parting(8, 0, 4))
    assert leaving.waits(0.1)
    leaving.hear(0.2, Parting(8, 1, 4))
    assert leaving.waits(0.39)
    assert not leaving.waits(0.4)
    leaving.hear(0.5, Parting(7, 3, 4))
    assert not leaving.waits(0.5)


def test_two_gangs_do_not_make_the_wait_longer():
    leaving = Leaving(0.1)
    leaving.hear(0.0, Parting(7, 0, 3))
    leaving.hear(0.09, Parting(8, 0, 3))
    assert leaving.until_s == 0.1
    assert not leaving.waits(0.1)


def test_what_is_remembered_of_those_given_up_has_a_bound():
    leaving = Leaving(0.1)
    for job in range(GIVEN_UP_MAX + 1):
        leaving.hear(float(job), Parting(job, 0, 3))
        leaving.waits(job + 0.5)
    now = float(GIVEN_UP_MAX + 1)
    leaving.hear(now, Parting(GIVEN_UP_MAX, 1, 3))
    assert not leaving.waits(now)
    leaving.hear(now, Parting(0, 1, 3))
    assert leaving.waits(now)
