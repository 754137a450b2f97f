"""What a node holds of its machine, before and after many containers that die in all ways (no test module).

    tools/census [--containers 500] [--together 40] [--seed N]

A lab of its own with one node of LXC containers. Waves of jobs of all kinds (short, lasting, with scratch space, with
published ports, with a network shared, secrets, much output); meanwhile SIGKILL hits container's first processes,
supervisors, lxc-execute and the agent at random, and jobs are cancelled at random. At the end all are cancelled, and
what there is of control groups, mounts, interfaces, firewall elements, addresses, files, loop devices, locks, processes
and the agent's descriptors is compared with what there was after a first container of each kind. Exit code 1 and a line
for each difference if something is left; nothing of the lab stays in any case.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from node.host import cgroups
from node.host.staging import scratch_obstacle
from node.runtime.spares import PREFIX
from tests.end_to_end.command_line import CommandLine, eventually, files_below, remains_of

SMALL = ("--image", "busybox", "--cpu", "10m", "--memory", "16M", "--attempts", "1")
KINDS: dict[str, tuple[tuple[str, ...], str]] = {
    "short": ((), "exit $((FOFOCA_TASK_INDEX % 3))"),
    "lasting": ((), "sleep 1000"),
    "scratch": (("--scratch", "8M", "--tmpfs", "/cache:1M"), "echo x >/scratch/x; sleep 1000"),
    "published": (("--publish", "80"), "sleep 1000"),
    "sharing": (("--network", "shared", "--publish", "80"), "sleep 1000"),
    "secret": (("--secret", "key=-"), "cat /run/secrets/key >/dev/null; sleep 1000"),
    "talking": ((), "yes | head -c 3000000; sleep 1000"),
    "forking": ((), "for i in 1 2 3 4 5; do sleep 1000 & done; wait"),
}
KINDS_OF_A_WAVE = 4
VICTIMS = ("init", "supervisor", "lxc-execute", "any")
QUIET_TIMEOUT_S = 120.0
FINAL = ("succeeded", "failed", "cancelled", "lost")


class Node:
    """The only node of a lab, seen by the machine's root."""

    def __init__(self, lab: CommandLine) -> None:
        self.lab = lab
        (record,) = json.loads(Path(f"/run/fofoca-lab-{lab.lab}/lab.json").read_text())["nodes"]
        self.keeper: int = record["keeper_pid"]
        self.data = Path(record["data"])
        self.netns: str = record["netns"]
        self.groups = [each.mount / f"fofoca-lab-{lab.lab}" / "n1" for each in cgroups.detect().hierarchies]

    def holds(self) -> Counter[str]:
        """All of it, a line each; of things that are alike their number."""
        return Counter(
            [
                *(f"group {path}" for top in self.groups for path, _, _ in os.walk(top)),
                *self.mounts(),
                *self.interfaces(),
                *(f"firewall: {line}" for line in self.output("nft", "list", "ruleset").splitlines() if elements(line)),
                *self.files(),
                *self.loop_devices(),
                *self.processes(),
                *self.descriptors(),
            ]
        )

    def output(self, *words: str) -> str:
        inside = ["ip", "netns", "exec", self.netns, *words]
        return subprocess.run(inside, capture_output=True, text=True, timeout=30, check=True).stdout

    def mounts(self) -> Iterator[str]:
        """Other labs' network namespaces are mounted here, too, if they were there first."""
        for line in Path(f"/proc/{self.keeper}/mountinfo").read_text().splitlines():
            place = line.split()[4]
            if not place.startswith("/run/netns/"):
                yield f"mount {place}"

    def interfaces(self) -> Iterator[str]:
        for each in json.loads(self.output("ip", "-j", "link")):
            yield f"interface {each['ifname']}"

    def files(self) -> Iterator[str]:
        """Without the kept output and the spare directories, which are bounded by themselves, and the ledger's own."""
        for path in files_below(self.data):
            name = str(path.relative_to(self.data))
            if not name.startswith(("output/", "ledger.db", "network/rest-", f"containers/{PREFIX}")):
                yield f"file {name}"
        for top in ("containers", "staging", "mounts", "secrets"):
            root = Path(f"/proc/{self.keeper}/root{self.data}") / top
            entries = [entry.name for entry in root.iterdir()] if root.is_dir() else []
            yield from (f"folder {top}/{name}" for name in entries if not name.startswith(PREFIX))
        yield from (f"lock {path}" for path in files_below(Path(f"/run/lxc/lock/{self.data}".replace("//", "/"))))

    def loop_devices(self) -> Iterator[str]:
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            with suppress(OSError):
                if path.read_text().startswith(str(self.data)):
                    yield f"loop device of {path.read_text().strip()}"

    def processes(self) -> Iterator[str]:
        """All below the node's first one, to which orphans fall; zombies too."""
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if self.keeper in ancestors(int(entry.name)):
                    yield f"process {(entry / 'comm').read_text().strip()}"

    def agent(self) -> int:
        """Its pid; 0 while there is none."""
        for word in Path(f"/proc/{self.keeper}/task/{self.keeper}/children").read_text().split():
            with suppress(OSError):
                if b"\0agent\0" in Path(f"/proc/{word}/cmdline").read_bytes():
                    return int(word)
        return 0

    def descriptors(self) -> Iterator[str]:
        """Those of the agent but connections, which come and go."""
        folder = Path(f"/proc/{self.agent()}/fd")
        for entry in folder.iterdir():
            with suppress(OSError):
                target = re.sub(r"\d+", "N", os.readlink(entry))
                if not target.startswith("socket:"):
                    yield f"descriptor {target}"

    def containers(self) -> list[Path]:
        """Their directories."""
        with suppress(OSError):
            return [path for path in (self.data / "containers").iterdir() if not path.name.startswith(".")]
        return []

    def started(self) -> int:
        """How many containers' commands have begun."""
        return sum((path / "running").exists() for path in self.containers())

    def pids(self, container: str) -> list[int]:
        found: set[int] = set()
        for group in self.groups:
            for path in files_below(group / container):
                with suppress(OSError):
                    if path.name == "cgroup.procs":
                        found |= {int(word) for word in path.read_text().split()}
        return sorted(found)


