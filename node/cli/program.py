"""
The table of commands and the outermost frame: every error ends as one clear line on stderr and an exit code.

The short helps stand here and not in the commands' modules, so that `fofoca --help` imports none of them; a test keeps
both the same.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from node.cli import failures
from node.cli.failures import Failure
from node.errors import NodeError

# name: (module below node.cli.commands, attribute, section of the help, short help)
COMMANDS: dict[str, tuple[str, str, str, str]] = {
    "submit": ("submit", "submit", "Jobs", "Submit a job; print its id."),
    "run": ("run", "run", "Jobs", "Run a job and stay with it."),
    "wait": ("wait", "wait", "Jobs", "Wait until jobs have ended."),
    "logs": ("logs", "logs", "Jobs", "Print what a job's tasks wrote."),
    "job": ("jobs", "job", "Jobs", "Show one job and its tasks."),
    "jobs": ("jobs", "jobs", "Jobs", "List the cluster's jobs."),
    "explain": ("jobs", "explain", "Jobs", "Say why a job waits, or why it runs where it runs."),
    "update": ("update", "update", "Jobs", "Change the limits of what runs."),
    "cancel": ("jobs", "cancel", "Jobs", "Cancel jobs, running tasks included."),
    "queue": ("queue", "queue", "Jobs", "Show the line of waiting jobs."),
    "history": ("history", "history", "Jobs", "Write what has ended, as CSV or SWF."),
    "usage": ("queue", "usage", "Jobs", "Say who used what."),
    "hold": ("steer", "hold", "Jobs", "Keep jobs from starting."),
    "release": ("steer", "release", "Jobs", "Let held jobs start."),
    "requeue": ("steer", "requeue", "Jobs", "Stop what runs of jobs, and line it up again."),
    "exec": ("exec", "execute", "Jobs", "Run a command inside a running task."),
    "cp": ("cp", "cp", "Jobs", "Copy files into a running task, or out of it."),
    "freeze": ("freeze", "freeze", "Jobs", "Stop running tasks where they are, memory kept."),
    "thaw": ("freeze", "thaw", "Jobs", "Let frozen tasks go on."),
    "site": ("site", "site", "Sites", "List, show, wake, end and remove sites."),
    "app": ("app", "app", "Sites", "List, show and check applications of sites."),
    "nodes": ("nodes", "nodes", "Cluster", "Show the nodes and how full they are."),
    "members": ("nodes", "members", "Cluster", "Show the members as one node's gossip sees them."),
    "image": ("image", "image", "Cluster", "Import, list, export and remove images."),
    "top": ("queue", "top", "Operation", "Watch nodes, queue and jobs."),
    "settings": ("settings", "settings", "Operation", "Partitions, accounts, users, licences, reservations, tiers."),
    "reserve": ("settings", "reserve", "Operation", "Keep nodes for some users and a time."),
    "cordon": ("steer", "cordon", "Operation", "Have nodes take nothing new."),
    "uncordon": ("steer", "uncordon", "Operation", "Have nodes take tasks again."),
    "drain": ("steer", "drain", "Operation", "Empty nodes."),
    "agent": ("agent", "agent", "Operation", "Run this host's agent."),
    "node": ("check", "node", "Operation", "Look at this host."),
    "keys": ("access", "keys", "Operation", "Make, list and change the cluster's keys."),
    "token": ("access", "token", "Operation", "Make tokens for users."),
    "lab": ("lab", "lab", "Trying things out", "Run a cluster of many nodes on this machine."),
    "sim": ("sim", "sim", "Trying things out", "Simulate clusters in virtual time."),
    "completion": ("shell", "completion", "Other", "Print a shell's completion script."),
    "version": ("shell", "version", "Other", "Print the version."),
}


class LazyGroup(click.Group):
    """Finds commands in COMMANDS and imports a command's module when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"node.cli.commands.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, (_, _, section, text) in COMMANDS.items():
            sections.setdefault(section, []).append((name, text))
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl(rows, col_max=12)


def _print_version(context: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        from node.versions import version

        print(f"fofoca {version()}")
        context.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Print the version."
)
def program() -> None:
    """A cluster scheduler without a master: submit to any node, run in LXC containers on the node that fits best.

    The cluster is found by --node-api URL, FOFOCA_API (and FOFOCA_TOKEN), a running lab, or
    ~/.config/fofoca/config.toml, in this order; FOFOCA_CA_FILE names whom to trust by https://.
    """


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    if "_FOFOCA_COMPLETE" in os.environ:
        program.main(prog_name="fofoca")
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _guarded(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads on; the interpreter's own flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = failures.PIPE_CLOSED
    sys.exit(code)


def _guarded(words: list[str]) -> int:
    if os.environ.get("FOFOCA_DEBUG"):
        return _invoke(words)
    try:
        return _invoke(words)
    except (BrokenPipeError, SystemExit):
        raise
    except (KeyboardInterrupt, click.Abort):
        return _say("interrupted", failures.INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return failures.DONE
    except click.UsageError as error:
        return _usage(error)
    except click.ClickException as error:
        return _say(error.format_message(), failures.BAD_INPUT)
    except Failure as error:
        return _say(str(error), error.code, error.details)
    except NodeError as error:
        return _say(str(error), failures.BAD_INPUT)
    except Exception as error:  # noqa: BLE001 - the last frame: a bug becomes one line too
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return _say(f"unexpected error: {text} (FOFOCA_DEBUG=1 shows where)", failures.BUG)


def _invoke(words: list[str]) -> int:
    if not words:
        words = ["--help"]
    try:
        with program.make_context("fofoca", words) as context:
            program.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return failures.DONE


def _usage(error: click.UsageError) -> int:
    path = error.ctx.command_path if error.ctx else "fofoca"
    return _say(f"{error.format_message().rstrip('.')}; see `{path} --help`", failures.BAD_INPUT)


def _say(message: str, code: int, details: Sequence[str] = ()) -> int:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    print("fofoca: " + " ".join(message.split()), *details, sep="\n  ", file=sys.stderr)
    return code
