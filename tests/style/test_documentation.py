"""What the documents say is what the programs do."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click

from node.cli import manual
from node.cli.program import COMMANDS

ROOT = Path(__file__).parents[2]


def test_the_manual_of_the_command_line_is_the_command_lines_own() -> None:
    """`python -m node.cli.manual` writes docs/cli.md anew."""
    assert (ROOT / "docs" / "cli.md").read_text() == manual.markdown()


def test_every_command_and_option_is_in_the_manual() -> None:
    text = manual.markdown()
    for path, command in manual.commands():
        assert f"### `fofoca {path}`\n" in text
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert f"{parameter.opts[0]}" in text, (path, parameter.opts)


def test_the_readmes_commands_are_the_makefiles() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"^ +make ([a-z]+)\b", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= targets


def test_the_readmes_fofoca_commands_exist() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "operations.md"):
        for first in re.findall(r"^\s*(?:\$ )?(?:\.venv/bin/)?fofoca ([a-z]+)", page.read_text(), re.MULTILINE):
            assert first in COMMANDS, f"{page.name}: fofoca {first}"


def test_continuous_integration_runs_the_readmes_test_command() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_links_between_documents_lead_somewhere() -> None:
    wrong = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                wrong.append(f"{page.relative_to(ROOT)} -> {target}")
    assert not wrong


def test_the_changelog_knows_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_exit_codes_are_documented() -> None:
    from node.cli import failures

    text = (ROOT / "docs" / "cli.md").read_text()
    codes = {value for name, value in vars(failures).items() if name.isupper() and isinstance(value, int)}
    assert not [code for code in codes if f"| {code} |" not in text]
