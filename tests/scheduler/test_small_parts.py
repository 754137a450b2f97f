"""The parts that all machines lean on: alarms, repetition, ranks, settings, specs, and the codec."""

from __future__ import annotations

import contextlib
import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.errors import BadMessage, InvalidSpec
from scheduler.messages import ITEMS_MAX, Admit, Declined, Gone, Item, Stop, decode, decode_leads, decode_report, encode
from scheduler.model import AllocationId, ArrayRange, Constraint, JobSpec, Operator, Resources
from scheduler.queue import rank
from scheduler.repeat import Repeat
from scheduler.validate import validate

MIB = 1 << 20
SPEC = JobSpec("job", ("true",), Resources(100, MIB))

# --- alarms


@given(st.lists(st.tuples(st.integers(0, 4), st.one_of(st.none(), st.integers(0, 20))), max_size=60))
def test_alarms_ring_in_the_order_of_their_newest_times(steps):
    alarms, model = Alarms(), {}
    for name, at in steps:
        if at is None:
            alarms.cancel(("kind", name))
            model.pop(name, None)
        else:
            alarms.set(("kind", name), at)
            model[name] = at
    assert alarms.next() == (min(model.values()) if model else None)
    rung = []
    while (key := alarms.pop_due(100, alarms.mark)) is not None:
        rung.append(model.pop(key[1]))
    assert rung == sorted(rung)
    assert not model


def test_an_alarm_that_sets_itself_for_at_once_traps_nobody():
    alarms = Alarms()
    alarms.set(("a", None), 1.0)
    mark = alarms.mark
    assert alarms.pop_due(1.0, mark) == ("a", None)
    alarms.set(("a", None), 1.0)
    assert alarms.pop_due(1.0, mark) is None
    assert alarms.next() == 1.0


def test_moving_an_alarm_a_million_times_costs_no_memory():
    alarms = Alarms()
    for at in range(20_000):
        alarms.set(("a", None), float(at))
    assert len(alarms._heap) < 200


# --- repetition


class Speaker:
    """A Repeat, its clock, and what it said."""

    def __init__(self, window: int = 1000) -> None:
        self.config = SchedulerConfig(window=window, retry_s=1.0, retry_max_s=8.0)
        self.alarms = Alarms()
        self.reachable = True
        self.said: list[tuple[float, list[int]]] = []
        self.repeat: Repeat[int] = Repeat("words", self.config, self.alarms, lambda _: self.reachable, self.speak)
        self.now = 0.0

    def speak(self, fx: Effects, peer: str, keys: list[int]) -> None:
        self.said.append((fx.now, keys))

    def flush(self) -> None:
        self.repeat.flush(Effects(self.now))

    def run_to(self, end_s: float) -> None:
        while (due := self.alarms.next()) is not None and due <= end_s:
            self.now = due
            self.alarms.pop_due(due, self.alarms.mark)
            self.repeat.ring(Effects(due), "n2")
            self.flush()
        self.now = end_s


def test_what_is_unanswered_is_repeated_with_growing_pauses_up_to_a_bound():
    speaker = Speaker()
    speaker.repeat.say("n2", 1)
    speaker.flush()
    speaker.run_to(60)
    times = [at for at, _ in speaker.said]
    pauses = [late - early for early, late in itertools.pairwise(times)]
    assert pauses == sorted(pauses)
    assert max(pauses) == 8.0
    assert len(times) > 5


def test_what_was_answered_is_not_repeated_and_a_steady_stream_of_answers_delays_nothing():
    speaker = Speaker()
    speaker.repeat.say("n2", 0)
    for key in range(1, 50):
        speaker.repeat.say("n2", key)
        speaker.flush()
        speaker.run_to(speaker.now + 0.2)
        speaker.repeat.answered("n2", key)
        speaker.flush()
    assert [keys for _, keys in speaker.said].count([0]) >= 2
    assert sum(len(keys) for _, keys in speaker.said) < 80


def test_no_more_than_the_window_is_under_way_and_answers_let_the_rest_go():
    speaker = Speaker(window=3)
    for key in range(7):
        speaker.repeat.say("n2", key)
    speaker.flush()
    assert speaker.said == [(0.0, [0, 1, 2])]
    speaker.repeat.answered("n2", 1)
    speaker.flush()
    assert speaker.said[-1] == (0.0, [3])
    assert speaker.repeat.waiting("n2") == 6


def test_a_peer_out_of_reach_is_not_spoken_to_until_it_is_back():
    speaker = Speaker()
    speaker.reachable = False
    speaker.repeat.say("n2", 1)
    speaker.flush()
    speaker.run_to(100)
    assert speaker.said == []
    speaker.reachable = True
    speaker.repeat.back("n2")
    speaker.flush()
    assert speaker.said == [(100, [1])]


# --- order


def test_ranks_put_priority_first_then_age_then_the_id():
    ranks = [rank(0, 5.0, 1002), rank(1, 9.0, 1003), rank(0, 4.0, 1004), rank(0, 4.0, 1001)]
    assert [each.job for each in sorted(ranks)] == [1003, 1001, 1004, 1002]


