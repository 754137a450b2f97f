"""
docs/cli.md, written from the commands themselves: `python -m node.cli.manual` writes it anew, a test keeps it true.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from node.cli import find
from node.cli.program import COMMANDS, program

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"

INTRODUCTION = """# The command line

`fofoca COMMAND --help` says what this page says, `fofoca --version` which version it is.
The page is written from the commands by `python -m node.cli.manual`.

## Which cluster

{find}

## What scripts may rely on

Results go to stdout, everything else to stderr. `submit` prints the job's id alone; `--json` prints exactly one JSON
document. Amounts are written `250m` or `1.5` (cores), `64M` or `2G` (bytes, powers of 1024), `60s`, `5m` or `1h30m`.
An error is one line that begins with `fofoca:`, and an exit code:

| code | meaning |
|---|---|
| 0 | done; for `wait`: every task succeeded |
| 1 | `wait`: a task did not succeed; other commands: understood, but it could not be done |
| 2 | bad input: an unknown id, image or option, a value without sense, no agent reachable, not permitted |
| 70 | a bug of ours; `FOFOCA_DEBUG=1` shows where |
| 124 | `wait`: the time was over |
| 130 | interrupted |
| 141 | nobody read the output any more |

`run`, `exec` and `lab exec` end with the exit code of what they ran.
"""


def markdown() -> str:
    """The whole page."""
    parts = [INTRODUCTION.format(find=_paragraphs(find.__doc__ or ""))]
    section = ""
    for path, command in commands():
        its_section = COMMANDS[path.split()[0]][2]
        if its_section != section:
            section = its_section
            parts.append(f"## {section}\n")
        parts.append(_described(path, command))
    return "\n".join(parts)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that can be run, with its full path, in the order of the help."""
    yield from _below(program, ())


def _below(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _below(command, (*path, name))
        elif command is not None and not command.hidden:
            yield " ".join((*path, name)), command


def _described(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"fofoca {path}")
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"### `fofoca {path}`\n", f"    fofoca {path} {usage}\n", _text(command.help or ""), ""]
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    if options:
        lines += ["| option | meaning |", "|---|---|"]
        lines += [_option_row(option, context) for option in options]
        lines.append("")
    return "\n".join(lines)


def _option_row(option: click.Option, context: click.Context) -> str:
    names, text = option.get_help_record(context) or ("", "")
    cells = (f"`{names}`", " ".join(text.split()))
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _text(docstring: str) -> str:
    """A help text; what click was told to keep as it is becomes a code block."""
    return "\n\n".join(_block(block) for block in inspect.cleandoc(docstring).split("\n\n"))


def _block(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n")[1:]) if text.startswith("\b") else text


def _paragraphs(docstring: str) -> str:
    """A module's text without its title."""
    return inspect.cleandoc(docstring).split("\n\n", 1)[1]


if __name__ == "__main__":
    PAGE.write_text(markdown())
