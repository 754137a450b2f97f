"""
What the tour shows: the nodes with how full they are, the jobs with where they landed, and the results.

A board asks the cluster when told to `look`; rendering uses what it saw last. A node that does not answer for a
moment, as in the tour they do, leaves the last picture standing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from node.caller import Agents
from node.errors import AgentUnreachable, ApiProblem

BAR_CELLS = 16
OUTPUT_SHOWN_MAX = 48
STATE_STYLES = {
    "pending": "yellow",
    "starting": "cyan",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "lost": "red",
    "alive": "green",
    "suspect": "yellow",
    "down": "yellow",
}
REPORTING_STATES = ("alive", "suspect")
NOTHING: dict[str, Any] = {"state": "pending", "node": "", "attempt": 0, "exit_code": None, "reason": ""}


@dataclass
class _Watched:
    via: str
    id: int
    job: dict[str, Any] = field(default_factory=dict)
    output: str = ""

    @property
    def word(self) -> str:
        """The task's state; one that has a node and does not run yet is starting there."""
        task = self.task
        return "starting" if task["state"] == "pending" and task["node"] else str(task["state"])

    @property
    def task(self) -> dict[str, Any]:
        tasks = self.job.get("tasks") or [NOTHING]
        return dict(tasks[0])


class Board:
    """Some jobs and all nodes of a cluster, as last seen."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents
        self._jobs: dict[str, _Watched] = {}
        self._nodes: list[dict[str, Any]] = []
        self._shown: object = None

    def watch(self, name: str, via: str, job_id: int) -> None:
        """Add a job to the board."""
        self._jobs[name] = _Watched(via, job_id)

    def look(self) -> None:
        """Ask the cluster."""
        with contextlib.suppress(AgentUnreachable, ApiProblem):
            self._nodes = self._agents.get("/v1/nodes").json()
        for watched in self._jobs.values():
            with contextlib.suppress(AgentUnreachable, ApiProblem):
                watched.job = self._agents.get(f"/v1/jobs/{watched.id}").json()

    def names(self) -> list[str]:
        """The jobs on the board."""
        return list(self._jobs)

    def task(self, name: str) -> dict[str, Any]:
        """The one task of a job, as last seen."""
        return self._jobs[name].task

    def all_in(self, states: Collection[str]) -> bool:
        """Whether every job is in one of these states."""
        return all(watched.job.get("state") in states for watched in self._jobs.values())

    def has_changed(self) -> bool:
        """Whether there is news since the last call."""
        picture = [(watched.word, watched.task["node"]) for watched in self._jobs.values()]
        picture += [(node["state"], str(node["committed"])) for node in self._nodes]
        changed = picture != self._shown
        self._shown = picture
        return changed

    def fetch_outputs(self) -> None:
        """Ask for what the jobs wrote."""
        for watched in self._jobs.values():
            watched.output = self._output(watched)

    def last_number(self, name: str) -> int:
        """The last line of a counting job's output, as a number; 0 where there is none."""
        watched = self._jobs[name]
        with contextlib.suppress(AgentUnreachable, ApiProblem):
            watched.job = self._agents.get(f"/v1/jobs/{watched.id}").json()
        # The last line may be half written: the one before is whole.
        lines = self._output(watched).split("\n")[:-1]
        return int(lines[-1]) if lines and lines[-1].isdigit() else 0

    def troubles(self) -> list[str]:
        """A line for each job that is not as it should be, with the cluster's own reason."""
        lines = []
        for name, watched in self._jobs.items():
            task = watched.task
            if task["state"] not in ("succeeded", "running"):
                lines.append(f"{name}: {task['state']} {task['node']} {task['reason']}".rstrip())
        return lines

    def render(self) -> RenderableType:
        """Nodes above, jobs below."""
        return Padding(Group(self._node_table(), Text(), self._job_table()), (0, 0, 0, 3))

    def results(self) -> RenderableType:
        """What the jobs wrote, and their exit codes."""
        table = _table(["job", "ran on", "exit", "wrote"])
        for name, watched in self._jobs.items():
            code = watched.task["exit_code"]
            style = "green" if code == 0 else "red"
            table.add_row(name, watched.task["node"], Text(str(code), style), _shortened(watched.output.strip()))
        return Padding(table, (0, 0, 0, 3))

    def _output(self, watched: _Watched) -> str:
        try:
            answer = self._agents.get(f"/v1/jobs/{watched.id}/logs", task=0, stream="stdout")
        except (AgentUnreachable, ApiProblem):
            return ""
        return answer.body.decode(errors="replace")

    def _node_table(self) -> Table:
        table = _table(["node", "state", "cpu", "memory", "tasks"])
        for node in sorted(self._nodes, key=lambda each: str(each["name"])):
            state = node["state"]
            table.add_row(
                node["name"],
                Text(state, STATE_STYLES.get(state, "red")),
                _bar(node, "cpu_milli"),
                _bar(node, "memory_bytes"),
                str(node["containers"]) if state in REPORTING_STATES else "?",
            )
        return table

    def _job_table(self) -> Table:
        table = _table(["job", "id", "sent to", "state", "on", "try"])
        for name, watched in self._jobs.items():
            task = watched.task
            table.add_row(
                name,
                str(watched.id),
                watched.via,
                Text(watched.word, STATE_STYLES.get(watched.word, "")),
                task["node"],
                str(task["attempt"] or ""),
            )
        return table


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _bar(node: dict[str, Any], resource: str) -> Text:
    whole = node["allocatable"].get(resource, 0)
    share = node["committed"].get(resource, 0) / whole if whole and node["state"] in REPORTING_STATES else 0.0
    filled = round(min(share, 1.0) * BAR_CELLS)
    colour = "green" if share < 0.7 else "yellow" if share < 0.95 else "red"
    return Text.assemble(("█" * filled, colour), ("░" * (BAR_CELLS - filled), "dim"), f" {share:4.0%}")


def _shortened(text: str) -> str:
    line = text.splitlines()[-1] if text else ""
    return line if len(line) <= OUTPUT_SHOWN_MAX else line[: OUTPUT_SHOWN_MAX - 1] + "…"
