"""Turns by name: one at a time, in the order of coming, and nothing is left behind."""

from __future__ import annotations

from math import inf

import trio
import trio.testing

from node.turns import Turns


async def test_tasks_take_turns_in_the_order_of_coming(autojump_clock: trio.testing.MockClock) -> None:
    turns, order, inside = Turns(), list[int](), list[int]()

    async def one(number: int) -> None:
        await trio.sleep(number / 10)
        async with turns.take("a"):
            inside.append(number)
            assert inside == [number]
            await trio.sleep(1)
            inside.remove(number)
            order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(one, number)
    assert order == [0, 1, 2, 3, 4]
    assert "a" not in turns


async def test_another_name_has_a_turn_of_its_own(autojump_clock: trio.testing.MockClock) -> None:
    turns = Turns()
    async with turns.take("a"):
        with trio.fail_after(1):
            async with turns.take("b"):
                assert "b" in turns
    assert "b" not in turns


async def test_who_waited_to_the_deadline_goes_on_and_takes_no_turn(
    autojump_clock: trio.testing.MockClock,
) -> None:
    turns, told = Turns(), list[str]()

    async def hold() -> None:
        async with turns.take("a"):
            await trio.sleep(10)
            told.append("held")

    async def late(deadline_s: float, name: str) -> None:
        async with turns.take("a", deadline_s):
            told.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(late, trio.current_time() + 1, "late")
        nursery.start_soon(late, inf, "patient")
    assert told == ["late", "held", "patient"]
    assert "a" not in turns


async def test_a_cancelled_waiter_leaves_nothing(autojump_clock: trio.testing.MockClock) -> None:
    turns = Turns()

    async def impatient() -> None:
        with trio.move_on_after(1):
            async with turns.take("a"):
                raise AssertionError("two at once")

    async with turns.take("a"), trio.open_nursery() as nursery:
        nursery.start_soon(impatient)
    assert "a" not in turns
