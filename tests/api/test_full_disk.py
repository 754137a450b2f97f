"""No space left is an answer of its own: 507, whoever found out."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pytest

from node.api.problems import from_error
from node.disk_room import DiskRoom
from node.errors import DiskFull
from node.host.errors import NoSpace
from node.ledger.spare import STEP_BYTES, Spare


@pytest.mark.parametrize(
    "error", [DiskFull("full"), NoSpace("image: full"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))]
)
def test_no_space_left_is_told_as_such(error: Exception) -> None:
    answer = from_error(error)
    document = msgspec.json.decode(bytes(answer.body))
    assert (answer.status_code, document["type"]) == (507, "urn:fofoca:problem:disk-full")
    assert "full" in document["detail"]


def test_below_the_reserve_nothing_new_is_taken(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert DiskRoom(tmp_path, free // 2, spare(tmp_path)).check()
    full = DiskRoom(tmp_path, free * 2, spare(tmp_path))
    assert not full.check()
    with pytest.raises(DiskFull, match="reserve_disk_bytes"):
        full.require()


def test_a_disk_without_inodes_is_full_with_room_left(tmp_path: Path) -> None:
    def told(files: int, free_files: int) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, 1 << 30, 1 << 30, 1 << 30, files, free_files, free_files, 0, 255))

    full = DiskRoom(tmp_path, 1 << 20, spare(tmp_path), lambda _: told(100_000, 17))
    assert not full.check()
    with pytest.raises(DiskFull, match="17 inodes free"):
        full.require()
    assert DiskRoom(tmp_path, 1 << 20, spare(tmp_path), lambda _: told(0, 0)).check(), "some don't count them"


def test_as_long_as_the_ledger_lives_on_its_spare_room_nothing_new_is_taken(tmp_path: Path) -> None:
    set_aside = spare(tmp_path)
    room = DiskRoom(tmp_path, 0, set_aside)
    assert room.check()
    set_aside.give()
    with pytest.raises(DiskFull):
        room.require()
    assert room.check()
    room.require()


def spare(folder: Path) -> Spare:
    return Spare(folder / "spare", 2 * STEP_BYTES)
