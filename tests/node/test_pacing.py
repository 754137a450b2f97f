"""Gossip is told at a pace: the first at once, of many the last, and nothing is kept back for good."""

from __future__ import annotations

import pytest
import trio

from node.pacing import INTERVAL_S, LOAD_INTERVAL_S, Paced
from scheduler import Scheduler, SchedulerConfig
from scheduler.events import Accepting, Measured, Publish
from scheduler.messages import REPORT_KEY
from scheduler.model import Resources


async def test_the_first_word_is_said_at_once_and_of_many_only_the_last_later(autojump_clock):
    said: list[tuple[str, bytes]] = []
    async with trio.open_nursery() as nursery:
        paced = Paced(lambda key, value: said.append((key, value)), nursery)
        for number in range(50):
            paced.publish("images", b"%d" % number)
            paced.publish("leader", b"x")
            await trio.sleep(INTERVAL_S / 100)
        assert said == [("images", b"0"), ("leader", b"x")]
        await trio.sleep(INTERVAL_S)
        assert sorted(said[2:]) == [("images", b"49"), ("leader", b"x")]
        await trio.sleep(3 * INTERVAL_S)
        paced.publish("images", b"again")
        assert said[4:] == [("images", b"again")]


@pytest.mark.parametrize(("load", "interval_s"), [(False, INTERVAL_S), (True, LOAD_INTERVAL_S)])
async def test_a_change_a_tick_is_told_at_the_interval_of_its_kind(autojump_clock, load, interval_s):
    said: list[bytes] = []
    async with trio.open_nursery() as nursery:
        paced = Paced(lambda _, value: said.append(value), nursery)
        for number in range(1000):
            paced.publish("report", b"%d" % number, load)
            await trio.sleep(interval_s / 100)
    assert 9 <= len(said) <= 12
    assert said[-1] == b"999"


async def test_what_changes_more_than_the_load_is_not_kept_back_behind_it(autojump_clock):
    said: list[tuple[float, bytes]] = []
    async with trio.open_nursery() as nursery:
        begin_s = trio.current_time()
        paced = Paced(lambda _, value: said.append((round(trio.current_time() - begin_s, 3), value)), nursery)
        paced.publish("report", b"first")
        paced.publish("report", b"fuller", True)
        paced.publish("report", b"takes nothing more")
        paced.publish("report", b"takes nothing more, fuller", True)
        await trio.sleep(INTERVAL_S + 0.5)
        paced.publish("report", b"takes more")
        paced.publish("report", b"takes more, fuller", True)
        await trio.sleep(3 * LOAD_INTERVAL_S)
    assert said == [
        (0, b"first"),
        (INTERVAL_S, b"takes nothing more, fuller"),
        (INTERVAL_S + 0.5, b"takes more"),
        (INTERVAL_S + 0.5 + LOAD_INTERVAL_S, b"takes more, fuller"),
    ]


def test_a_report_that_tells_of_load_alone_says_so():
    machine, size = Scheduler(SchedulerConfig(), "n1", 1, 1, 0), Resources(4000, 1 << 33)
    machine.restore(0.0, 0.0, {})
    said = [
        [
            each.load
            for each in machine.handle(now, event).actions
            if isinstance(each, Publish) and each.key == REPORT_KEY
        ]
        for now, event in (
            (1.0, Measured(size, size, Resources())),
            (2.0, Measured(size, size, Resources(3000, 1 << 32))),
            (3.0, Measured(size, size, Resources(3000, 1 << 32), labels=(("zone", "a"),))),
            (4.0, Accepting(False)),
        )
    ]
    assert said == [[False], [True], [False], [False]]
