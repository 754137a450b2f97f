"""The outermost frame: one clear line, the right exit code, never a traceback."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import pytest

from node.cli.program import COMMANDS, program
from node.errors import AgentUnreachable, ApiProblem
from node.versions import UNKNOWN, version


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.append(((*path, name), command))
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name: str) -> None:
    module, attribute, _, short_help = COMMANDS[name]
    command = getattr(importlib.import_module(f"node.cli.commands.{module}"), attribute)
    assert command.name == name
    assert command.short_help == short_help


def test_every_command_and_option_has_a_help() -> None:
    for path, command in commands(program):
        assert command.help, path
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (path, parameter.name)


def test_help_names_every_command(fofoca: Callable[..., Any]) -> None:
    result = fofoca("--help")
    assert result.code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in result.out


@pytest.mark.parametrize("group", ["lab", "image", "token", "sim"])
def test_a_group_alone_shows_its_help(fofoca: Callable[..., Any], group: str) -> None:
    result = fofoca(group)
    assert (result.code, result.err) == (0, "")
    assert "Commands:" in result.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["frobnicate"], "frobnicate"),
        (["submit"], "no command to run"),
        (["submit", "--memory", "64Q", "--", "true"], "64Q"),
        (["submit", "--cpu", "-1", "--", "true"], "cpu"),
        (["submit", "--env", "NOVALUE", "--", "true"], "NOVALUE"),
        (["submit", "--time", "soon", "--", "true"], "soon"),
        (["job", "abc"], "abc"),
        (["job", "0"], "0"),
        (["wait"], "ID"),
        (["wait", "1001", "--timeout", "x"], "timeout"),
        (["jobs", "--node-api", "ftp://nowhere"], "ftp://nowhere"),
        (["token", "create", "--user", "x", "--key", "/nonexistent"], "/nonexistent"),
        (["agent", "--config", "/nonexistent.toml"], "/nonexistent.toml"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(fofoca: Callable[..., Any], words: list[str], said: str) -> None:
    result = fofoca(*words)
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert line.startswith("fofoca: ")
    assert said in line
    assert result.out == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AgentUnreachable("http://10.0.0.1:8642", "connection refused"), 2),
        (ApiProblem(404, {"title": "unknown job", "detail": "no job 1001\nsecond line"}), 2),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
        (ZeroDivisionError("oops"), 70),
    ],
)
def test_every_error_ends_as_one_line(fofoca: Callable[..., Any], agent: Any, error: BaseException, code: int) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    agent.get = fail
    result = fofoca("job", "1001")
    assert result.code == code
    assert len(result.err.splitlines()) == (0 if code == 141 else 1)
    assert "Traceback" not in result.err


def test_a_bug_shows_its_place_on_request(
    fofoca: Callable[..., Any], agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.prepare("GET", "/v1/jobs/1", ZeroDivisionError("oops"))
    monkeypatch.setenv("FOFOCA_DEBUG", "1")
    from node.cli.program import run

    with pytest.raises(ZeroDivisionError):
        run(["job", "1"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_that_shell(fofoca: Callable[..., Any], shell: str) -> None:
    result = fofoca("completion", shell)
    assert result.code == 0
    assert f"_FOFOCA_COMPLETE={shell}_complete" in result.out


@pytest.mark.parametrize("asked", ["version", "--version"])
def test_version_is_the_distributions(fofoca: Callable[..., Any], asked: str) -> None:
    result = fofoca(asked)
    assert (result.code, result.out) == (0, f"fofoca {metadata.version('fofoca')}\n")


def test_a_checkout_that_is_not_installed_says_its_version(
    fofoca: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unknown(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", unknown)
    checkout = Path(__file__).parents[2] / "pyproject.toml"
    assert fofoca("--version").out == f"fofoca {tomllib.loads(checkout.read_text())['project']['version']}\n"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\nversion = "7"\n')
    assert version(tmp_path / "pyproject.toml") == version(tmp_path / "missing") == UNKNOWN
