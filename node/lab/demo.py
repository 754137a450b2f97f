"""
The guided tour: three nodes on this machine share work, lose an agent, lose a host, and leave no trace.

Whatever it claims it has looked at: a claim that does not hold ends it with an error, after the lab is removed all
the same. On a terminal the tables move; in a pipe they are printed now and then. FOFOCA_DEMO_SVG=FILE keeps what was
shown as a picture.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from node.caller import Agents
from node.errors import AgentUnreachable, ApiProblem
from node.lab import control, leftovers, looking
from node.lab.configuration import NodeShape
from node.lab.demo_tables import Board
from node.lab.errors import LabFailure
from node.lab.hosts import Plan
from node.lab.record import Lab

NODES = 3
SHAPE = NodeShape(cpu_milli=2000, memory_bytes=1 << 30)
TICK_S = 0.25
FIRST_PRINT_S = 1.0
PRINT_INTERVAL_S = 3.0
NEVER_S = 1e9
QUICK_JOBS_TIMEOUT_S = 40.0
MOVE_TIMEOUT_S = 30.0
FINAL = frozenset({"succeeded", "failed", "cancelled", "lost"})
COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done"


@dataclass(frozen=True)
class Job:
    """A job of the tour: what it asks for, and how it is meant to end."""

    name: str
    cpu_milli: int
    memory_mib: int
    script: str
    exit_code: int = 0

    def body(self, image: str) -> dict[str, Any]:
        """The request that submits it."""
        return {
            "name": self.name,
            "argv": ["sh", "-c", self.script],
            "cpu_milli": self.cpu_milli,
            "memory_bytes": self.memory_mib << 20,
            "image": image,
        }


QUICK_JOBS = (
    Job("hello", 250, 64, "sleep 3; echo hello from $(hostname)"),
    Job("kernel", 250, 64, "sleep 4; uname -sr"),
    Job("render-1", 1000, 256, "sleep 5; echo frame 1 done"),
    Job("render-2", 1000, 256, "sleep 5; echo frame 2 done"),
    Job("render-3", 1000, 256, "sleep 5; echo frame 3 done"),
    Job("typo", 100, 32, "sleep 2; echo no such thing; exit 3", exit_code=3),
    Job("index", 500, 512, "sleep 4; seq 1 100000 | sort -r | md5sum | cut -c 1-12"),
    Job("train", 1500, 700, "sleep 6; echo accuracy 0.93"),
    Job("count", 250, 64, "sleep 3; seq 1 1000 | wc -l"),
    Job("date", 100, 32, "sleep 2; date -u +%A"),
    Job("primes", 500, 64, "sleep 3; factor 1234567890 2>/dev/null || echo 2 3 3 5 3607 3803"),
    Job("backup", 500, 128, "sleep 4; echo 42 files kept"),
)
STEADY_JOBS = tuple(Job(f"steady-{number}", 800, 400, COUNT) for number in (1, 2, 3))


def run(runtime: str) -> None:
    """Run the tour. Raises LabFailure where something it claims did not happen."""
    picture = os.environ.get("FOFOCA_DEMO_SVG")
    console = Console(record=bool(picture), force_terminal=True if picture else None, width=92 if picture else None)
    live = console.is_terminal and not picture
    Tour(console, live, NEVER_S if picture else PRINT_INTERVAL_S).run(runtime)
    if picture:
        # The usual template loads a font from elsewhere; a picture should need nobody.
        template = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
        console.save_svg(picture, title="make demo", code_format=template)


class Tour:
    """One run of the tour."""

    def __init__(self, console: Console, live: bool, print_interval_s: float) -> None:
        self._console = console
        self._live = live
        self._print_interval_s = print_interval_s
        self._began = time.monotonic()
        self._steps = 0
        self._image = ""

    def run(self, runtime: str) -> None:
        """All steps in order; the lab is removed whatever happens."""
        lab = self._start_lab(runtime)
        try:
            self._import_image(lab)
            self._share_work(lab)
            steady = self._start_steady(lab)
            self._lose_agent(lab, steady)
            self._lose_host(lab, steady)
        finally:
            self._say("Remove the lab")
            control.down(lambda text: None)
        self._leave_no_trace()

    def _start_lab(self, runtime: str) -> Lab:
        self._say(f"Start {NODES} nodes on this machine")
        with self._console.status("starting") if self._live else _nothing():
            lab = control.up(Plan(nodes=NODES, runtime=runtime, shape=SHAPE, image=False), lambda text: None)
        if lab.isolated and lab.runtime != "process":
            self._note("each a host of its own: network, processes, mounts; tasks run in LXC containers")
        else:
            self._note("not root, or no LXC here: nodes and tasks are plain processes (as root they are containers)")
        return lab

    def _import_image(self, lab: Lab) -> None:
        self._say("Import an image")
        began = time.monotonic()
        image = control.import_busybox(lab)
        if image is None:
            if lab.runtime != "process":
                raise LabFailure("the demo needs a static busybox (package busybox-static)")
            self._note("no static busybox here; plain processes need no image")
            return
        self._image = control.IMAGE
        spent_ms = (time.monotonic() - began) * 1000
        self._note(f"{image['name']}: {image['size_bytes'] / 1e6:.1f} MB, {image['digest'][:19]}, in {spent_ms:.0f} ms")
        self._note("nodes that lack it get it from one that has it")

    def _share_work(self, lab: Lab) -> None:
        self._say(f"Submit {len(QUICK_JOBS)} jobs, each through another node")
        board = Board(looking.agents(lab))
        for number, job in enumerate(QUICK_JOBS):
            board.watch(job.name, f"n{number % NODES + 1}", submit(lab, number, job.name, job.body(self._image)))
        self._show(board, lambda: board.all_in(FINAL), QUICK_JOBS_TIMEOUT_S, "all jobs to end")
        board.fetch_outputs()
        self._console.print(board.results())
        for job in QUICK_JOBS:
            ended = board.task(job.name)
            if ended["exit_code"] != job.exit_code:
                raise LabFailure(f"{job.name} ended with {ended['exit_code']} ({ended['reason']}), not {job.exit_code}")
        self._note("exit codes and output came back from wherever the tasks ran (one was meant to fail)")

    def _start_steady(self, lab: Lab) -> Board:
        self._say(f"Start {len(STEADY_JOBS)} jobs that count for ever")
        board = Board(looking.agents(lab))
        for job in STEADY_JOBS:
            # All have n1 as their home, which stays: the home of a job watches over it.
            board.watch(job.name, "n1", submit(lab, 0, job.name, job.body(self._image)))
        self._show(board, lambda: board.all_in({"running"}), MOVE_TIMEOUT_S, "the jobs to run")
        return board

    def _lose_agent(self, lab: Lab, board: Board) -> None:
        name, victim = _someone_away_from_home(board)
        self._say(f"Kill the agent of {victim} with SIGKILL")
        before = self._wait_for_count(board, name, 0)
        pids = counting_processes(lab, victim)
        control.kill_agent(victim)
        time.sleep(1.5)
        if not pids or counting_processes(lab, victim) != pids:
            raise LabFailure(f"the containers of {victim} did not survive their agent")
        self._note(f"no agent, and {_listed(pids)} still count: containers do not need it")
        control.start(victim)
        looking.wait_until_met(lab, MOVE_TIMEOUT_S, lambda text: None)
        after = self._wait_for_count(board, name, before)
        if counting_processes(lab, victim) != pids or board.task(name)["attempt"] != 1:
            raise LabFailure(f"the containers of {victim} were disturbed by the new agent")
        self._note(f"the new agent took them over: {name} went from {before} to {after}, the same processes, attempt 1")

    def _lose_host(self, lab: Lab, board: Board) -> None:
        name, victim = _someone_away_from_home(board)
        moving = [each for each in board.names() if board.task(each)["node"] == victim]
        self._say(f"Take {victim} away: link, agent and containers, as if the plug were pulled")
        control.kill_host(victim)
        self._show(
            board,
            lambda: all(_runs_elsewhere(board.task(each), victim) for each in moving),
            MOVE_TIMEOUT_S,
            f"the tasks of {victim} to run elsewhere",
        )
        for each in moving:
            task = board.task(each)
            self._note(f"{each} came up on {task['node']} as attempt {task['attempt']}")
        self._wait_for_count(board, name, 0)

    def _leave_no_trace(self) -> None:
        remains = list(leftovers.remains())
        if remains:
            raise LabFailure("the lab left traces behind:", remains)
        self._note("no process, namespace, cgroup, mount or file is left")
        self._console.print(f"\n[bold]That was Fofoca[/bold], in {time.monotonic() - self._began:.0f} seconds.")

    def _say(self, text: str) -> None:
        self._steps += 1
        self._console.print(f"\n[bold cyan]{self._steps}.[/] [bold]{text}[/]")

    def _note(self, text: str) -> None:
        self._console.print(f"   {text}", highlight=False)

    def _show(self, board: Board, done: Callable[[], bool], timeout_s: float, awaited: str) -> None:
        """Show the board until it is done."""
        deadline = time.monotonic() + timeout_s
        with self._screen(board) as refresh:
            while True:
                board.look()
                refresh()
                if done():
                    return
                if time.monotonic() > deadline:
                    raise LabFailure(f"waited {timeout_s:g} s in vain for {awaited}", board.troubles())
                time.sleep(TICK_S)

    @contextmanager
    def _screen(self, board: Board) -> Iterator[Callable[[], None]]:
        if self._live:
            from rich.live import Live

            with Live(console=self._console, auto_refresh=False) as live:
                yield lambda: live.update(board.render(), refresh=True)
            return
        # The first picture is worth a look when things have begun to move.
        next_at = time.monotonic() + FIRST_PRINT_S

        def now_and_then() -> None:
            nonlocal next_at
            if time.monotonic() >= next_at and board.has_changed():
                next_at = time.monotonic() + self._print_interval_s
                self._console.print(board.render())

        yield now_and_then

    def _wait_for_count(self, board: Board, name: str, more_than: int) -> int:
        """What a counting job counts now; it must be past `more_than`."""
        deadline = time.monotonic() + MOVE_TIMEOUT_S
        while True:
            count = board.last_number(name)
            if count > more_than:
                return count
            if time.monotonic() > deadline:
                raise LabFailure(f"{name} does not count on: {count} after {more_than}", board.troubles())
            time.sleep(TICK_S)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def submit(lab: Lab, turn: int, name: str, body: dict[str, Any]) -> int:
    """Submit a job through the turn's node; its id."""
    agents: Agents = looking.agent_of(lab, lab.nodes[turn % len(lab.nodes)])
    try:
        return int(agents.post("/v1/jobs", body).json()["id"])
    except (AgentUnreachable, ApiProblem) as error:
        raise LabFailure(f"{name} was not taken: {error}") from error


def counting_processes(lab: Lab, name: str) -> list[int]:
    """The shells that count on a node, as this machine numbers them."""
    node = looking.node_of(lab, name)
    script = COUNT.encode()
    return sorted(pid for pid in leftovers.descendants(node.keeper_pid) if script in leftovers.command_line(pid)[2:3])


def _someone_away_from_home(board: Board) -> tuple[str, str]:
    """A job that runs on another node than its home, and that node."""
    for name in board.names():
        node = board.task(name)["node"]
        if node and node != "n1":
            return name, node
    raise LabFailure("no job runs on a node other than its home", board.troubles())


def _runs_elsewhere(task: dict[str, Any], lost: str) -> bool:
    return task["state"] == "running" and task["node"] not in ("", lost) and task["attempt"] > 1


def _listed(pids: Sequence[int]) -> str:
    return f"process {pids[0]}" if len(pids) == 1 else "processes " + ", ".join(str(pid) for pid in pids)