def elements(line: str) -> bool:
    """What comes and goes in tables: the rules themselves never change."""
    return "elements" in line or "limit" in line


def ancestors(pid: int) -> set[int]:
    found: set[int] = set()
    while pid > 1 and pid not in found:
        found.add(pid)
        pid = parent_of(pid)
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class Storm:
    """Waves of jobs, and what befalls them."""

    def __init__(self, node: Node, chance: random.Random) -> None:
        self.node = node
        self.chance = chance
        self.jobs: list[int] = []
        self.kills: Counter[str] = Counter()
        self.kinds = [kind for kind in KINDS if kind != "scratch" or not scratch_obstacle()]

    def submit(self, kind: str, count: int) -> int:
        options, line = KINDS[kind]
        many = ("--nodes", "1", "--tasks-per-node", count) if kind == "sharing" else ("--array", f"0-{count - 1}")
        words = (*SMALL, *options, "--name", kind, *many, "--", "sh", "-c", line)
        job = int(self.node.lab.ok("submit", *words, stdin="secret").out)
        self.jobs.append(job)
        return job

    def states(self, job: int) -> list[str]:
        with suppress(AssertionError):
            return [task["state"] for task in self.node.lab.job(job)["tasks"]]
        return []

    def begin(self) -> None:
        """One container of each kind, killed in every way, so that all that is made once is there."""
        for kind in self.kinds:
            self.submit(kind, 1)
        lasting = len(self.kinds) - 1
        eventually("all kinds run", lambda: self.node.started() >= lasting, QUIET_TIMEOUT_S)
        self.end()

    def wave(self, count: int) -> None:
        kinds = self.chance.sample(self.kinds, min(KINDS_OF_A_WAVE, count))
        amounts = dict.fromkeys(kinds, count // len(kinds))
        amounts[kinds[0]] += count % len(kinds)
        jobs = [self.submit(kind, amount) for kind, amount in amounts.items()]
        until = time.monotonic() + self.chance.uniform(1.5, 3.0)
        while time.monotonic() < until:
            self.shoot(self.chance.choice(VICTIMS))
            time.sleep(self.chance.uniform(0.0, 0.15))
            if self.chance.random() < 0.05:
                self.kill_agent()
            if self.chance.random() < 0.03:
                self.node.lab("cancel", self.chance.choice(jobs))
        self.end()

    def shoot(self, victim: str) -> None:
        containers = self.node.containers()
        if not containers:
            return
        directory = self.chance.choice(containers)
        with suppress(OSError, ValueError, IndexError):
            os.kill(self.target(directory, victim), signal.SIGKILL)
            self.kills[victim] += 1

    def target(self, directory: Path, victim: str) -> int:
        """Pids in files are those of the node's own namespace, so processes are found by their groups and parents."""
        pids = self.node.pids(directory.name)
        names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids}
        monitors = [pid for pid, name in names.items() if name == "lxc-execute"]
        if victim == "lxc-execute":
            return monitors[0]
        if victim == "supervisor":
            parent = parent_of(monitors[0])
            if parent == self.node.keeper:
                raise ValueError("an orphan: its supervisor is dead already")
            return parent
        inside = [pid for pid in pids if pid not in monitors]
        return inside[0] if victim == "init" else self.chance.choice(inside)

    def kill_agent(self) -> None:
        self.node.lab.ok("lab", "kill", "n1")
        eventually("the agent is gone", lambda: self.node.agent() == 0)
        time.sleep(self.chance.uniform(0.0, 0.5))
        self.node.lab.ok("lab", "start", "n1")
        eventually("the agent is back", lambda: self.node.lab("nodes").code == 0, 60)
        self.kills["agent"] += 1

    def end(self) -> None:
        self.node.lab("cancel", *self.jobs)  # some may have ended
        self.node.lab("wait", *self.jobs, "--timeout", f"{QUIET_TIMEOUT_S:g}s", timeout_s=2 * QUIET_TIMEOUT_S)
        for job in self.jobs:
            assert all(each in FINAL for each in self.states(job) or ["unknown"]), self.states(job)
        self.jobs.clear()


