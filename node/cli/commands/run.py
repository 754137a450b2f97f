"""`fofoca run`: a job as if its command ran here."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from typing import Any

import click

from node.caller import Agents
from node.cli import find
from node.cli.commands.logs import Stream, follow_all
from node.cli.commands.wait import RETRY_S, ending, may_pass, wait_for
from node.cli.failures import INTERRUPTED, TASK_FAILED
from node.cli.options import job
from node.errors import AgentUnreachable, ApiProblem

WAITS_SAID_AFTER_S = 1.0
STOP_S_MAX = 30.0
"""How long a cancelled job's tasks, or the last of an ended job's output, are waited for."""
CODE_MAX = 255


@click.command(context_settings={"allow_interspersed_args": False}, short_help="Run a job and stay with it.")
@job.options
@click.option("--quiet", "-q", is_flag=True, help="Say nothing of one's own: neither why it waits nor how it ended.")
@find.node_api_option
def run(command: tuple[str, ...], node_api: str | None, quiet: bool, **given: Any) -> None:
    """Run a job and stay with it: what its tasks write comes here, and the exit code is theirs.

    With several tasks every line names its task, and the exit code is the highest. A task that a signal ended counts
    as 128 and the signal's number, one that never ran as 1. Ctrl-C cancels the job. Standard input is not passed on;
    `fofoca exec -it` gives a running task a terminal.

    \b
    fofoca run --image busybox -- echo hello
    """
    job_id: int = job.ask(node_api, "/v1/jobs", command, given)["id"]
    agents = find.agents(node_api)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        outputs = [_Output(agents, job_id, name, descriptor) for name, descriptor in (("stdout", 1), ("stderr", 2))]
        ended = _wait(agents, job_id, quiet)
    except KeyboardInterrupt:
        _cancel(agents, job_id, quiet)
        raise click.exceptions.Exit(INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    deadline = time.monotonic() + STOP_S_MAX
    for output in outputs:
        output.join(max(0.0, deadline - time.monotonic()))
    if ended["state"] != "succeeded" and not quiet:
        print(f"fofoca: {ending(ended)}", file=sys.stderr)
    raise click.exceptions.Exit(code_of(ended))


def code_of(ended: dict[str, Any]) -> int:
    """The exit code that tells how a job ended."""
    codes = [_code_of_task(task) for task in ended["tasks"]]
    return max(codes, default=TASK_FAILED) or (0 if ended["state"] == "succeeded" else TASK_FAILED)


def _code_of_task(task: dict[str, Any]) -> int:
    if task["state"] == "succeeded":
        return 0
    if task.get("signal"):
        return 128 + int(task["signal"])
    code = int(task.get("exit_code") or 0)
    return code if 0 < code <= CODE_MAX else TASK_FAILED


def _wait(agents: Agents, job_id: int, quiet: bool) -> dict[str, Any]:
    ended = wait_for(agents, job_id, time.monotonic() + WAITS_SAID_AFTER_S)
    if ended is None and not quiet:
        explained = agents.get(f"/v1/jobs/{job_id}/explain").json()
        if explained["state"] == "pending":
            print(f"fofoca: job {job_id} waits: {explained['summary']}", file=sys.stderr)
    return ended or wait_for(agents, job_id, None) or {}


def _cancel(agents: Agents, job_id: int, quiet: bool) -> None:
    """Cancel it, and see it end; a second Ctrl-C ends this wait."""
    with contextlib.suppress(KeyboardInterrupt):
        agents.delete(f"/v1/jobs/{job_id}")
        ended = wait_for(agents, job_id, time.monotonic() + STOP_S_MAX)
        if not quiet:
            print(f"fofoca: {ending(ended) if ended else f'job {job_id} is being cancelled'}", file=sys.stderr)


class _Output(threading.Thread):
    """Prints one of the two streams of every task, across restarts of agents."""

    def __init__(self, agents: Agents, job_id: int, name: str, descriptor: int) -> None:
        super().__init__(daemon=True)
        self._agents = agents
        self._job_id = job_id
        self._name = name
        self._descriptor = descriptor
        self.start()

    def run(self) -> None:
        streams: list[Stream] = []
        answered_at: float | None = None
        while not streams or any(not stream.ended for stream in streams):
            try:
                streams = streams or self._streams()
                answered_at = time.monotonic()
                follow_all(streams)
            except (AgentUnreachable, ApiProblem) as error:
                if not may_pass(error, answered_at):
                    print(f"fofoca: {self._name} of job {self._job_id} is not to be had: {error}", file=sys.stderr)
                    return
                time.sleep(RETRY_S)

    def _streams(self) -> list[Stream]:
        tasks = self._agents.get(f"/v1/jobs/{self._job_id}").json()["tasks"]
        return [
            Stream(self._agents, self._job_id, task["index"], self._name, len(tasks) > 1, self._descriptor)
            for task in tasks
        ]
