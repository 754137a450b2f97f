"""The parts: suspicion time-outs, local health, rumour budgets, versioned state, the ring, settings."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import GossipConfig, InvalidConfig, InvalidState, wire
from cluster.config import ENTRY_BYTES_MAX, STATE_BYTES_MAX, STATE_KEYS_MAX
from cluster.dissemination import Spreader
from cluster.errors import IllegalTransition
from cluster.membership import TRANSITIONS, Entry, MemberTable
from cluster.state import Buckets, StateStore
from cluster.suspicion import LocalHealth, Suspicion, timeout_s
from cluster.wire import Status

CONFIG = GossipConfig()


def alive(name: str, boot: int = 1, incarnation: int = 0) -> wire.Alive:
    return wire.Alive(name, "10.0.0.1", 1 + hash(name) % 60000, boot, incarnation, name.encode().ljust(8)[:8], 1, 1)


# -- suspicion


@given(st.integers(2, 5000), st.booleans())
def test_confirmations_only_shorten_a_suspicion(members: int, silent: bool) -> None:
    times = [timeout_s(CONFIG, members, count, silent) for count in range(6)]
    assert times == sorted(times, reverse=True)
    assert min(times) >= CONFIG.suspicion_min_s
    assert timeout_s(CONFIG, members, 1, silent=True) >= timeout_s(CONFIG, members, 1, silent=False)


def test_enough_confirmations_bring_the_shortest_time_and_a_silent_host_a_longer_one() -> None:
    assert timeout_s(CONFIG, 30, CONFIG.suspicion_confirmations, silent=False) == CONFIG.suspicion_min_s
    assert timeout_s(CONFIG, 30, 0, silent=False) == CONFIG.suspicion_min_s * CONFIG.suspicion_max_factor
    assert timeout_s(CONFIG, 30, 3, silent=True) == CONFIG.suspicion_min_s * CONFIG.silent_factor


def test_memberlists_rules_give_memberlists_times() -> None:
    config = GossipConfig.memberlist_like()
    assert timeout_s(config, 1000, 2, silent=True) == pytest.approx(4 * 3)
    assert timeout_s(config, 100, 0, silent=False) == pytest.approx(6 * 4 * 2)
    assert config.retransmissions(60) == 8


def test_an_accuser_counts_once() -> None:
    suspicion = Suspicion(0.0, "a", silent=False)
    assert not suspicion.confirm("a", False, 3)
    assert suspicion.confirm("b", False, 3)
    assert not suspicion.confirm("b", False, 3)
    assert suspicion.confirm("b", True, 3), "that the host answers is news even from the same accuser"
    assert suspicion.confirmations == 1


@given(st.lists(st.integers(-5, 20)))
def test_health_stays_within_its_bounds(steps: list[int]) -> None:
    health = LocalHealth(8)
    for step in steps:
        health.change(step)
        assert 0 <= health.score <= 8


# -- rumours


@given(st.integers(1, 12), st.lists(st.integers(0, 20), max_size=200))
def test_a_rumour_is_sent_its_budget_at_most_and_never_twice_to_a_peer(budget: int, peers: list[int]) -> None:
    spreader = Spreader()
    spreader.add("x", b"rumour", told_by="p0")
    told: list[int] = []
    for peer in peers:
        if spreader.take(f"p{peer}", 100, budget):
            told.append(peer)
    assert len(told) == len(set(told)) == min(budget, len(set(peers) - {0}))
    assert 0 not in told


def test_the_least_told_goes_first_and_a_newer_rumour_replaces_the_older() -> None:
    spreader = Spreader()
    spreader.add("a", b"aaaa1")
    spreader.take("p", 100, 9)
    spreader.add("b", b"bbbb1")
    assert spreader.take("q", 5, 9) == [b"bbbb1"]
    spreader.add("a", b"aaaa2")
    assert spreader.take("r", 5, 9) == [b"aaaa2"]
    assert len(spreader) == 2


@given(st.lists(st.integers(1, 60), min_size=1, max_size=300), st.integers(0, 500))
def test_a_packet_never_holds_more_than_its_room(sizes: list[int], room: int) -> None:
    spreader = Spreader()
    for number, size in enumerate(sizes):
        spreader.add(number, bytes(size))
    assert sum(map(len, spreader.take("p", room, 3))) <= room


# -- state

writes = st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.binary(max_size=9)), min_size=1, max_size=12)


@given(writes, st.randoms(use_true_random=False))
def test_replicas_agree_whatever_the_order_and_repetition_of_deltas(
    changes: list[tuple[str, bytes | None]], rng: random.Random
) -> None:
    owner, replica = StateStore(), StateStore()
    entries = [entry for key, value in changes if (entry := owner.write("n", 1, key, value)) is not None]
    deltas = [*entries, *rng.sample(entries, len(entries) // 2)]
    rng.shuffle(deltas)
    for entry in deltas:
        replica.merge("n", 1, (entry,))
    assert replica.values("n") == owner.values("n")
    assert replica.digest("n") == owner.digest("n")


def test_a_newer_boot_replaces_and_an_older_one_is_ignored() -> None:
    store = StateStore()
    store.merge("n", 2, (wire.Entry("k", 9, b"new"),))
    assert store.merge("n", 1, (wire.Entry("k", 99, b"old"),)) == []
    assert store.values("n") == {"k": b"new"}
    store.merge("n", 3, (wire.Entry("j", 1, b"newest"),))
    assert store.values("n") == {"j": b"newest"}


def test_a_node_can_not_say_more_than_its_bound() -> None:
    store = StateStore()
    full = b"x" * (ENTRY_BYTES_MAX - 1)
    for number in range(STATE_BYTES_MAX // ENTRY_BYTES_MAX):
        store.write("n", 1, "klm"[number], full)
    digest = store.digest("n")
    for key, value in (("k", full + b"x"), ("j", b"x"), ("", b""), ("k" * 33, b"")):
        with pytest.raises(InvalidState):
            store.write("n", 1, key, value)
    assert store.digest("n") == digest
    for number in range(STATE_KEYS_MAX + 5):
        store.merge("m", 1, (wire.Entry(f"k{number}", 1, bytes(900)),))
    assert sum(map(len, store.values("m").values())) <= 2 * STATE_BYTES_MAX


@given(st.dictionaries(st.integers(0, 2**32 - 1), st.integers(1, 2**63 - 1), max_size=40), st.integers(0, 8))
def test_buckets_show_exactly_where_tables_differ(digests: dict[int, int], power: int) -> None:
    one, two = Buckets(), Buckets()
    for number, digest in digests.items():
        one.put(number, 1)
        one.put(number, digest)
        two.put(number, digest)
    assert one.root == two.root
    assert one.fold(2**power) == two.fold(2**power)
    two.put(77, 5)
    differing = {index for index in range(2**power) if one.fold(2**power)[index] != two.fold(2**power)[index]}
    assert differing == ({77 % 2**power} if digests.get(77) != 5 else set())


# -- the table


def test_a_row_changes_only_as_the_table_of_states_says() -> None:
    for old in Status:
        for new in Status:
            table = MemberTable("me")
            entry = Entry(alive("n"), old, 0.0)
            table.put(entry)
            if old == new or (old, new) in TRANSITIONS:
                table.change(entry, new, 1.0)
            else:
                with pytest.raises(IllegalTransition):
                    table.change(entry, new, 1.0, alive("n", 2))
                assert (entry.status, entry.alive.boot_epoch, entry.since_s) == (old, 1, 0.0)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(Status)), max_size=60), st.randoms(use_true_random=False))
def test_draws_and_ring_see_exactly_the_live(steps: list[tuple[int, Status]], rng: random.Random) -> None:
    table = MemberTable("me")
    for number, status in steps:
        entry = table.get(f"n{number}")
        if entry is None:
            table.put(Entry(alive(f"n{number}"), status, 0.0))
        elif status == Status.LEFT and entry.status != Status.ALIVE:
            table.forget(entry)
        elif (entry.status, status) in TRANSITIONS:
            table.change(entry, status, 0.0)
    live = {entry.name for entry in table if entry.live}
    assert {entry.name for entry in table.live} == live
    assert {entry.name for entry in table.draw(rng, 20)} == live
    drawn = [entry.name for entry in table.draw(rng, 3)]
    assert len(drawn) == len(set(drawn)) == min(3, len(live))
    assert set(table.failed) == {entry.name for entry in table if entry.status == Status.FAILED}
    targets = table.ring_targets(2)
    assert sum(entry.live for entry in targets) == min(1, len(live))


# -- settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"probe_interval_s": 0.0},
        {"probe_timeout_s": 0.6},
        {"suspicion_min_s": float("nan")},
        {"suspicion_min_s": 0.5},
        {"silent_factor": 0.5},
        {"spread_fanout": 0},
        {"rejoin_min_s": 99.0},
        {"protocol_min": 3, "protocol_max": 2},
        {"indirect_probes": -1},
    ],
)
def test_settings_that_contradict_each_other_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidConfig):
        GossipConfig(**wrong)  # type: ignore[arg-type]


def test_a_rumours_budget_never_exceeds_memberlists() -> None:
    for members in (1, 5, 10, 30, 60, 100, 1000, 5000):
        assert CONFIG.retransmissions(members) <= GossipConfig.memberlist_like().retransmissions(members)
