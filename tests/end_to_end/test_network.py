"""Containers' network between owners and hosts: two nodes, two owners, real bridges, rules and routes."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.lab import layout
from node.runtime import lxc_obstacles
from tests.end_to_end.command_line import CommandLine, eventually

pytestmark = [
    pytest.mark.xdist_group("network"),
    pytest.mark.slow,
    pytest.mark.lxc,
    pytest.mark.root,
    pytest.mark.skipif(bool(lxc_obstacles()), reason="; ".join(lxc_obstacles())),
]
SMALL = ("--image", "busybox", "--cpu", "50m", "--memory", "24M")
SERVE = "while :; do echo served | nc -l -p 80; done"
SLEEP = "sleep 1000"


class Owners:
    """A lab of two nodes, and two users of it."""

    def __init__(self, lab: CommandLine) -> None:
        self.lab = lab
        lab.ok("lab", "up", "--nodes", 2, timeout_s=60)
        eventually("both nodes are alive", lambda: [n["state"] for n in lab.nodes().values()] == ["alive", "alive"])
        self.ann, self.bob = (self._user(name) for name in ("ann", "bob"))

    def _user(self, name: str) -> CommandLine:
        state = Path("/run") / f"fofoca-lab-{self.lab.lab}"
        token = self.lab.ok("token", "create", "--user", name, "--key", state / "cluster.key").out.strip()
        return CommandLine(self.lab.lab, {"FOFOCA_TOKEN": token, "FOFOCA_API": "http://10.78.0.1:8642"})

    def run(self, user: str, node: str, line: str, *options: str) -> int:
        """Submit a task that runs a shell line on a node."""
        return self.in_lab(
            "submit", *SMALL, "--constraint", f"node={node}", *options, "--", "sh", "-c", line, user=user
        )

    def in_lab(self, *words: str, user: str) -> int:
        done = self.command(*words, user=user)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    def command(self, *words: str, user: str) -> subprocess.CompletedProcess[str]:
        """Run the command line as that user, inside the first node's network: the lab's is not the machine's."""
        from tests.end_to_end.command_line import FOFOCA

        environment = {"ann": self.ann, "bob": self.bob}[user].full_environment()
        inside = ["ip", "netns", "exec", f"fofoca-{self.lab.lab}-n1", FOFOCA, *words]
        return subprocess.run(inside, env=environment, capture_output=True, text=True, timeout=60, check=False)

    def reach(self, job: int, user: str = "ann") -> dict[str, object]:
        """Wait until a job's only task runs; its address and ports."""

        def running() -> dict[str, object] | None:
            task = json.loads(self.command("job", str(job), "--json", user=user).stdout)["tasks"][0]
            return task if task["state"] == "running" and task["addresses"] else None

        task: dict[str, object] = eventually(f"job {job} runs", running)
        return task

    def outcome(self, user: str, node: str, line: str, *options: str) -> int:
        """The exit code of a short task."""
        print(line)
        job = self.run(user, node, line, *options)

        def ended() -> dict[str, object] | None:
            task = json.loads(self.command("job", str(job), "--json", user=user).stdout)["tasks"][0]
            return task if task["exit_code"] is not None else None

        return int(eventually(f"job {job} ends", ended, 60)["exit_code"])

    def output(self, job: int, user: str) -> str:
        return self.command("logs", str(job), user=user).stdout

    def host(self, node: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a node's network, as the host itself."""
        inside = ["ip", "netns", "exec", f"fofoca-{self.lab.lab}-{node}", *words]
        return subprocess.run(inside, capture_output=True, text=True, timeout=20, check=False)


@pytest.fixture(scope="module")
def owners(fofoca: CommandLine) -> Iterator[Owners]:
    yield Owners(fofoca)
    fofoca("lab", "down")


def connect(address: object, port: int = 80) -> str:
    """A shell line that succeeds if something answers there within some seconds."""
    once = f"nc -w 1 {address} {port} </dev/null | grep -q served && exit 0"
    return f"for i in 1 2 3 4 5 6; do {once}; sleep 0.3; done; exit 9"


@pytest.fixture(scope="module")
def server(owners: Owners) -> tuple[str, str, int]:
    """Ann's service on n1: its address, its IPv6 address, its published port."""
    task = owners.reach(owners.run("ann", "n1", SERVE, "--publish", "80", "--publish", "8099:80"))
    addresses, ports = task["addresses"], task["ports"]
    assert isinstance(addresses, list)
    assert isinstance(ports, list)
    assert [each["host_port"] for each in ports[1:]] == [8099]
    assert 20_000 <= ports[0]["host_port"] <= 29_999
    return addresses[0], addresses[1], ports[0]["host_port"]


@pytest.mark.parametrize("node", ["n1", "n2"])
def test_an_owners_containers_reach_each_other_and_nobody_elses(
    owners: Owners, server: tuple[str, str, int], node: str
) -> None:
    assert owners.outcome("ann", node, connect(server[0])) == 0
    assert owners.outcome("bob", node, connect(server[0])) == 9


def test_the_same_holds_for_ipv6(owners: Owners, server: tuple[str, str, int]) -> None:
    assert owners.outcome("ann", "n1", connect(server[1])) == 0
    assert owners.outcome("bob", "n1", connect(server[1])) == 9
    assert owners.host("n1", "busybox", "ping", "-6", "-c", "1", "-W", "3", server[1]).returncode == 0


def test_a_published_port_is_reached_by_hosts_and_by_others_containers(
    owners: Owners, server: tuple[str, str, int]
) -> None:
    for port in (server[2], 8099):
        for node in ("n1", "n2"):
            served(owners, node, port)
    assert owners.outcome("bob", "n2", connect("10.78.0.1", 8099)) == 0
    assert owners.outcome("bob", "n1", connect("10.78.0.1", 8099)) == 0
    assert owners.host("n2", "busybox", "nc", "-w", "1", "10.78.0.1", "8098").stdout == ""


def served(owners: Owners, node: str, port: int) -> None:
    """Its server takes one connection at a time."""

    def answer() -> str:
        return owners.host(node, "busybox", "nc", "-w", "2", "10.78.0.1", str(port)).stdout

    eventually(f"{node} reaches port {port} of n1", lambda: answer() == "served\n", 10)


def test_a_taken_port_is_refused_by_name(owners: Owners, server: tuple[str, str, int]) -> None:
    for port, why in ((8099, "is taken"), (8642, "is taken"), (80, "allows 1024 to 32767")):
        job = owners.run("bob", "n1", SLEEP, "--publish", f"{port}:80", "--attempts", "1")
        reason = eventually(
            "it is refused",
            lambda job=job: json.loads(owners.command("job", str(job), "--json", user="bob").stdout)["tasks"][0][
                "reason"
            ],
        )
        eventually("it says why", lambda job=job, why=why: why in owners.command("job", str(job), user="bob").stdout)
        assert reason


@pytest.mark.parametrize("target", ["10.77.1.1 8642", "10.78.0.1 8642", "10.78.0.2 8642", "10.78.0.2 7946"])
def test_a_container_reaches_no_host(owners: Owners, target: str) -> None:
    address, port = target.split()
    url = f"http://{address}:{port}/v1/version"
    if port == "8642" and address != "10.77.1.1":
        assert "401" in owners.host("n1", "busybox", "wget", "-O", "-", url).stderr, "hosts reach each other"
    assert owners.outcome("ann", "n1", f"nc -w 1 {target} </dev/null && exit 0; exit 9") == 9


def test_members_of_a_gang_find_each_other_by_the_names_they_are_given_from_their_first_instruction(
    owners: Owners,
) -> None:
    line = "for each in $(echo $FOFOCA_PEERS | tr , ' '); do nslookup $each | grep -q 10.77 || exit 9; done"
    gang = ["--nodes", "2", "--tasks-per-node", "2"]
    job = owners.in_lab("submit", *SMALL, *gang, "--", "sh", "-c", line, user="ann")

    def ended() -> list[int] | None:
        tasks = json.loads(owners.command("job", str(job), "--json", user="ann").stdout)["tasks"]
        codes = [task["exit_code"] for task in tasks]
        return codes if None not in codes else None

    assert eventually(f"all of job {job} end", ended, 60) == [0, 0, 0, 0]


def test_a_gangs_tasks_on_one_node_share_a_network_also_after_their_agent_was_killed(owners: Owners) -> None:
    line = (
        "if [ $FOFOCA_LOCAL_RANK = 0 ]; then while :; do echo of $FOFOCA_RANK | nc -l -p 7 || sleep 1; done; fi; "
        "until nc -w 1 127.0.0.1 7 </dev/null | grep -q of; do sleep 0.2; done; "
        "nslookup job$FOFOCA_JOB_ID-$((3 - FOFOCA_RANK)) | grep -q 10.77 && echo all reached; sleep 1000"
    )
    gang = ["--nodes", "2", "--tasks-per-node", "2", "--network", "shared", "--publish", "8097:7"]
    job = owners.in_lab("submit", *SMALL, *gang, "--", "sh", "-c", line, user="ann")
    for task in ("1", "3"):
        said = ("logs", str(job), "--task", task)
        eventually(
            f"task {task} reaches all", lambda said=said: "all reached" in owners.command(*said, user="ann").stdout
        )
    tasks = json.loads(owners.command("job", str(job), "--json", user="ann").stdout)["tasks"]
    assert tasks[0]["addresses"] == tasks[1]["addresses"] != tasks[2]["addresses"] == tasks[3]["addresses"]
    node = tasks[1]["node"]
    folder = Path("/var/lib") / f"fofoca-lab-{owners.lab.lab}" / node / "network"
    (record,) = folder.glob(f"{job}.*.json")
    host_end = json.loads(record.read_text())["interfaces"][0]["host_end"]
    owners.lab.ok("lab", "kill", node)
    owners.lab.ok("lab", "start", node)
    again = ("exec", f"{job}.1", "--", "nc", "-w", "2", "127.0.0.1", "7")
    eventually("it is reached again", lambda: "of 0" in owners.command(*again, user="ann").stdout)
    assert host_end in owners.host(node, "ip", "-o", "link").stdout
    owners.command("cancel", str(job), user="ann")
    eventually("no record is left", lambda: not record.exists())
    assert host_end not in owners.host(node, "ip", "-o", "link").stdout


def test_names_of_a_job_resolve_inside_it_across_nodes_and_not_for_others(owners: Owners) -> None:
    words = [
        "submit",
        *SMALL,
        "--cpu",
        "600m",
        "--array",
        "0-3",
        "--constraint",
        "node in (n1,n2)",
        "--network",
        "bridge",
    ]
    line = (
        'for i in 0 1 2 3; do for t in 1 2 3 4 5 6; do nslookup task-$i.job-$FOFOCA_JOB_ID.fofoca | grep -q "10.77" '
        "&& break; sleep 0.5; done; nslookup task-$i.job-$FOFOCA_JOB_ID.fofoca | grep -q 10.77 || exit 9; done; "
        "nslookup task-3 | grep -q 10.77 || exit 8; echo all found; sleep 1000"
    )
    job = owners.in_lab(*words, "--", "sh", "-c", line, user="ann")
    found = eventually(
        "all ranks find all",
        lambda: owners.command("logs", str(job), "--task", "3", user="ann").stdout.count("all found"),
    )
    assert found == 1
    owners.command("cancel", str(job), user="ann")
    alive = owners.run("ann", "n2", SLEEP)
    owners.reach(alive)
    lookup = f"nslookup task-0.job-{alive}.fofoca | grep -q Name: && exit 0; sleep 1"
    lookup = f"for t in 1 2 3; do {lookup}; done; exit 9"
    # There is no IPv6 between these nodes, so wget, which tries the first address only, must not be told of one.
    found = f"nslookup task-0.job-{alive}.fofoca | grep -c fd77: | grep"
    assert owners.outcome("ann", "n1", f"sleep 2; {found} -x 0") == 0
    assert owners.outcome("ann", "n2", f"{found} -x 1") == 0
    assert owners.outcome("ann", "n1", lookup) == 0
    assert owners.outcome("bob", "n1", lookup) == 9


@pytest.mark.parametrize("option", ["--rate-in", "--rate-out"])
def test_a_rate_is_felt(owners: Owners, option: str) -> None:
    """One megabyte at 200 KiB a second, less the burst, takes seconds; without a rate it takes none."""
    serve = "head -c 1000000 /dev/zero >/tmp/zeros; httpd -f -p 81 -h /tmp"
    rate = (option, "200K")
    sender = owners.reach(owners.run("ann", "n1", serve, *(rate if option == "--rate-out" else ())))
    addresses = sender["addresses"]
    assert isinstance(addresses, list)
    get = f"wget -q -O /dev/null http://{addresses[0]}:81/zeros"
    line = f"for t in 1 2 3; do {get} && exit 0; sleep 1; done; exit 9"
    before = time.monotonic()
    assert owners.outcome("ann", "n1", line, *(rate if option == "--rate-in" else ())) == 0
    assert time.monotonic() - before > 3.0


def test_an_open_task_is_reached_by_other_owners_and_reaches_none(owners: Owners, server: tuple[str, str, int]) -> None:
    task = owners.reach(owners.run("bob", "n1", SERVE, "--open"), "bob")
    addresses = task["addresses"]
    assert isinstance(addresses, list)
    for node in ("n1", "n2"):
        assert owners.outcome("ann", node, connect(addresses[0])) == 0
    assert owners.outcome("bob", "n1", connect(server[0]), "--open") == 9


def test_a_killed_agents_rules_are_made_anew_and_nothing_is_left(owners: Owners, server: tuple[str, str, int]) -> None:
    lab = owners.lab
    jobs = [owners.run("ann", "n2", SLEEP, "--publish", "80") for _ in range(6)]
    knocks = f"nc -w 1 {server[0]} 80 | grep served & nc -w 1 10.78.0.1 8642 && echo the host &"
    stranger = owners.run("bob", "n2", f"exec </dev/null 2>&0; while :; do {knocks} sleep 0.1; done")
    owners.reach(stranger, "bob")
    lab.ok("lab", "kill", "n2")
    time.sleep(0.5)
    lab.ok("lab", "start", "n2")
    tasks = [owners.reach(job) for job in jobs]
    assert owners.output(stranger, "bob") == "", "while the new agent has heard of no other node, all stays closed"
    owners.command("cancel", str(stranger), user="bob")
    addresses = [str(task["addresses"][0]) for task in tasks]  # type: ignore[index]
    assert len(set(addresses)) == len(addresses)
    rules = owners.host("n2", "nft", "list", "ruleset").stdout
    assert all(address in rules for address in addresses)
    for job in jobs:
        owners.command("cancel", str(job), user="ann")

    def clean() -> bool:
        rules = owners.host("n2", "nft", "list", "ruleset").stdout
        links = owners.host("n2", "ip", "-o", "link").stdout
        left = [each for each in addresses if f"{each} " in rules or f"{each}," in rules]
        records = list((layout_data(lab, "n2") / "network").glob("*.json"))
        held = [path for path in records if any(f'"{each}"' in path.read_text() for each in addresses)]
        return not left and not held and links.count(": ff") == len(records)

    eventually("nothing is left of them", clean)
    later = owners.reach(owners.run("ann", "n2", SLEEP))
    assert str(later["addresses"][0]) not in addresses  # type: ignore[index]


def layout_data(lab: CommandLine, node: str) -> Path:
    return Path("/var/lib") / f"fofoca-lab-{lab.lab}" / layout.node_name(int(node[1:]))
