"""
The `fofoca` command.

    program.py    the table of commands, and what happens with errors: one line, an exit code
    find.py       which cluster is meant, and how to reach it
    show.py       tables, amounts and JSON on a terminal or in a pipe
    commands/     one module a command or family, imported only when it is used

A command that is polled by scripts must start fast, so that modules at this level import only the standard library and
click, and heavy ones (rich, trio, the agent) are imported inside the commands that need them.
"""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    from node.cli.program import run

    run()
