"""A long run over many fault worlds is kept line by line, and goes on where it stopped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).parents[2] / "tools" / "soak"


def soak(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SOAK, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_a_soak_goes_on_where_it_stopped(tmp_path: Path) -> None:
    file = tmp_path / "soak.jsonl"
    first = soak("--seeds", "2", "--file", str(file))
    assert first.returncode == 0, first.stderr
    before = file.read_text()
    file.write_text(before + '{"run": {"se')
    second = soak("--seeds", "3", "--file", str(file))
    assert second.stdout == "3 worlds from seed 0 on: none broke a promise\n", second.stderr
    assert file.read_text().startswith(before)
    assert len(file.read_text().splitlines()) == 3


def test_a_broken_seed_in_the_file_is_told_with_the_command_that_shrinks_it(tmp_path: Path) -> None:
    file = tmp_path / "soak.jsonl"
    file.write_text(
        '{"run":{"seed":7,"gossip":false},"figures":{"broken":["everything ends: job 3"],"again":"fofoca sim world"}}\n'
    )
    result = soak("--seeds", "1", "--from", "7", "--file", str(file))
    assert result.returncode == 1
    assert "fofoca sim world --shrink\n  everything ends: job 3" in result.stdout


def test_a_file_of_something_else_is_not_written_over(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("my notes\n")
    result = soak("--seeds", "1", "--file", str(file))
    assert result.returncode == 2
    assert "is no line of a sweep" in result.stderr
    assert file.read_text() == "my notes\n"
