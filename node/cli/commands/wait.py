"""`fofoca wait`."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from node.caller import Agents
from node.cli import find
from node.cli.failures import TASK_FAILED, TIMED_OUT, Failure
from node.cli.words import JOB_ID
from node.errors import AgentUnreachable, ApiProblem
from node.quantities import parse_duration

FINAL_STATES = frozenset({"succeeded", "failed", "cancelled", "lost"})
ASK_S = 30.0  # how long one request may wait at the node
READ_MARGIN_S = 10.0
RETRY_S = 0.3
UNREACHABLE_S_MAX = 120.0  # without a time-out, how long an unreachable home is waited for
FAILED_TASKS_SHOWN = 3
UNAVAILABLE = 503


@click.command(short_help="Wait until jobs have ended.")
@click.argument("ids", nargs=-1, required=True, type=JOB_ID, metavar="ID...")
@click.option("--timeout", metavar="TIME", help="Give up after this long: 60s, 5m. Exit code 124.")
@find.node_api_option
def wait(ids: tuple[int, ...], timeout: str | None, node_api: str | None) -> None:
    """Wait until jobs have ended. The exit code is 0 if every task succeeded, 1 if one did not, 124 on time-out."""
    deadline = time.monotonic() + parse_duration(timeout, "timeout") if timeout else None
    agents = find.agents(node_api)
    _check(agents, ids)
    failed = False
    for job_id in ids:
        job = wait_for(agents, job_id, deadline)
        if job is None:
            raise Failure(f"job {job_id} has not ended within {timeout}", TIMED_OUT)
        if job["state"] != "succeeded":
            failed = True
            print(f"fofoca: {ending(job)}", file=sys.stderr)
    if failed:
        raise click.exceptions.Exit(TASK_FAILED)


def _check(agents: Agents, ids: tuple[int, ...]) -> None:
    """Look for all of them before any is waited for: an id that is none should not be found out hours later."""
    for job_id in ids if len(ids) > 1 else ():
        try:
            agents.get(f"/v1/jobs/{job_id}", count=0)
        except ApiProblem as problem:
            if problem.status != UNAVAILABLE:
                raise


def wait_for(agents: Agents, job_id: int, deadline: float | None) -> dict[str, Any] | None:
    """The job once it has ended, or None at the deadline. Once known, a job is waited for across its home's
    restarts.
    """
    answered_at: float | None = None
    while True:
        left = ASK_S if deadline is None else max(0.0, min(ASK_S, deadline - time.monotonic()))
        try:
            answer = agents.get(f"/v1/jobs/{job_id}", read_timeout_s=left + READ_MARGIN_S, wait_s=round(left, 3))
            answered_at = time.monotonic()
            job: dict[str, Any] = answer.json()
            if job["state"] in FINAL_STATES:
                return job
        except (AgentUnreachable, ApiProblem) as error:
            if not may_pass(error, answered_at):
                raise
            time.sleep(RETRY_S)
        if deadline is not None and time.monotonic() >= deadline:
            return None


def may_pass(error: AgentUnreachable | ApiProblem, answered_at: float | None) -> bool:
    """Whether the trouble is one that a restart of an agent brings and takes away; `answered_at`: None if none did."""
    if isinstance(error, ApiProblem) and error.status != 503:
        return False
    if answered_at is None:
        return isinstance(error, ApiProblem)
    return time.monotonic() - answered_at < UNREACHABLE_S_MAX


def ending(job: dict[str, Any]) -> str:
    """`job 1001 (name) failed: task 3 on n2: exit code 7; ...`"""
    wrong = [task for task in job.get("tasks", []) if task["state"] != "succeeded"]
    parts = [_task(task) for task in wrong[:FAILED_TASKS_SHOWN]]
    if len(wrong) > FAILED_TASKS_SHOWN:
        parts.append(f"and {len(wrong) - FAILED_TASKS_SHOWN} more")
    return f"job {job['id']} ({job['name']}) {job['state']}" + (": " + "; ".join(parts) if parts else "")


def _task(task: dict[str, Any]) -> str:
    where = f" on {task['node']}" if task.get("node") else ""
    why = task.get("reason") or (
        f"exit code {task['exit_code']}" if task.get("exit_code") is not None else task["state"]
    )
    return f"task {task['index']}{where}: {why}"
