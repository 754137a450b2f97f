"""The data directory is made closed, stays closed, and is never somebody else's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from node.host.data_directory import DataDirectory
from node.host.errors import HostError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_preparing_makes_every_folder_and_twice_is_fine(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path / "var/fofoca")
    data.prepare()
    data.prepare()
    assert mode(data.images) == mode(data.run) == 0o700
    assert mode(data.root) == mode(data.containers) == 0o711, "mapped root must pass, nobody may list"


def test_preparing_closes_what_was_left_open(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    data.images.mkdir()
    data.images.chmod(0o777)
    tmp_path.chmod(0o755)
    data.prepare()
    assert mode(data.images) == 0o700
    assert mode(data.root) == 0o711


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(HostError, match="links are not followed"):
        DataDirectory(tmp_path / "link").prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(HostError, match="belongs to uid 12345"):
        DataDirectory(tmp_path).prepare()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="file/data"):
        DataDirectory(tmp_path / "file/data").prepare()
