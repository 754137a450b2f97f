"""Plain processes on the host, each in a session of its own: for hosts without LXC and for agents without root.

There is no isolation whatsoever: a command sees and may do what the agent may. Time limits, bounded logs, exit codes,
leases and survival of the agent are the same as with LXC, for the supervisor is the same. What asks for more is
refused by name (UnsupportedError); callers who run it all the same take `protocol.reduced`, and say so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import trio

from node.runtime.directory import ContainerDirectory
from node.runtime.protocol import ContainerSpec, Feature, Usage
from node.runtime.supervised import SupervisedRuntime, life_orders

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TREE_MAX = 10_000
"""Processes counted for one container; a fork bomb must not stop the agent."""


class ProcessRuntime(SupervisedRuntime):
    @property
    def name(self) -> str:
        return "process"

    @property
    def features(self) -> frozenset[Feature]:
        return frozenset()

    async def _set_to(self, work: Callable[..., None], *arguments: object) -> None:
        """A handful of small files are less work than the way to a thread and back."""
        await trio.lowlevel.checkpoint()
        work(*arguments)

    def _set_up(self, spec: ContainerSpec, directory: ContainerDirectory) -> None:
        directory.write_orders(
            [
                ("kind", "process"),
                *life_orders(spec),
                ("workdir", spec.workdir),
            ]
        )

    def _command(self, spec: ContainerSpec, directory: ContainerDirectory) -> tuple[list[str], dict[str, str]]:
        return list(spec.argv), {"PATH": DEFAULT_PATH, **dict(spec.env)}

    def _clean(self, name: str) -> None:
        """A dead supervisor's command got SIGKILL from the kernel; what it had started besides is out of reach."""

    def _sample(self, name: str) -> Usage:
        supervisor_pid = self._directory(name).supervisor_pid()
        if supervisor_pid is None:
            raise ProcessLookupError(name)
        tree = _descendants(supervisor_pid)
        samples = [_stat(pid) for pid in tree]
        memory_bytes, cpu_ns = (sum(column) for column in zip(*samples, strict=True)) if samples else (0, 0)
        return Usage(memory_bytes, cpu_ns, len(tree))


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    waiting = [pid]
    while waiting and len(found) < TREE_MAX:
        parent = waiting.pop()
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:
            continue
        waiting += (new := [int(child) for child in children])
        found += new
    return found


def _stat(pid: int) -> tuple[int, int]:
    """(resident bytes, CPU nanoseconds, its waited-for children's included) of one process; zeros if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return (0, 0)
    ticks = sum(int(field) for field in fields[11:15])
    return int(fields[21]) * os.sysconf("SC_PAGESIZE"), ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
