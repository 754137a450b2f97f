"""What an image's name means: the newest word wins, whoever hears it in whatever order; a removal is a word too."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from node import image_names
from node.host.errors import HostError
from node.image_names import VERSION_MAX, ImageNames, NamedImage, decode, encode

DIGESTS = ["sha256:" + letter * 64 for letter in "abc"]

entries = st.builds(
    NamedImage,
    name=st.sampled_from(["busybox:latest", "web:1", "web:2"]),
    digest=st.sampled_from(["", *DIGESTS]),
    version=st.integers(0, 20),
)


def fresh() -> ImageNames:
    return ImageNames(Path(tempfile.gettempdir()) / "fofoca-no-such-file")


def meaning(names: ImageNames) -> set[tuple[str, str, int]]:
    return {(entry.name, entry.digest, entry.version) for entry in names.entries()}


@given(st.lists(entries, max_size=12).flatmap(lambda some: st.tuples(st.just(some), st.permutations(some))))
def test_the_newest_wins_in_any_order_of_hearing(both: tuple[list[NamedImage], list[NamedImage]]) -> None:
    heard, otherwise = both
    all_at_once, one_by_one = fresh(), fresh()
    all_at_once.merge(heard)
    for entry in otherwise:
        one_by_one.merge([entry])
    assert meaning(all_at_once) == meaning(one_by_one)
    for name in {entry.name for entry in heard}:
        newest = max((entry for entry in heard if entry.name == name), key=lambda entry: (entry.version, entry.digest))
        assert all_at_once.digest(name) == (newest.digest or None)


@given(st.lists(entries, max_size=12), st.lists(entries, max_size=12))
def test_two_nodes_that_exchanged_names_agree_and_repeating_it_changes_nothing(
    one: list[NamedImage], other: list[NamedImage]
) -> None:
    first, second = fresh(), fresh()
    first.merge(one)
    second.merge(other)
    second.merge(decode(encode(first.entries())))
    first.merge(decode(encode(second.entries())))
    assert meaning(first) == meaning(second)
    assert first.merge(second.entries()) == []


def test_a_removed_name_stays_removed_when_old_news_arrive() -> None:
    names = fresh()
    given_ = names.give("busybox:latest", DIGESTS[0], 10, 1000)
    names.give("busybox:latest", "", 0, 2000)
    assert names.merge([given_]) == []
    assert names.digest("busybox:latest") is None


def test_a_name_given_by_a_node_whose_clock_is_behind_still_wins() -> None:
    names = fresh()
    names.give("busybox:latest", DIGESTS[0], 10, 5000)
    assert names.give("busybox:latest", DIGESTS[1], 10, 3).version == 5001
    assert names.digest("busybox:latest") == DIGESTS[1]


def test_tombstones_go_before_names_and_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_names, "NAMES_MAX", 3)
    names = fresh()
    for version, (name, digest) in enumerate([("a:1", DIGESTS[0]), ("b:1", ""), ("c:1", ""), ("d:1", DIGESTS[1])]):
        names.merge([NamedImage(name, digest, version)])
    assert {entry.name for entry in names.entries()} == {"a:1", "c:1", "d:1"}


@pytest.mark.parametrize(
    "entry",
    [
        NamedImage("no tag", DIGESTS[0], 1),
        NamedImage("busybox", DIGESTS[0], 1),
        NamedImage("../etc:1", DIGESTS[0], 1),
        NamedImage("busybox:1", "sha256:short", 1),
        NamedImage("busybox:1", DIGESTS[0], -1),
        NamedImage("busybox:1", DIGESTS[0], VERSION_MAX + 1),
    ],
)
def test_what_no_node_would_say_is_not_taken_over(entry: NamedImage) -> None:
    sound = NamedImage("sound:1", DIGESTS[0], 1)
    assert decode(encode([entry, sound])) == [sound]


async def test_names_survive_a_restart_once_they_are_kept(tmp_path: Path) -> None:
    names = ImageNames(tmp_path / "names")
    names.give("busybox:latest", DIGESTS[0], 10, 1)
    assert ImageNames(tmp_path / "names").entries() == []
    async with trio.open_nursery() as nursery:
        for index in range(20):
            names.give(f"web:{index}", DIGESTS[1], 10, index)
            nursery.start_soon(names.keep)
    assert meaning(ImageNames(tmp_path / "names")) == meaning(names)


async def test_names_that_could_not_be_kept_are_kept_the_next_time(tmp_path: Path) -> None:
    names = ImageNames(tmp_path / "missing" / "names")
    names.give("busybox:latest", DIGESTS[0], 10, 1)
    with pytest.raises(OSError):
        await names.keep()
    (tmp_path / "missing").mkdir()
    await names.keep()
    assert ImageNames(tmp_path / "missing" / "names").digest("busybox:latest") == DIGESTS[0]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(b"\xc1 rubbish")
    with pytest.raises(HostError, match="names is damaged"):
        ImageNames(tmp_path / "names")
