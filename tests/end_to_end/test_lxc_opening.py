"""Opening a runtime: what is chosen, and what is said where it can't be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from node.runtime import UnavailableError, lxc_obstacles, open_runtime

needs_lxc = pytest.mark.skipif(bool(lxc_obstacles()), reason="; ".join(lxc_obstacles()))


async def test_plain_processes_work_for_everybody(tmp_path: Path) -> None:
    runtime = await open_runtime("process", tmp_path)
    assert runtime.name == "process"
    assert runtime.features == frozenset()


@pytest.mark.lxc
@needs_lxc
async def test_a_directory_that_mapped_users_may_not_pass_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o700)
    tmp_path.chmod(0o711)
    with pytest.raises(UnavailableError, match=r"chmod o\+x /"):
        await open_runtime("lxc", closed / "run", f"fofoca-test-{os.getpid()}")


async def test_what_stands_against_lxc_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert any("install the package lxc" in obstacle for obstacle in lxc_obstacles())
    with pytest.raises(UnavailableError, match="lxc-execute is not installed"):
        await open_runtime("lxc", tmp_path)
    assert (await open_runtime("auto", tmp_path)).name == "process"
