"""Gossip is told at a pace: the first at once, of many the last, and nothing is kept back for good."""

from __future__ import annotations

import trio

from node.pacing import INTERVAL_S, Paced


async def test_the_first_word_is_said_at_once_and_of_many_only_the_last_later(autojump_clock):
    said: list[tuple[str, bytes]] = []
    async with trio.open_nursery() as nursery:
        paced = Paced(lambda key, value: said.append((key, value)), nursery)
        for number in range(50):
            paced.publish("report", b"%d" % number)
            paced.publish("leads", b"x")
            await trio.sleep(INTERVAL_S / 100)
        assert said == [("report", b"0"), ("leads", b"x")]
        await trio.sleep(INTERVAL_S)
        assert sorted(said[2:]) == [("leads", b"x"), ("report", b"49")]
        await trio.sleep(3 * INTERVAL_S)
        paced.publish("report", b"again")
        assert said[4:] == [("report", b"again")]


async def test_a_change_a_tick_is_told_at_the_interval(autojump_clock):
    said: list[bytes] = []
    async with trio.open_nursery() as nursery:
        paced = Paced(lambda _, value: said.append(value), nursery)
        for number in range(1000):
            paced.publish("report", b"%d" % number)
            await trio.sleep(INTERVAL_S / 100)
    assert 9 <= len(said) <= 12
    assert said[-1] == b"999"