# --- settings


def test_every_setting_has_a_text_and_a_default_within_its_bounds():
    for field in SchedulerConfig.__dataclass_fields__.values():
        assert len(field.metadata["text"]) > 20, field.name
        if "low" in field.metadata:
            assert field.metadata["low"] <= field.default <= field.metadata["high"], field.name


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": "random"},
        {"retry_s": 0},
        {"retry_s": 10.0, "retry_max_s": 5.0},
        {"lost_grace_s": 700.0},
        {"restart_s": 400.0},
        {"message_bytes_max": 131_072, "spec_bytes_max": 100_000},
        {"cpu_ratio_permille": "1500"},
        {"window": 0},
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(wrong):
    with pytest.raises(InvalidSpec) as caught:
        SchedulerConfig(**wrong)
    assert caught.value.field in {*wrong, "retry_max_s", "left_grace_s", "restart_max_s"}


# --- specs


@pytest.mark.parametrize(
    ("facts", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "../etc"}, "name"),
        ({"argv": ()}, "argv"),
        ({"argv": ("a\0b",)}, "argv"),
        ({"request": Resources(0, MIB)}, "cpu"),
        ({"request": Resources(1, MIB - 1)}, "memory"),
        ({"request": Resources(1, MIB, (("gpu", 0),))}, "extra gpu"),
        ({"request": Resources(1, MIB, (("b", 1), ("a", 1)))}, "extra"),
        ({"limit": Resources(50, 0)}, "limit of cpu"),
        ({"env": (("A=B", "c"),)}, "env"),
        ({"array": ArrayRange(5, 4)}, "array"),
        ({"array": ArrayRange(0, 9, 0)}, "array"),
        ({"array": ArrayRange(0, 1_000_000)}, "array"),
        ({"priority": 1 << 40}, "priority"),
        ({"attempts_max": 0}, "attempts_max"),
        ({"time_limit_s": 0.0}, "time_limit_s"),
        ({"time_limit_s": float("nan")}, "time_limit_s"),
        ({"stop_grace_s": -1.0}, "stop_grace_s"),
        ({"constraints": (Constraint("zone", Operator.IN),)}, "constraint on zone"),
        ({"argv": ("x" * 70_000,)}, "spec"),
    ],
)
def test_a_bad_spec_is_refused_by_the_name_of_its_field(facts, field):
    with pytest.raises(InvalidSpec) as caught:
        validate(msgspec.structs.replace(SPEC, **facts))
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


def test_more_than_any_node_has_is_a_good_spec():
    validate(msgspec.structs.replace(SPEC, request=Resources(1_000_000, 1 << 50), array=ArrayRange(0, 999_999, 1, 7)))


# --- the codec

IDS = st.builds(AllocationId, st.integers(0, 1 << 40), st.integers(0, 1 << 30), st.integers(1, 1 << 20))
ITEMS = st.one_of(
    st.builds(Stop, IDS, st.text(max_size=20)),
    st.builds(Gone, st.lists(IDS, max_size=5).map(tuple)),
    st.builds(Declined, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
    st.just(Admit(1001, "user", SPEC, ((0, 1),), 1)),
)


@given(st.lists(ITEMS, max_size=30), st.integers(100, 2000))
def test_what_is_encoded_comes_back_in_order_within_the_size(items, size_max):
    messages = list(encode(items, size_max))
    assert [item for message in messages for item in decode(message, 1 << 20)] == items
    assert all(len(message) <= size_max or len(decode(message, 1 << 20)) == 1 for message in messages)


@given(st.binary(max_size=200))
def test_foreign_bytes_raise_only_the_declared_error(noise):
    for read in (lambda: decode(noise, 1 << 20), lambda: decode_leads(noise), lambda: decode_report(noise)):
        with contextlib.suppress(BadMessage):
            read()


@given(st.lists(ITEMS, min_size=1, max_size=5), st.data())
def test_damaged_messages_raise_only_the_declared_error(items, data):
    (message,) = encode(items, 1 << 20)
    position = data.draw(st.integers(0, len(message) - 1))
    damaged = message[:position] + bytes([data.draw(st.integers(0, 255))]) + message[position + 1 :]
    with contextlib.suppress(BadMessage):
        assert all(isinstance(item, Item) for item in decode(damaged, 1 << 20))


def test_messages_have_bounds():
    with pytest.raises(BadMessage, match="at most"):
        decode(b"x" * 100, 99)
    too_many = msgspec.msgpack.encode([Declined(1, 1, 1)] * (ITEMS_MAX + 1))
    with pytest.raises(BadMessage):
        decode(too_many, 1 << 20)
    too_long = msgspec.msgpack.encode([Gone((AllocationId(1, 1, 1),) * 1001)])
    with pytest.raises(BadMessage):
        decode(too_long, 1 << 20)
    assert len(list(encode([Declined(1, 1, 1)] * (ITEMS_MAX + 1), 1 << 20))) == 2
