"""Best fit among nodes of CPU and memory alone: what the grid remembers of former searches never changes an answer."""

from __future__ import annotations

import random

import pytest

from scheduler.finder import Finder
from scheduler.fit import fits
from scheduler.index import Membership, Node
from scheduler.model import Report, Resources
from scheduler.score import POLICIES

SIZES = [Resources(64, 64), Resources(64, 16), Resources(40, 60), Resources(17, 33)]
WISH_MAX = 40


def node_of(rng: random.Random, number: int) -> Node:
    """Return a node with something taken already."""
    size = rng.choice(SIZES)
    node = Node(f"n{number}", number, Membership.ALIVE)
    node.take(Report(node.name, number, 1, 1, size, size))
    node.free = Resources(rng.randint(-2, size.cpu_milli), rng.randint(-2, size.memory_bytes))
    return node


def best(finder: Finder, nodes: dict[str, Node], request: Resources, seed: int) -> str | None:
    """Look at every node."""
    able = [node for node in nodes.values() if fits(request, node.free)]
    return min(able, key=lambda node: finder.grade(request, node, seed)).name if able else None


@pytest.mark.parametrize("steps", [4, 20, 200])
@pytest.mark.parametrize("world", range(12))
def test_every_choice_is_that_of_a_look_at_all_nodes(world: int, steps: int):
    rng = random.Random(f"{world} {steps}")
    finder = Finder(POLICIES["best-fit"], steps)
    nodes = {node.name: node for node in (node_of(rng, number) for number in range(1, rng.choice((3, 30, 150))))}
    for node in nodes.values():
        finder.see(node)
    wishes = [Resources(rng.randint(0, WISH_MAX), rng.randint(0, WISH_MAX)) for _ in range(6)]
    running: list[tuple[Node, Resources]] = []
    for seed in range(300):
        request = rng.choice(wishes)
        found = next(iter(finder.place(request, (), 1, seed)), None)
        assert found == best(finder, nodes, request, seed), f"world {world}, steps {steps}, seed {seed}: {request}"
        if found is not None and rng.random() < 0.7:
            running.append((nodes[found], request))
            nodes[found].free = nodes[found].free - request
            finder.changed(nodes[found])
        if running and rng.random() < 0.5:
            node, amount = running.pop(rng.randrange(len(running)))
            node.free = node.free + amount
            finder.changed(node)
        if rng.random() < 0.02:
            node = rng.choice(list(nodes.values()))
            node.membership = Membership.ALIVE if node.membership is Membership.DOWN else Membership.DOWN
            if node.membership is Membership.DOWN:
                running = [pair for pair in running if pair[0] is not node]
                node.free = Resources()
            finder.see(node)


def test_many_equal_tasks_go_where_they_would_one_by_one():
    rng = random.Random(5)
    finder, one_by_one = Finder(POLICIES["best-fit"], 200), Finder(POLICIES["best-fit"], 200)
    nodes = {node.name: node for node in (node_of(rng, number) for number in range(1, 200))}
    for node in nodes.values():
        finder.see(node)
        one_by_one.see(node)
    for seed in range(50):
        request = Resources(rng.randint(1, 9), rng.randint(1, 9))
        places = finder.place(request, (), 20, seed)
        before = {name: node.free for name, node in nodes.items()}
        singly: dict[str, int] = {}
        for _ in range(20):
            for name in one_by_one.place(request, (), 1, seed):
                singly[name] = singly.get(name, 0) + 1
                nodes[name].free = nodes[name].free - request
                one_by_one.changed(nodes[name])
        assert places == singly, f"seed {seed}"
        for name, free in before.items():
            nodes[name].free = free
            one_by_one.changed(nodes[name])
