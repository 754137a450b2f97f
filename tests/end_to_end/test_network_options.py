"""What a task asks of its network beyond having one, on a real node; and that nothing of it stays, however tasks end.

Some of it nobody inside could try (containers have no raw sockets and busybox no UDP): the host's root does so in the
container's network namespace.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from node.runtime import lxc_obstacles
from tests.end_to_end.command_line import CommandLine, eventually, files_below

pytestmark = [
    pytest.mark.xdist_group("network-options"),
    pytest.mark.slow,
    pytest.mark.lxc,
    pytest.mark.root,
    pytest.mark.skipif(bool(lxc_obstacles()), reason="; ".join(lxc_obstacles())),
]
SMALL = ("--image", "busybox", "--cpu", "50m", "--memory", "24M", "--constraint", "node=n1")
SLEEP = ("--", "sleep", "1000")
KILLED, CANCELLED = 20, 10
UDP_ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", 9))
while True:
    data, source = s.recvfrom(64); s.sendto(b"heard " + data, source)
"""
UDP_ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)
for _ in range(8):
    s.sendto(b"you", (sys.argv[1], int(sys.argv[2])))
    try: print(s.recv(64).decode()); break
    except OSError: pass
"""


class Host:
    """The only node of a lab, and what its root does beside the tasks."""

    def __init__(self, lab: CommandLine) -> None:
        self.lab = lab
        lab.ok("lab", "up", "--nodes", 1, timeout_s=60)
        file = Path("/run") / f"fofoca-lab-{lab.lab}" / "n1.toml"
        more = '[network]\nnetworks = { storage = "ffstore0 10.90.1.0/24" }\nclasses = { bulk = "1:20" }\n'
        file.write_text(file.read_text().replace("[network]\n", more, 1))
        self.restart()

    def restart(self) -> None:
        self.lab.ok("lab", "kill", "n1")
        self.lab.ok("lab", "start", "n1")
        eventually("the node is back", lambda: self.lab("nodes").code == 0)

    def start(self, *options: object, argv: tuple[str, ...] = SLEEP) -> tuple[int, dict[str, Any]]:
        """The id and the task of a job that runs."""
        job = self.lab.submit(*SMALL, *options, *argv)

        def running() -> dict[str, Any] | None:
            task = self.lab.task(job)
            assert task["state"] in ("pending", "starting", "running"), task
            return task if task["state"] == "running" and task["addresses"] else None

        task: dict[str, Any] = eventually(f"job {job} runs", running)
        return job, task

    def pids(self, container: str) -> list[int]:
        """The processes of a container, its own init first."""
        for top in ("pids", ""):
            path = Path("/sys/fs/cgroup") / top / f"fofoca-lab-{self.lab.lab}" / "n1" / container
            groups = sorted(each for each in files_below(path) if each.name == "cgroup.procs")
            found = [int(pid) for each in groups for pid in each.read_text().split()]
            if found:
                return found
        return []

    def within(self, job: int, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the host's root in the network namespace of a job's container."""
        return subprocess.run([*self.entering(job), *words], capture_output=True, text=True, timeout=20, check=False)

    def entering(self, job: int) -> list[str]:
        own = os.readlink("/proc/self/ns/net")
        host = os.stat(f"/run/netns/fofoca-{self.lab.lab}-n1").st_ino
        for pid in self.pids(f"{job}.0.1"):
            with suppress(OSError):
                found = os.readlink(f"/proc/{pid}/ns/net")
                if found not in (own, f"net:[{host}]"):
                    return ["nsenter", "-t", str(pid), "-n", "--"]
        raise AssertionError(f"no process of job {job} has a network of its own")

    def here(self, *words: str) -> str:
        """Run a command in the node's own network."""
        inside = ["ip", "netns", "exec", f"fofoca-{self.lab.lab}-n1", *words]
        return subprocess.run(inside, capture_output=True, text=True, timeout=20, check=True).stdout

    def records(self) -> list[Path]:
        return list((Path("/var/lib") / f"fofoca-lab-{self.lab.lab}" / "n1" / "network").glob("*.json"))


@pytest.fixture(scope="module")
def host(fofoca: CommandLine) -> Iterator[Host]:
    yield Host(fofoca)
    fofoca("lab", "down")


def interface(host: Host, job: int, name: str) -> dict[str, Any]:
    (found,) = json.loads(host.within(job, "ip", "-j", "addr", "show", "dev", name).stdout)
    return dict(found)


def test_the_hardware_address_and_packet_size_are_those_asked_for(host: Host) -> None:
    job, task = host.start("--mac", "02:00:00:00:ab:01", "--mtu", "1300")
    found = interface(host, job, "eth0")
    assert (found["address"], found["mtu"]) == ("02:00:00:00:ab:01", 1300)
    assert found["addr_info"][0]["local"] == task["addresses"][0]
    second = host.lab.submit(*SMALL, "--mac", "02:00:00:00:ab:01", "--attempts", "1", *SLEEP)
    eventually("the taken address is named", lambda: "02:00:00:00:ab:01" in host.lab.ok("job", second).out)
    host.lab.ok("cancel", job)


def test_a_named_network_is_a_second_interface(host: Host) -> None:
    one, _ = host.start("--join-network", "storage")
    two, _ = host.start("--join-network", "storage")
    addresses = [interface(host, job, "eth1")["addr_info"][0]["local"] for job in (one, two)]
    assert all(address.startswith("10.90.1.") for address in addresses)
    assert len(set(addresses)) == 2
    assert host.within(one, "busybox", "ping", "-c1", "-W3", "-I", "eth1", addresses[1]).returncode == 0
    host.lab.ok("cancel", one, two)


