"""`fofoca node check`: what this host lacks, what that means, and how to fix it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.cli import show
from node.cli.failures import TASK_FAILED

if TYPE_CHECKING:
    from node.host.readiness import Finding


@click.group(short_help="Look at this host.")
def node() -> None:
    """This host, seen as a node-to-be."""


@node.command("check", short_help="Say what this host lacks to run containers.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--all", "everything", is_flag=True, help="Print what is fine, too.")
@click.option("--config", "path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="Look at what this configuration of an agent needs besides: its etcd.")  # fmt: skip
def check(as_json: bool, everything: bool, path: Path | None) -> None:
    """Say what this host lacks to run containers well, what that means, and the command that fixes it. Looks, and
    changes nothing.

    An error keeps containers from running here, a warning bites sooner or later, a note is worth knowing. The exit code
    is 1 if there is an error.
    """
    from node.host import readiness, sysctls
    from node.host.host_view import HostView

    host = HostView()
    findings = [*readiness.look(host), *sysctls.look(host), *_etcd(path)]
    if as_json:
        show.print_json([asdict(each) for each in findings])
    else:
        _print(findings, everything)
    if readiness.worst(findings) is readiness.Severity.ERROR:
        raise click.exceptions.Exit(TASK_FAILED)


def _etcd(path: Path | None) -> Sequence[Finding]:
    """Look at each member of the etcd that a configuration names."""
    if path is None:
        return []
    from node import config

    settings = config.load(path).ledger
    if settings.kind != "etcd":
        return []
    import trio

    from node.ledger import etcd_advice, opening

    async def look() -> list[Finding]:
        found: list[Finding] = []
        for url in settings.etcd_urls:
            etcd = opening.gateway(replace(settings, etcd_urls=(url,)))
            try:
                found += [each async for each in etcd_advice.look(etcd, url)]
            finally:
                await etcd.close()
        return found

    return trio.run(look)


def _print(findings: Sequence[Finding], everything: bool) -> None:
    from node.host.readiness import Severity

    order = (Severity.ERROR, Severity.WARNING, Severity.NOTE, Severity.OK)
    for severity in order if everything else order[:-1]:
        for each in findings:
            if each.severity is severity:
                meaning = f"; {each.meaning}" if each.meaning else ""
                click.echo(f"{severity.value:8} {each.name}: {each.found}{meaning}")
                if each.fix:
                    click.echo(f"{'':8}   {each.fix}")
    counts = {severity: sum(each.severity is severity for each in findings) for severity in order}
    click.echo(", ".join(f"{count} {severity.value}" for severity, count in counts.items()))
