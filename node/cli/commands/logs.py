"""`fofoca logs`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import click

from node.caller import Agents
from node.cli import find
from node.cli.words import JOB_ID

CHUNK_BYTES = 1 << 20
FOLLOW_WAIT_S = 10.0
BETWEEN_ROUNDS_S = 0.2
PREFIX_LINE_BYTES_MAX = 64 * 1024


@click.command(short_help="Print what a job's tasks wrote.")
@click.argument("job_id", type=JOB_ID, metavar="ID")
@click.option("--task", type=click.IntRange(0), help="Only this task of an array.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the tasks have ended.")
@click.option("--stdout", "only_stdout", is_flag=True, help="Only standard output.")
@click.option("--stderr", "only_stderr", is_flag=True, help="Only standard error.")
@find.node_api_option
def logs(
    job_id: int, task: int | None, follow: bool, only_stdout: bool, only_stderr: bool, node_api: str | None
) -> None:
    """Print what a job's tasks wrote: output first, then errors; with several tasks every line names its task."""
    agents = find.agents(node_api)
    tasks = [task] if task is not None else task_indices(agents, job_id)
    names = _streams(follow, only_stdout, only_stderr)
    streams = [Stream(agents, job_id, index, name, prefixed=len(tasks) > 1) for index in tasks for name in names]
    if follow:
        follow_all(streams)
    else:
        for stream in streams:
            while stream.copy(wait_s=None) and not stream.ended:
                pass
            stream.finish()


def _streams(follow: bool, only_stdout: bool, only_stderr: bool) -> list[str]:
    if only_stdout != only_stderr:
        return ["stdout" if only_stdout else "stderr"]
    # Followed, the two are printed as they come; afterwards one is printed after the other.
    return ["both"] if follow else ["stdout", "stderr"]


def task_indices(agents: Agents, job_id: int) -> list[int]:
    """The indices of a job's tasks."""
    job: dict[str, Any] = agents.get(f"/v1/jobs/{job_id}").json()
    return [int(task["index"]) for task in job["tasks"]]


def follow_all(streams: list[Stream]) -> None:
    """Print what tasks write until they have ended; called again after an error, it goes on where it was."""
    going = [stream for stream in streams if not stream.ended]
    while going:
        # A single stream waits at the node; several take turns.
        wait_s = FOLLOW_WAIT_S if len(going) == 1 else None
        moved = [stream.copy(wait_s) for stream in going]
        for stream in going:
            if stream.ended:
                stream.finish()
        going = [stream for stream in going if not stream.ended]
        if not any(moved) and wait_s is None:
            time.sleep(BETWEEN_ROUNDS_S)


@dataclass
class Stream:
    """One output of one task, and how much of it has been printed."""

    agents: Agents
    job_id: int
    task: int
    name: str
    prefixed: bool
    descriptor: int = 1
    offset: int = 0
    attempt: int = 0
    ended: bool = False
    _rest: bytes = field(default=b"", repr=False)

    def copy(self, wait_s: float | None) -> bool:
        """Print the next piece; False when there is nothing more for now."""
        answer = self.agents.get(
            f"/v1/jobs/{self.job_id}/logs",
            task=self.task,
            stream=self.name,
            offset=self.offset,
            limit=CHUNK_BYTES,
            wait_s=wait_s,
            attempt=self.attempt or None,
        )
        self.attempt = int(answer.headers.get("x-attempt", 0))
        self.offset = int(answer.headers.get("x-next-offset", self.offset + len(answer.body)))
        self.ended = answer.headers.get("x-ended") == "1"
        self._print(answer.body)
        return bool(answer.body)

    def finish(self) -> None:
        """Print an unfinished last line."""
        if self._rest:
            self._write(self._label() + self._rest + b"\n")
            self._rest = b""

    def _print(self, data: bytes) -> None:
        if self.prefixed:
            data = b"".join(self._label() + line for line in self._lines(data))
        self._write(data)

    def _label(self) -> bytes:
        return f"[{self.task}] ".encode()

    def _lines(self, data: bytes) -> Iterator[bytes]:
        lines = (self._rest + data).splitlines(keepends=True)
        self._rest = b""
        if lines and not lines[-1].endswith((b"\n", b"\r")) and len(lines[-1]) < PREFIX_LINE_BYTES_MAX:
            self._rest = lines.pop()
        yield from lines

    def _write(self, data: bytes) -> None:
        if data:
            out = sys.stdout if self.descriptor == 1 else sys.stderr
            out.buffer.write(data)
            out.buffer.flush()
