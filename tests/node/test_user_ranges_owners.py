"""Owners' ranges of user ids: apart, for good, never reused."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from node.host.errors import HostError
from node.host.user_ranges import RANGE_WIDTH, RangesExhausted, UserRanges


async def test_owners_never_share_an_id_and_keep_theirs_over_restarts(tmp_path: Path) -> None:
    ranges = UserRanges(tmp_path / "ranges.json", 100_000, 10)
    bases = {owner: await ranges.base(owner) for owner in ("ann", "bob", "cyd")}
    assert sorted(bases.values()) == [100_000 + slot * RANGE_WIDTH for slot in range(3)]
    again = UserRanges(tmp_path / "ranges.json", 100_000, 10)
    assert {owner: await again.base(owner) for owner in ("cyd", "bob", "ann")} == bases
    assert await again.base("dan") not in bases.values()


async def test_owners_who_come_at_once_are_parted(tmp_path: Path) -> None:
    ranges = UserRanges(tmp_path / "ranges.json", 100_000, 100)
    bases: dict[str, set[int]] = {}

    async def ask(owner: str) -> None:
        bases.setdefault(owner, set()).add(await ranges.base(owner))

    async with trio.open_nursery() as nursery:
        for index in range(40):
            nursery.start_soon(ask, f"owner{index % 20}")
    assert all(len(each) == 1 for each in bases.values())
    assert len({base for each in bases.values() for base in each}) == 20


async def test_an_owner_too_many_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    ranges = UserRanges(tmp_path / "ranges.json", 100_000, 1)
    base = await ranges.base("ann")
    with pytest.raises(RangesExhausted, match="all 1 ranges"):
        await ranges.base("bob")
    assert await ranges.base("ann") == base


async def test_a_range_that_could_not_be_written_down_is_not_given(tmp_path: Path) -> None:
    ranges = UserRanges(tmp_path / "missing" / "ranges.json", 100_000, 10)
    with pytest.raises(OSError):
        await ranges.base("ann")
    (tmp_path / "missing").mkdir()
    assert await ranges.base("bob") == 100_000


def test_a_damaged_file_is_named_rather_than_overwritten(tmp_path: Path) -> None:
    (tmp_path / "ranges.json").write_text("{")
    with pytest.raises(HostError, match="is damaged"):
        UserRanges(tmp_path / "ranges.json", 100_000, 10)
