"""The placement engine finds what a look at every node would, whatever happened to the cluster before."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest

from scheduler import finder
from scheduler.finder import SHORT_LIST, Finder
from scheduler.fit import fits, unmet
from scheduler.images import locality
from scheduler.index import ClusterView, Membership, Node
from scheduler.model import Constraint, Operator, Report, Resources
from scheduler.score import POLICIES, mixed
from scheduler.shelves import FRACTION_BITS, least_of, shelf_of

SIZES = [
    Resources(8000, 16_384),
    Resources(16_000, 65_536),
    Resources(96_000, 393_216, (("fpga", 1), ("gpu", 4))),
    Resources(3000, 300_000, (("gpu", 8),)),
    Resources(7, 3),
]
WISHES = [
    Resources(1, 1),
    Resources(250, 30_000),
    Resources(4000, 512),
    Resources(9000, 8192),
    Resources(100, 100, (("gpu", 1),)),
    Resources(500, 100, (("fpga", 1), ("gpu", 2))),
]
CONSTRAINTS: list[tuple[Constraint, ...]] = [
    (),
    (Constraint("zone", Operator.IN, ("a",)),),
    (Constraint("zone", Operator.NOT_IN, ("a",)), Constraint("ssd")),
    (Constraint("nothing"),),
]
IMAGES = [(), (), (b"x",), (b"x", b"y")]


class Query(NamedTuple):
    request: Resources
    constraints: tuple[Constraint, ...]
    count: int
    seed: int
    images: tuple[bytes, ...]
    per_node: int
    avoid: frozenset[str]


def scan(policy: str, steps: int, view: ClusterView, query: Query) -> dict[str, int]:
    """Place one by one, looking at every node each time."""
    usable = [node for node in view.nodes() if node.usable]
    whole: dict[str, int] = {}
    for node in usable:
        for dimension, amount in node.permitted.items():
            if amount > 0:
                whole[dimension] = max(whole.get(dimension, 0), 1 << amount.bit_length())
    free = {node.name: node.free for node in usable if unmet(query.constraints, node.labels) is None}
    places: dict[str, int] = {}

    def key(node: Node) -> tuple[int, int]:
        room = free[node.name]
        if POLICIES[policy].emptiest:
            own = [room.get(name) * steps // most for name, most in node.permitted.items() if most > 0]
            level = -(sum(own) // len(own))
        else:
            total = sum(
                max(room.get(name), 0) * ((steps << FRACTION_BITS) // (most * len(whole)))
                for name, most in whole.items()
            )
            level = total >> FRACTION_BITS
        bonus = int(locality(query.images, node.images) * steps)
        return level - bonus, (mixed(node.number) - mixed(query.seed)) % (1 << 32)

    def shares(amount: Resources) -> tuple[float, ...]:
        return tuple(
            amount.get(name) / whole[name] for name in ("cpu", "memory", *sorted({*whole} - {"cpu", "memory"}))
        )

    for _ in range(query.count):
        found = [
            node
            for node in usable
            if node.name in free
            and fits(query.request, free[node.name])
            and node.name not in query.avoid
            and not (query.per_node and places.get(node.name, 0) >= query.per_node)
        ]
        if not found:
            break
        fine = POLICIES[policy].fine
        if fine is None:
            best = min(found, key=key)
        else:
            main = query.request.extra[0][0] if query.request.extra else "cpu"
            shelves: dict[int, list[Node]] = {}
            for node in found:
                shelves.setdefault(shelf_of(free[node.name].get(main)), []).append(node)
            short = [min(shelves[shelf], key=key) for shelf in sorted(shelves)][:SHORT_LIST]
            asked = shares(query.request)
            best = max(short, key=lambda node: int(fine(asked, shares(free[node.name])) * steps))
        places[best.name] = places.get(best.name, 0) + 1
        free[best.name] = free[best.name] - query.request
    return places


class Cluster:
    """Nodes that come, fill, empty, change and go, by one seed."""

    def __init__(self, seed: int, policy: str, per_mille: int) -> None:
        self.rng = random.Random(seed)
        self.view = ClusterView("n1", 1, POLICIES[policy], per_mille)
        self.sequence = 0
        self.claims: list[int] = []
        for number in range(1, 50):
            self.report(number)
            self.view.heard_of(f"n{number}", Membership.ALIVE, number)

    def report(self, number: int) -> None:
        rng, size = self.rng, self.rng.choice(SIZES)
        self.sequence += 1
        labels = (("zone", rng.choice("ab")), *((("ssd", ""),) if rng.random() < 0.5 else ()))
        busy = rng.random() if rng.random() < 0.8 else 0.0
        committed = Resources(int(size.cpu_milli * busy), int(size.memory_bytes * rng.random() * busy))
        self.view.hear(
            Report(
                f"n{number}",
                number,
                1,
                self.sequence,
                size,
                size,
                committed,
                labels=labels,
                accepting=rng.random() < 0.9,
            )
        )

    def step(self) -> None:
        rng, number = self.rng, self.rng.randrange(1, 60)
        match rng.randrange(6):
            case 0:
                self.report(number)
            case 1:
                state = rng.choice((Membership.ALIVE, Membership.ALIVE, Membership.FAILED, Membership.DOWN))
                self.view.heard_of(f"n{number}", state, number)
            case 2:
                self.view.forget(f"n{number}")
            case 3:
                self.view.hear_images(f"n{number}", frozenset(rng.sample((b"x", b"y", b"z"), rng.randrange(3))))
            case 4 if self.claims:
                self.view.release(self.claims.pop(rng.randrange(len(self.claims))))
            case _:
                self.sequence += 1
                self.claims.append(self.sequence)
                self.view.claim(self.sequence, f"n{number}", rng.choice(WISHES))

    def query(self) -> Query:
        rng = self.rng
        avoid = frozenset(f"n{number}" for number in rng.sample(range(1, 60), rng.choice((0, 0, 20))))
        return Query(
            rng.choice(WISHES), rng.choice(CONSTRAINTS), rng.choice((1, 1, 3, 40)), rng.randrange(5),
            rng.choice(IMAGES), rng.choice((0, 0, 1, 2)), avoid,
        )  # fmt: skip


@pytest.mark.parametrize("policy", [name for name, each in POLICIES.items() if not each.learns])
@pytest.mark.parametrize("per_mille", [0, 5, 100])
@pytest.mark.parametrize("seed", range(3))
def test_the_engine_finds_what_a_look_at_every_node_would(policy: str, per_mille: int, seed: int) -> None:
    cluster = Cluster(seed, policy, per_mille)
    steps = 1000 // per_mille if per_mille else 1_000_000
    for _ in range(120):
        for _ in range(cluster.rng.randrange(5)):
            cluster.step()
        query = cluster.query()
        found = cluster.view.place(
            query.request, query.constraints, query.count, query.seed, query.images,
            per_node=query.per_node, avoid=query.avoid,
        )  # fmt: skip
        assert found == scan(policy, steps, cluster.view, query), f"seed {seed}: {query}"


def test_what_changes_are_forgotten_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "CHANGES_MAX", 10)
    test_the_engine_finds_what_a_look_at_every_node_would("best-fit", 5, 1)


def test_a_roster_that_is_asked_often_is_never_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "CHANGES_MAX", 20)
    cluster = Cluster(1, "best-fit", 5)
    cluster.view.place(WISHES[0], (), 1, 0)
    (roster,) = cluster.view._finder._rosters.values()
    for key in range(100):
        cluster.view.claim(key, "n9", Resources(1, 1))
        cluster.view.place(WISHES[0], (), 1, 0)
        assert roster.seen >= cluster.view._finder._forgotten


@pytest.mark.parametrize("seed", range(3))
def test_the_nodes_that_can_take_a_task_are_those_that_a_scan_finds(seed: int) -> None:
    cluster = Cluster(seed, "best-fit", 5)
    for _ in range(100):
        cluster.step()
        query = cluster.query()
        able = {
            node.name
            for node in cluster.view.nodes()
            if node.usable and fits(query.request, node.free) and unmet(query.constraints, node.labels) is None
        }
        assert set(cluster.view.able(query.request, query.constraints)) == able, f"seed {seed}: {query}"


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_history_gives_the_same_places(policy: str) -> None:
    def places() -> list[dict[str, int]]:
        cluster = Cluster(7, policy, 5)
        found = []
        for _ in range(200):
            cluster.step()
            query = cluster.query()
            found.append(cluster.view.place(query.request, query.constraints, query.count, query.seed))
        return found

    assert places() == places()


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_is_placed_where_it_does_not_fit(policy: str) -> None:
    cluster = Cluster(3, policy, 0)
    for _ in range(300):
        cluster.step()
        query = cluster.query()
        for name, times in cluster.view.place(*query[:4]).items():
            node = cluster.view.get(name)
            assert node is not None
            assert node.usable
            assert fits(query.request * times, node.free)
            assert unmet(query.constraints, node.labels) is None


def test_the_best_nodes_are_in_the_order_of_place() -> None:
    cluster = Cluster(5, "best-fit", 5)
    request, avoid = Resources(1, 1), set[str]()
    for name in cluster.view.best(request, (), 9, count=5):
        assert list(cluster.view.place(request, (), 1, 9, avoid=avoid)) == [name]
        avoid.add(name)


def test_weights_say_which_dimension_counts() -> None:
    for weights, chosen in (({"cpu": 100}, "b"), ({"memory": 100}, "a")):
        engine = Finder(POLICIES["best-fit"], 1000, weights=weights)
        for name, room in (("a", Resources(900, 100)), ("b", Resources(100, 900))):
            report = Report(name, 1, 1, 1, Resources(1000, 1000), Resources(1000, 1000), Resources(1000, 1000) - room)
            node = Node(name, membership=Membership.ALIVE)
            node.take(report)
            engine.see(node)
        assert engine.place(Resources(10, 10), (), 1, 0) == {chosen: 1}


def test_shelves_are_in_order_and_know_their_least() -> None:
    shelves = [shelf_of(amount) for amount in range(-5, 5000)]
    assert shelves == sorted(shelves)
    for shelf in range(1, shelves[-1]):
        assert shelf_of(least_of(shelf)) == shelf
        assert shelf_of(least_of(shelf) - 1) == shelf - 1


def test_what_fitted_nowhere_is_found_once_room_grew() -> None:
    view = ClusterView("n1", 1, POLICIES["best-fit"], 5)
    view.hear(Report("n1", 1, 1, 1, SIZES[0], SIZES[0]))
    view.claim("a", "n1", Resources(7500, 10))
    assert view.place(Resources(1000, 10), (), 1, 0) == {}
    view.claim("b", "n1", Resources(100, 10))
    assert view.place(Resources(1000, 10), (), 1, 0) == {}
    view.release("a")
    assert view.place(Resources(1000, 10), (), 1, 0) == {"n1": 1}
