"""`fofoca lab`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.cli import find, show
from node.cli.failures import BAD_INPUT, TASK_FAILED, Failure
from node.quantities import parse_cpu, parse_size

if TYPE_CHECKING:
    from node.lab.record import Lab, LabNode

NODES_MAX = 200
OVERCOMMIT_MAX = 10.0


@click.group(short_help="Run a cluster of many nodes on this machine.")
def lab() -> None:
    """A cluster on this machine, for trying things out.

    As root every node has namespaces of its own; otherwise the nodes are plain processes on loopback ports.
    """


@lab.command(short_help="Start a lab; later commands find it.")
@click.option("--nodes", type=click.IntRange(1, NODES_MAX), default=3, show_default=True, help="How many nodes.")
@click.option("--cpu", metavar="CORES", default="2", show_default=True, help="What each node offers.")
@click.option("--memory", metavar="SIZE", default="2G", show_default=True, help="What each node offers.")
@click.option(
    "--runtime",
    type=click.Choice(["auto", "lxc", "process"]),
    default="auto",
    show_default=True,
    help="What runs tasks.",
)
@click.option(
    "--overcommit", metavar="RATIO", type=click.FloatRange(1, OVERCOMMIT_MAX), default=1.0, show_default=True,
    help="Permitted ratio of committed to offered CPU and memory.",
)  # fmt: skip
@click.option(
    "--catalogue", metavar="FILE", type=click.Path(dir_okay=False),
    help="Applications of the request door (docs/door.md).  [default: demo alone]",
)  # fmt: skip
def up(nodes: int, cpu: str, memory: str, runtime: str, overcommit: float, catalogue: str | None) -> None:
    """Start a lab, and return when all nodes see each other."""
    from node.door.catalogue import read_catalogue
    from node.lab import control
    from node.lab.configuration import NodeShape
    from node.lab.hosts import Plan

    if catalogue is not None:
        read_catalogue(catalogue)
        catalogue = str(Path(catalogue).resolve())
    shape = NodeShape(parse_cpu(cpu, "cpu"), parse_size(memory, "memory"), overcommit, overcommit, catalogue)
    with _failures(), progress_line() as progress:
        made = control.up(Plan(nodes, runtime, shape), progress)
    count = "1 node is up" if nodes == 1 else f"{nodes} nodes are up"
    print(f"{count}, {description(made)}; try: fofoca nodes")


@lab.command(short_help="Remove the lab and all its traces.")
def down() -> None:
    """Remove the lab and all its traces, also those of one that crashed."""
    from node.lab import control

    with _failures(), progress_line() as progress:
        existed = control.down(progress)
    print("the lab is gone" if existed else "there was no lab")


@lab.command(short_help="Show the lab's nodes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Show the lab's nodes: what runs of each, and where it listens."""
    from node.lab import looking

    with _failures():
        running = looking.running()
    rows = [_status_of(running, node) for node in running.nodes]
    if as_json:
        show.print_json({"runtime": running.runtime, "isolated": running.isolated, "nodes": rows})
        return
    print(description(running))
    show.print_table(["NODE", "HOST", "AGENT", "SEES", "API", "LOG"], [list(row.values()) for row in rows])


@lab.command("exec", context_settings={"allow_interspersed_args": False}, short_help="Run a command on a node.")
@click.argument("name", metavar="NODE")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, command: tuple[str, ...]) -> None:
    """Run a command in a node's network, with FOFOCA_API and FOFOCA_TOKEN set to its agent's.

    FOFOCA_DOOR is the request door of the first node that is on, whose front end such a command is.
    """
    from node.lab import keeper, looking

    command = command[1:] if command[0] == "--" else command
    if not command:
        raise click.UsageError("no command to run; write it after --", click.get_current_context())
    with _failures():
        running = looking.running()
        node = looking.node_of(running, name)
        looking.require_on(node)
        if node.netns:
            keeper.enter_network(node.netns)
    environment = {**os.environ, "FOFOCA_API": node.api_url, "FOFOCA_TOKEN": running.token, find.IN_LAB: name}
    environment["FOFOCA_DOOR"] = looking.first_on(running).door_url
    # The command's own `fofoca` must be found from inside, wherever this one was called from.
    environment["PATH"] = os.environ.get("PATH", os.defpath) + os.pathsep + str(Path(sys.executable).parent)
    sys.stdout.flush()
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - a list, no shell
    except OSError as error:
        raise Failure(f"{command[0]}: {error.strerror}", 127 if isinstance(error, FileNotFoundError) else 126) from None


