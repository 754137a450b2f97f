"""`fofoca exec`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import termios
import tty as terminals
from collections.abc import Iterator
from types import FrameType

import click

from node.cli import find, task_names
from node.cli.session import Session

PASSED_ON = {signal.SIGINT: "INT", signal.SIGTERM: "TERM", signal.SIGHUP: "HUP", signal.SIGQUIT: "QUIT"}


@click.command(
    "exec", context_settings={"allow_interspersed_args": False}, short_help="Run a command inside a running task."
)
@click.argument("task", metavar="ID[.INDEX]")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--interactive", "-i", is_flag=True, help="Pass standard input on.")
@click.option("--tty", "-t", is_flag=True, help="Give the command a terminal.")
@find.node_api_option
def execute(task: str, command: tuple[str, ...], interactive: bool, tty: bool, node_api: str | None) -> None:
    """Run a command inside a running task, with the task's own limits, user and view; its exit code is passed on.

    \b
    fofoca exec 12001 -- ls /tmp
    fofoca exec -it 12001.3 -- sh
    """
    job, index = task_names.parse(task)
    command = command[1:] if command[0] == "--" else command
    if not command:
        raise click.UsageError("no command to run; write it after --", click.get_current_context())
    size = shutil.get_terminal_size()
    order = {"argv": list(command), "tty": tty, "rows": size.lines, "columns": size.columns, "task": index}
    session = Session(find.agents(node_api), job, order)
    try:
        with _signals(session, tty), _raw(tty and interactive and sys.stdin.isatty()):
            code = _run(session, interactive)
    finally:
        session.close()
    raise click.exceptions.Exit(code)


def _run(session: Session, interactive: bool) -> int:
    if interactive:
        session.feed(lambda size: os.read(sys.stdin.fileno(), size))
    else:
        session.end_input()
    code = 0
    for out, err, ended in session.output():
        for data, stream in ((out, sys.stdout), (err, sys.stderr)):
            if data:
                stream.buffer.write(data)
                stream.buffer.flush()
        code = code if ended is None else ended
    return code


@contextlib.contextmanager
def _raw(wanted: bool) -> Iterator[None]:
    """Every key goes to the command, Ctrl-C too. Put back on every way out that a process has a say in."""
    if not wanted:
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    terminals.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _signals(session: Session, tty: bool) -> Iterator[None]:
    """Signals go to the command; the second of a kind ends this side too."""
    seen: set[int] = set()

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if number in seen:
            raise KeyboardInterrupt
        seen.add(number)
        session.control(signal=PASSED_ON[signal.Signals(number)])

    def resize(_number: int, _frame: FrameType | None) -> None:
        size = shutil.get_terminal_size()
        session.control(rows=size.lines, columns=size.columns)

    handlers = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    if tty:
        handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