def census(lab: CommandLine, containers: int, together: int, seed: int) -> list[str]:
    """Differences, a line each: what is there more than before the storm, or less."""
    chance = random.Random(seed)
    lab.ok("lab", "up", "--nodes", 1, "--cpu", "8", "--memory", "4G", timeout_s=120)
    node = Node(lab)
    storm = Storm(node, chance)
    storm.begin()
    storm.kill_agent()
    time.sleep(1.0)
    eventually("the first containers are gone", lambda: not node.containers(), QUIET_TIMEOUT_S)
    before = node.holds()
    run = 0
    while run < containers:
        count = min(together, containers - run)
        began_s = time.monotonic()
        storm.wave(count)
        run += count
        print(f"{run} containers, the last {count} in {time.monotonic() - began_s:.1f} s", file=sys.stderr)
    storm.kill_agent()
    deadline = time.monotonic() + QUIET_TIMEOUT_S
    while (differences := compared(before, node.holds())) and time.monotonic() < deadline:
        time.sleep(0.5)
    print(f"seed {seed}: {run} containers, killed: {dict(sorted(storm.kills.items()))}", file=sys.stderr)
    return differences


def compared(before: Counter[str], after: Counter[str]) -> list[str]:
    more = [f"left: {line} ({count} times)" for line, count in sorted((after - before).items())]
    return more + [f"gone: {line} ({count} times)" for line, count in sorted((before - after).items())]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--containers", type=int, default=500)
    parser.add_argument("--together", type=int, default=40)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args(arguments)
    lab = CommandLine(f"census{os.getpid()}")
    try:
        differences = census(lab, options.containers, options.together, options.seed)
    finally:
        lab("lab", "down")
    differences += remains_of(lab.lab)
    print("\n".join(differences) or "nothing is left")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