@lab.command(short_help="Kill a node's agent, or the whole node.")
@click.argument("name", metavar="NODE")
@click.option("--host", is_flag=True, help="The whole node: its link, its agent and its containers, at once.")
def kill(name: str, host: bool) -> None:
    """Kill a node's agent with SIGKILL: its containers run on. With --host take the whole node away."""
    from node.lab import control

    with _failures():
        if host:
            control.kill_host(name)
        else:
            control.kill_agent(name)


@lab.command(short_help="Bring a killed agent or node back.")
@click.argument("name", metavar="NODE")
def start(name: str) -> None:
    """Bring a killed agent or node back, with its disk as it was."""
    from node.lab import control

    with _failures():
        control.start(name)


@lab.command(short_help="Cut the links between a node and others.")
@click.argument("name", metavar="NODE")
@click.argument("others", metavar="[OTHER]...", nargs=-1)
def cut(name: str, others: tuple[str, ...]) -> None:
    """Cut the links between a node and others (all others where none is named), both ways."""
    from node.lab import control

    with _failures():
        print(f"{name} no longer reaches {', '.join(control.cut(name, others))}; `fofoca lab heal` undoes it")


@lab.command(short_help="Undo all cuts.")
def heal() -> None:
    """Undo all cuts."""
    from node.lab import control

    with _failures():
        control.heal()


@lab.command(short_help="Print the end of an agent's log.")
@click.argument("name", metavar="NODE")
@click.option("--lines", type=click.IntRange(1), default=50, show_default=True, help="How many lines.")
def log(name: str, lines: int) -> None:
    """Print the end of an agent's log."""
    from node.lab import looking

    with _failures():
        node = looking.node_of(looking.running(), name)
    print("\n".join(looking.last_log_lines(node, lines)))


@lab.command(short_help="A guided tour in under a minute.")
@click.option(
    "--runtime",
    type=click.Choice(["auto", "lxc", "process"]),
    default="auto",
    show_default=True,
    help="What runs tasks.",
)
def demo(runtime: str) -> None:
    """Three nodes share work, lose an agent, lose a host, and leave no trace."""
    from node.lab import demo as tour

    with _failures():
        tour.run(runtime)


@contextmanager
def _failures() -> Iterator[None]:
    from node.lab.errors import LabFailure, LabMisuse
    from node.lab.network import NetworkFailure

    try:
        yield
    except LabFailure as error:
        raise Failure(str(error), BAD_INPUT if isinstance(error, LabMisuse) else TASK_FAILED, error.details) from None
    except NetworkFailure as error:
        raise Failure(str(error), TASK_FAILED) from None


@contextmanager
def progress_line() -> Iterator[Callable[[str], None]]:
    """Tell progress on one line of a terminal, or not at all."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    try:
        yield lambda text: print(f"\r\x1b[K{text} ...", end="", file=sys.stderr, flush=True)
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def description(running: Lab) -> str:
    """What kind of lab it is, in words."""
    places = "each in namespaces of its own" if running.isolated else "as plain processes on loopback"
    return f"{places}, tasks run by {'LXC' if running.runtime == 'lxc' else running.runtime}"


def _status_of(running: Lab, node: LabNode) -> dict[str, str]:
    from node.lab import looking, record

    on = record.is_on(node)
    view = looking.view_of(running, node) if on else None
    alive = None if view is None else sum(other.get("state") == "alive" for other in view)
    return {
        "name": node.name,
        "host": "on" if on else "off",
        "agent": str(looking.agent_pid(node) or "-") if on else "-",
        "sees": "-" if alive is None else f"{alive} of {len(running.nodes)}",
        "api": node.api_url,
        "log": node.log,
    }
