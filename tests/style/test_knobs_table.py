"""docs/knobs.md names everything a job can ask of a container, and no test or option that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from node.cli import manual
from scheduler.model import JobSpec
from scheduler.spec.files import Files
from scheduler.spec.life import Life
from scheduler.spec.limits import Limits
from scheduler.spec.networking import Networking
from scheduler.spec.security import Security

ROOT = Path(__file__).parents[2]
TABLES = (ROOT / "docs" / "knobs.md").read_text()
ROWS = [line for line in TABLES.splitlines() if line.startswith("|") and "---" not in line and "| knob |" not in line]
PROOF = re.compile(r"`(test_\w+)::(test_\w+)`")


def test_every_field_of_a_container_is_in_the_tables() -> None:
    parts = {"limits": Limits, "networking": Networking, "files": Files, "security": Security, "life": Life}
    for name, part in parts.items():
        assert {each.name: each.type for each in msgspec.structs.fields(JobSpec)}[name] is part
        missing = [each.name for each in msgspec.structs.fields(part) if f"`{name}.{each.name}`" not in TABLES]
        assert not missing, f"{name}: {missing}"


def test_every_row_names_a_test_that_is_there() -> None:
    files = {path.stem: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    for row in ROWS:
        named = PROOF.findall(row)
        assert named, row
        assert not [f"{file}::{test}" for file, test in named if f"def {test}(" not in files.get(file, "")], row


def test_every_option_named_is_one_of_submit() -> None:
    options = {
        name for path, command in manual.commands() if path == "submit" for each in command.params for name in each.opts
    }
    assert not [name for name in re.findall(r"`(--[a-z0-9-]+)", TABLES) if name not in options]
