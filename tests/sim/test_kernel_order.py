"""The simulator's clock: order, cancelling, streams of randomness that don't disturb each other."""

from hypothesis import given
from hypothesis import strategies as st

from sim.kernel import Kernel


@given(st.lists(st.integers(0, 50), max_size=60))
def test_events_run_by_time_and_equal_times_by_order_of_scheduling(times: list[int]) -> None:
    kernel = Kernel(1)
    ran: list[tuple[int, int]] = []
    for number, time in enumerate(times):
        kernel.at(time, ran.append, (time, number))
    kernel.run_until(50)
    assert ran == sorted(ran)
    assert len(ran) == len(times)


def test_a_time_already_past_means_now() -> None:
    kernel = Kernel(1)
    seen: list[float] = []
    kernel.at(5, lambda: kernel.at(1, lambda: seen.append(kernel.now)))
    kernel.run_until(10)
    assert seen == [5]
    assert kernel.now == 10


def test_cancelled_events_do_not_run_and_do_not_pile_up() -> None:
    kernel = Kernel(1)
    ran: list[int] = []
    for number in range(50_000):
        handle = kernel.at(1000 + number, ran.append, number)
        if number != 7:
            handle.cancel()
            handle.cancel()
    assert len(kernel._heap) < 30_000
    kernel.run_until(1e6)
    assert ran == [7]
    handle.cancel()


def test_the_predicate_stops_after_the_event_that_makes_it_true() -> None:
    kernel = Kernel(1)
    ran: list[int] = []
    for number in range(5):
        kernel.at(number, ran.append, number)
    kernel.run_until(10, until=lambda: len(ran) == 3)
    assert (ran, kernel.now) == ([0, 1, 2], 2)
    assert kernel.next_time() == 3


def test_a_stream_depends_on_seed_and_id_alone() -> None:
    draws = [Kernel(1).random("node", "n1").random() for _ in range(2)]
    kernel = Kernel(1)
    kernel.random("someone else").random()
    assert draws == [kernel.random("node", "n1").random()] * 2
    assert len({draws[0], Kernel(2).random("node", "n1").random(), Kernel(1).random("node", "n2").random()}) == 3
