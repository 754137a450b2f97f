"""`fofoca node check`: what this host lacks, and how to get it."""

from __future__ import annotations

from dataclasses import asdict

import click

from node.cli import show
from node.cli.failures import TASK_FAILED


@click.group(short_help="Look at this host.")
def node() -> None:
    """This host, seen as a node-to-be."""


@node.command("check", short_help="Say what this host lacks to run containers.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(as_json: bool) -> None:
    """Say what this host lacks to run containers, and how to get it. The exit code is 1 if something needed is
    missing.
    """
    from node.cli import readiness

    findings = readiness.findings()
    if as_json:
        show.print_json([asdict(each) for each in findings])
    else:
        rows = [[_word(each.ok, each.needed), each.what, each.advice] for each in findings]
        show.print_table(["", "WHAT", "ADVICE"], rows)
    if any(each.needed and not each.ok for each in findings):
        raise click.exceptions.Exit(TASK_FAILED)


def _word(ok: bool, needed: bool) -> str:
    return "ok" if ok else "missing" if needed else "lacks"
