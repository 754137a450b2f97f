"""Gossip is told at a pace: the first at once, of many the last, and nothing is kept back for good."""

from __future__ import annotations

import pytest
import trio

from node.pacing import INTERVAL_S, REPORT_INTERVAL_S, Paced


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


@pytest.mark.parametrize(("key", "interval_s"), [("leader", INTERVAL_S), ("report", REPORT_INTERVAL_S)])
async def test_a_change_a_tick_is_told_at_the_interval_of_its_kind(autojump_clock, key, interval_s):
    said: list[bytes] = []
    async with trio.open_nursery() as nursery:
        paced = Paced(lambda _, value: said.append(value), nursery)
        for number in range(1000):
            paced.publish(key, b"%d" % number)
            await trio.sleep(interval_s / 100)
    assert 9 <= len(said) <= 12
    assert said[-1] == b"999"