def test_a_network_that_no_node_has_is_explained(host: Host) -> None:
    job = host.lab.submit(*SMALL, "--join-network", "nowhere", *SLEEP)
    eventually("the network is named", lambda: "nowhere" in host.lab.ok("job", job).out)
    host.lab.ok("cancel", job)


def test_what_a_task_sends_is_in_its_class_at_the_uplink(host: Host) -> None:
    """The queue there is the operator's: nftables' own counter stands for it, since not every kernel has one."""
    count = (
        "table inet ffcount { chain c { type filter hook postrouting priority 10;\n"
        "meta priority 1:20 counter\n meta priority != 1:20 ip saddr 10.77.0.0/16 counter\n }\n }"
    )
    host.here("nft", count)
    job, _ = host.start("--traffic-class", "bulk")
    host.within(job, "busybox", "ping", "-c3", "-i0.2", "-W1", "10.78.0.99")
    marked, others = re.findall(r"counter packets (\d+)", host.here("nft", "list", "table", "inet", "ffcount"))
    assert (int(marked), int(others)) == (3, 0)
    host.here("nft", "delete", "table", "inet", "ffcount")
    host.lab.ok("cancel", job)


def test_a_class_that_no_node_has_is_explained(host: Host) -> None:
    job = host.lab.submit(*SMALL, "--traffic-class", "gold", *SLEEP)
    eventually("the class is named", lambda: "gold" in host.lab.ok("job", job).out)
    host.lab.ok("cancel", job)


def test_a_published_udp_port_answers(host: Host) -> None:
    job, task = host.start("--publish", "9/udp")
    (port,) = task["ports"]
    assert port["protocol"] == "udp"
    server = subprocess.Popen([*host.entering(job), sys.executable, "-c", UDP_ECHO])
    try:
        asked = host.here(sys.executable, "-c", UDP_ASK, "10.78.0.1", str(port["host_port"]))
        assert asked == "heard you\n"
    finally:
        server.kill()
        server.wait()
    host.lab.ok("cancel", job)


def test_nobody_speaks_with_an_address_of_somebody_elses(host: Host) -> None:
    """Packets leave a container under its own addresses alone, even where it could forge others."""
    one, task = host.start()
    two, other = host.start()
    target, own = other["addresses"][0], interface(host, one, "eth0")

    def reaches(*options: str) -> bool:
        ping = ("busybox", "ping", "-c2", "-i0.2", "-W1", *options, target)
        return host.within(one, *ping).returncode == 0

    assert reaches()
    free = task["addresses"][0].rpartition(".")[0] + ".250"
    host.within(one, "ip", "addr", "add", f"{free}/24", "dev", "eth0")
    assert not reaches("-I", free), "an address of nobody's"
    assert reaches("-I", task["addresses"][0])
    host.within(one, "ip", "link", "set", "eth0", "address", "02:00:00:00:00:66")
    host.within(one, "ip", "neigh", "flush", "dev", "eth0")
    assert not reaches(), "a hardware address of nobody's"
    host.within(one, "ip", "link", "set", "eth0", "address", own["address"])
    assert eventually("it is heard again under its own", reaches)
    host.within(one, "ip", "addr", "flush", "dev", "eth0")
    host.within(one, "ip", "addr", "add", f"{target}/24", "dev", "eth0")
    claim = ("busybox", "arping", "-A", "-c3", "-I", "eth0", target)
    host.within(one, *claim)
    neighbours = host.here("ip", "neigh", "show", target)
    assert own["address"] not in neighbours, "its neighbour's address was taken over"
    host.lab.ok("cancel", one, two)


def test_of_thirty_containers_that_die_in_all_ways_nothing_is_left(host: Host) -> None:
    """Cancelled, their processes or all of their supervision killed, and the agent killed meanwhile."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    eventually("others' are gone", lambda: not host.records())
    links = host.here("ip", "-o", "link").count(": ff")
    killed, cancelled = (_many(host, count) for count in (KILLED, CANCELLED))
    eventually("all run", lambda: len(host.records()) == KILLED + CANCELLED, 60)
    eventually("and are known to", lambda: _states(host, killed) | _states(host, cancelled) == {"running"}, 60)
    addresses = [str(task["addresses"][0]) for job in (killed, cancelled) for task in host.lab.job(job)["tasks"]]
    assert len(set(addresses)) == KILLED + CANCELLED
    cancel_at, kill_agent_at = sorted(draw.sample(range(KILLED), 2))
    for number, index in enumerate(draw.sample(range(KILLED), KILLED)):
        if number == cancel_at:
            host.lab.ok("cancel", cancelled)
        if number == kill_agent_at:
            host.lab.ok("lab", "kill", "n1")
        _kill(host, f"{killed}.{index}.1", everything=draw.random() < 0.5)
        time.sleep(draw.random() * 0.02)
    host.lab.ok("lab", "start", "n1")

    def left() -> list[str]:
        rules = host.here("nft", "list", "ruleset")
        found = [each for each in addresses if f"{each} " in rules or f"{each}," in rules]
        found += [path.name for path in host.records()]
        return found + host.here("ip", "-o", "link").split(": ff")[links + 1 :]

    eventually("nothing is left", lambda: not left(), 60)


def _many(host: Host, count: int) -> int:
    return host.lab.submit(*SMALL, "--attempts", "1", "--array", f"0-{count - 1}", "--publish", "80", *SLEEP)


def _states(host: Host, job: int) -> set[str]:
    return {task["state"] for task in host.lab.job(job)["tasks"]}


def _kill(host: Host, container: str, *, everything: bool) -> None:
    """Kill the command alone, or LXC's own processes with it."""
    found = host.pids(container)
    for pid in found if everything else found[-1:]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
