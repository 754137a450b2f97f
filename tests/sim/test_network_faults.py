"""The simulated network: what arrives, what is lost, what is refused and how requests fail."""

from collections.abc import Hashable
from typing import Any

import pytest

from sim.kernel import Kernel
from sim.network import REFUSED, SILENT, UNREACHABLE, Link, Network


class Pair:
    """Two endpoints that note what reaches them; b answers requests."""

    def __init__(self, link: Link | None = None) -> None:
        self.kernel = Kernel(1)
        self.network = Network(self.kernel, link)
        self.got: list[tuple[Hashable, Any]] = []
        self.refused: list[Hashable] = []
        self.answers: list[Any] = []
        self.network.attach("a", on_refused=self.refused.append)
        self.network.attach("b", on_datagram=lambda *what: self.got.append(what), on_request=self.serve)
        self.mute = False

    def serve(self, source: Hashable, payload: Any, reply: Any) -> None:
        if not self.mute:
            reply(("answer", payload))

    def ask(self, timeout_s: float = 1.0) -> list[Any]:
        self.answers.clear()
        self.network.request("a", "b", "x", self.answers.append, self.answers.append, timeout_s=timeout_s)
        self.kernel.run_until(self.kernel.now + 2)
        return self.answers

    def send(self, count: int = 1) -> int:
        self.got.clear()
        for number in range(count):
            self.network.send("a", "b", number)
        self.kernel.run_until(self.kernel.now + 1)
        return len(self.got)


def test_a_healthy_link_delivers_all_within_its_delays() -> None:
    pair = Pair(Link(0.01, 0.02))
    pair.network.send("a", "b", "x")
    pair.kernel.run_until(0.0099)
    assert not pair.got
    pair.kernel.run_until(0.02)
    assert pair.got == [("a", "x")]


def test_loss_duplication_and_reordering_follow_their_probabilities() -> None:
    assert 600 < Pair(Link(loss=0.3)).send(1000) < 800
    assert 1200 < Pair(Link(duplicate=0.3)).send(1000) < 1400
    pair = Pair(Link(reorder=0.5))
    pair.send(100)
    assert [number for _, number in pair.got] != sorted(number for _, number in pair.got)


def test_a_closed_endpoint_is_refused_and_a_dead_host_is_silence() -> None:
    pair = Pair()
    pair.network.detach("b")
    assert pair.send() == 0
    assert pair.refused == ["b"]
    assert pair.ask() == [REFUSED]
    pair.network.set_host("b", up=False)
    assert pair.send() == 0
    assert pair.refused == ["b"]
    assert pair.ask() == [UNREACHABLE]


def test_a_request_is_answered_once_or_fails_once_with_its_reason() -> None:
    pair = Pair(Link(loss=0.2))
    for _ in range(50):
        assert pair.ask() in ([("answer", "x")], [SILENT], [UNREACHABLE])
    pair.network.set_default(Link())
    assert pair.ask() == [("answer", "x")]
    pair.mute = True
    assert pair.ask() == [SILENT]


def test_a_cut_works_one_way_and_takes_what_is_under_way() -> None:
    pair = Pair(Link(0.5, 0.5))
    pair.network.send("a", "b", "under way")
    pair.kernel.run_until(0.1)
    pair.network.cut("a", "b")
    pair.kernel.run_until(1)
    assert not pair.got
    assert pair.network.reachable("b", "a")
    pair.network.mend("a", "b")
    assert pair.send() == 1


def test_a_partition_parts_its_groups_only_and_heals() -> None:
    pair = Pair()
    pair.network.partition(["a"], ["b"])
    assert pair.send() == 0
    assert pair.ask() == [UNREACHABLE]
    assert pair.network.reachable("a", "in no group")
    pair.network.heal()
    assert pair.send() == 1


def test_a_link_of_its_own_overrides_the_default_in_one_direction() -> None:
    pair = Pair()
    pair.network.set_link("a", "b", Link(loss=1.0))
    assert pair.send(10) == 0
    pair.network.set_link("a", "b", None)
    assert pair.send(10) == 10


def test_a_cancelled_request_stays_quiet() -> None:
    pair = Pair()
    pair.network.request("a", "b", "x", pair.answers.append, pair.answers.append, timeout_s=1).cancel()
    pair.kernel.run_until(5)
    assert pair.answers == []


@pytest.mark.parametrize("wrong", [{"loss": 1.5}, {"delay_min_s": 2.0}, {"reorder": -0.1}])
def test_impossible_links_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must|probability"):
        Link(**wrong)
