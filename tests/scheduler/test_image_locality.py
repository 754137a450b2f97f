"""Placement prefers nodes that have the image, and never waits for one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scheduler.images import HELD_MAX, PREFIX_BYTES, WEIGHT, decode, encode, locality, prefix, wanted
from scheduler.index import ClusterView, Membership
from scheduler.model import Report, Resources
from scheduler.score import POLICIES

digests = st.integers(0, 2**256 - 1).map(lambda number: f"sha256:{number:064x}")
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def view(*, free_milli: dict[str, int], images: dict[str, list[str]]) -> ClusterView:
    found = ClusterView("n1", 1, POLICIES["best-fit"], 10)
    for number, (name, milli) in enumerate(free_milli.items(), 1):
        found.heard_of(name, Membership.ALIVE, number)
        most = Resources(1000, 1 << 30)
        committed = Resources(1000 - milli, 0)
        found.hear(Report(name, number, 1, 1, most, most, committed))
        found.hear_images(name, decode(encode(images.get(name, []))))
    return found


def placed(cluster: ClusterView, image: str, count: int = 1) -> dict[str, int]:
    return cluster.place(Resources(100, 1 << 20), (), count, 7, wanted(image))


@given(st.lists(digests, max_size=200))
def test_what_a_node_says_fits_a_kilobyte_and_names_the_first_images(held: list[str]) -> None:
    value = encode(held)
    assert len(value) <= 1024
    assert decode(value) == {prefix(digest) for digest in held[:HELD_MAX]}


@given(st.binary(max_size=4096))
def test_whatever_another_node_says_is_bounded(value: bytes) -> None:
    held = decode(value)
    assert len(held) <= HELD_MAX
    assert all(len(each) == PREFIX_BYTES for each in held)


@given(st.lists(digests, max_size=8), st.lists(digests, max_size=8))
def test_the_term_stays_in_its_range_and_counts_the_share(need: list[str], held: list[str]) -> None:
    worth = locality(wanted(";".join(need)), decode(encode(held)))
    assert 0 <= worth <= WEIGHT
    assert worth == WEIGHT or not need or set(map(prefix, need)) - set(map(prefix, held))


def test_of_equal_nodes_the_one_with_the_image_is_taken() -> None:
    for holder in ("n1", "n2", "n3"):
        cluster = view(free_milli=dict.fromkeys(("n1", "n2", "n3"), 800), images={holder: [A]})
        assert placed(cluster, A) == {holder: 1}


def test_of_a_stack_more_is_better() -> None:
    cluster = view(free_milli=dict.fromkeys(("n1", "n2"), 800), images={"n1": [A], "n2": [A, B]})
    assert placed(cluster, f"{A};{B}") == {"n2": 1}


def test_a_much_better_node_is_taken_without_the_image_and_a_full_one_is_no_reason_to_wait() -> None:
    assert placed(view(free_milli={"n1": 900, "n2": 200}, images={"n1": [A]}), A) == {"n2": 1}
    assert placed(view(free_milli={"n1": 50, "n2": 900}, images={"n1": [A]}), A) == {"n2": 1}
    assert sum(placed(view(free_milli={"n1": 300, "n2": 900}, images={"n1": [A]}), A, 10).values()) == 10


def test_a_job_without_an_image_is_placed_as_ever() -> None:
    plain = view(free_milli={"n1": 500, "n2": 400}, images={})
    holding = view(free_milli={"n1": 500, "n2": 400}, images={"n1": [A]})
    assert placed(plain, "", 5) == placed(holding, "", 5)
