"""Directories are used again, and nothing of the container before shows through."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from node.runtime.directory import EXIT_BYTES_MAX, ContainerDirectory, all_directories
from node.runtime.process import ProcessRuntime
from node.runtime.protocol import ContainerSpec, Exit, SpecError
from node.runtime.spares import SPARES_MAX, Spares

LEFT = ("running", "changed", "stdout", "stdout.8192", "stderr", "lease", "stop", ".lease.new", "config")


def spec(name: str, word: str = "true") -> ContainerSpec:
    return ContainerSpec(name=name, argv=(word,))


def ended(root: Path, name: str, word: str = "true") -> ContainerDirectory:
    """A container that left behind all that one can."""
    directory = ContainerDirectory(root / name)
    directory.create(spec(name, word))
    directory.write_orders([("workdir", "/" * 500)])
    for left in LEFT:
        directory.write_once(left, b"started_unix_ms 5000\nchild 7\n")
    directory.write_once("supervisor", b"pid 1\nboot another\n")
    directory.write_exit(Exit(exit_code=3, started_unix_s=5.0, ended_unix_s=6.0))
    (directory.path / "fs" / "delta").mkdir(parents=True)
    return directory


def test_a_directory_that_is_used_again_shows_nothing_of_the_container_before(tmp_path: Path) -> None:
    spares = Spares(tmp_path)
    assert spares.give(ended(tmp_path, "1.0.1", "long" * 1000).path)
    assert all_directories(tmp_path) == []
    again = ContainerDirectory(tmp_path / "2.0.1")
    again.create(spec("2.0.1"), spares.take())
    again.write_orders([("workdir", "/")])
    assert again.spec() == spec("2.0.1")
    assert (again.path / "orders").read_text() == "workdir /\n"
    assert (again.path / ".exit").read_bytes() == b" " * EXIT_BYTES_MAX
    assert (again.exit(), again.started_unix_s(), again.supervisor_pid()) == (None, None, None)
    assert (again.had_supervisor(), again.of_this_boot(), again.is_locked()) == (False, True, False)
    assert {entry.name for entry in again.path.iterdir() if not entry.name.startswith(".")} == {"spec", "orders"}
    assert again.path.stat().st_mode & 0o777 == 0o711


def test_no_inode_is_freed_or_made_where_a_container_follows_another(tmp_path: Path) -> None:
    spares = Spares(tmp_path)
    former = ended(tmp_path, "1.0.1")
    inodes = {name: (former.path / name).stat().st_ino for name in ("spec", "orders", "exit", "supervisor", "running")}
    spares.give(former.path)
    again = ContainerDirectory(tmp_path / "2.0.1")
    again.create(spec("2.0.1"), spares.take())
    kept = {name: (again.path / name).stat().st_ino for name in ("spec", "orders", ".exit", ".supervisor", ".running")}
    assert list(kept.values()) == list(inodes.values())


def test_a_name_that_is_taken_stays_as_it_is_and_the_spare_serves_the_next(tmp_path: Path) -> None:
    runtime = ProcessRuntime(tmp_path, ("/bin/false",))
    root = tmp_path / "containers"
    ended(root, "1.0.1")
    runtime._prepare(spec("2.0.1"))
    runtime._clean_and_discard(ContainerDirectory(root / "2.0.1"))
    with pytest.raises(SpecError, match="no container here has"):
        runtime._prepare(spec("1.0.1"))
    assert getattr(ContainerDirectory(root / "1.0.1").exit(), "exit_code", None) == 3
    runtime._prepare(spec("3.0.1"))
    assert sorted(os.listdir(root)) == ["1.0.1", "3.0.1"]


def test_spares_are_bounded_and_those_of_a_former_agent_removed(tmp_path: Path) -> None:
    former = ProcessRuntime(tmp_path, ("/bin/false",))
    root = tmp_path / "containers"
    for number in range(SPARES_MAX + 3):
        former._prepare(spec(f"{number}.0.1"))
    for number in range(SPARES_MAX + 3):
        former._clean_and_discard(ContainerDirectory(root / f"{number}.0.1"))
    assert len(os.listdir(root)) == SPARES_MAX
    assert ProcessRuntime(tmp_path, ("/bin/false",))._recover() == []
    assert os.listdir(root) == []


def test_what_is_gone_already_makes_no_spare(tmp_path: Path) -> None:
    spares = Spares(tmp_path)
    assert spares.give(tmp_path / "1.0.1")
    assert spares.take() is None
