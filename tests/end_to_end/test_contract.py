"""
What scripts rely on, typed as a user types it, on a real lab of three nodes: LXC as root, else plain processes.

The tests share one lab and run in order of the file; those that kill come last, and each brings back what it took.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.command_line import CommandLine, eventually, stop

pytestmark = [pytest.mark.xdist_group("lab"), pytest.mark.slow]

SMALL = ("--cpu", "100m", "--memory", "32M", "--image", "busybox")
COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done"
FINAL = ("succeeded", "failed", "cancelled", "lost")


@pytest.fixture(scope="module", autouse=True)
def lab(fofoca: CommandLine) -> Iterator[dict[str, Any]]:
    fofoca.ok("lab", "up", "--nodes", 3)
    status: dict[str, Any] = fofoca.ok("lab", "status", "--json").json
    yield status
    for node in status["nodes"]:
        print(f"--- {node['name']}", *fofoca("lab", "log", node["name"], "--lines", 30).out.splitlines(), sep="\n")


@pytest.fixture(scope="module")
def rootfs(lab: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from node.host.busybox import build_busybox_rootfs
    from node.host.errors import HostError

    folder = tmp_path_factory.mktemp("image") / "rootfs"
    try:
        build_busybox_rootfs(folder)
    except HostError as error:
        if lab["runtime"] == "lxc":
            pytest.skip(str(error))
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "sh").write_text("not needed by plain processes\n")
    return folder


@pytest.fixture(scope="module", autouse=True)
def image(fofoca: CommandLine, rootfs: Path) -> None:
    """Nearly every test runs something in it. The lab may have one of this name: the newest wins."""
    fofoca.ok("image", "import", "busybox", rootfs)


@pytest.fixture
def lxc_only(lab: dict[str, Any]) -> None:
    if lab["runtime"] != "lxc":
        pytest.skip("needs LXC, which needs root")


@pytest.fixture
def isolated_only(lab: dict[str, Any]) -> None:
    if not lab["isolated"]:
        pytest.skip("needs network namespaces, which need root")


def api_of(lab: dict[str, Any], name: str) -> str:
    return next(str(node["api"]) for node in lab["nodes"] if node["name"] == name)


def away_from(fofoca: CommandLine, home: str, job_ids: list[int]) -> tuple[int, str]:
    """A job that runs elsewhere than at its home, and where."""

    def found() -> tuple[int, str] | None:
        tasks = {job_id: fofoca.task(job_id) for job_id in job_ids}
        if any(task["state"] != "running" for task in tasks.values()):
            return None
        return next(((job_id, task["node"]) for job_id, task in tasks.items() if task["node"] != home), None)

    job_id, node = eventually("jobs run, one of them away from home", found)
    return job_id, node


def start_counting(fofoca: CommandLine, home: str, cpu: str) -> int:
    return fofoca.submit(
        "--node-api", home, "--cpu", cpu, "--memory", "32M", "--image", "busybox", "--", "sh", "-c", COUNT
    )  # fmt: skip


def counted(fofoca: CommandLine, job_id: int) -> int:
    lines = fofoca("logs", job_id).out.splitlines()
    return int(lines[-1]) if lines and lines[-1].isdigit() else 0


# --- the cluster


def test_all_nodes_see_each_other(fofoca: CommandLine, lab: dict[str, Any]) -> None:
    for node in lab["nodes"]:
        seen = fofoca.nodes(node["api"])
        assert {name: each["state"] for name, each in seen.items()} == dict.fromkeys(("n1", "n2", "n3"), "alive")


def test_nodes_say_what_they_have_and_what_is_taken(fofoca: CommandLine) -> None:
    for node in fofoca.nodes().values():
        for amounts in ("capacity", "allocatable", "committed", "used"):
            assert set(node[amounts]) == {"cpu_milli", "memory_bytes"}
            assert all(isinstance(amount, int) and amount >= 0 for amount in node[amounts].values())
        assert set(node["overcommit"]) == {"cpu", "memory"}
        assert node["allocatable"] == {"cpu_milli": 2000, "memory_bytes": 2 << 30}
        assert node["containers"] == 0


def test_a_command_runs_in_a_nodes_network(fofoca: CommandLine, lab: dict[str, Any]) -> None:
    ran = fofoca("lab", "exec", "n2", "--", "sh", "-c", "cat; echo $FOFOCA_API; exit 3", stdin="from stdin\n")
    assert (ran.code, ran.out) == (3, f"from stdin\n{api_of(lab, 'n2')}\n")
    ran = fofoca.ok("lab", "exec", "n2", "--", "fofoca", "submit", *SMALL, "--", "true")
    assert fofoca.job(int(ran.out))["home"] == "n2"
    if lab["isolated"]:
        interfaces = fofoca.ok(
            "lab", "exec", "n2", "--", sys.executable, "-c", "import socket; print(socket.if_nameindex())"
        ).out
        assert "up0" in interfaces
        assert "br0" in interfaces


# --- jobs


def test_a_job_runs_and_its_output_comes_back(fofoca: CommandLine) -> None:
    job_id = fofoca.submit("--name", "greeting", *SMALL, "--time", "60s", "--", "sh", "-c", "echo hello; echo oops >&2")
    assert fofoca.ok("wait", job_id, "--timeout", "60s").out == ""
    assert fofoca.ok("logs", job_id).out == "hello\noops\n"
    assert fofoca.ok("logs", job_id, "--stderr").out == "oops\n"
    job = fofoca.job(job_id)
    assert {key: job[key] for key in ("id", "name", "state")} == {
        "id": job_id,
        "name": "greeting",
        "state": "succeeded",
    }
    assert job["home"] in ("n1", "n2", "n3")
    (task,) = job["tasks"]
    assert {key: task[key] for key in ("index", "state", "attempt", "exit_code")} == {
        "index": 0, "state": "succeeded", "attempt": task["attempt"], "exit_code": 0,
    }  # fmt: skip
    assert task["node"] in ("n1", "n2", "n3")
    assert {"index", "state", "node", "attempt", "exit_code", "reason"} <= set(task)


def test_any_node_takes_a_job_and_any_node_answers_for_it(fofoca: CommandLine, lab: dict[str, Any]) -> None:
    jobs = {
        name: fofoca.submit("--node-api", api_of(lab, name), *SMALL, "--", "echo", name) for name in ("n1", "n2", "n3")
    }
    for asked in ("n1", "n2", "n3"):
        where = ("--node-api", api_of(lab, asked))
        fofoca.ok("wait", *jobs.values(), "--timeout", "60s", *where)
        listed = {job["id"]: job["state"] for job in fofoca.ok("jobs", "--json", *where).json}
        for name, job_id in jobs.items():
            assert listed[job_id] == "succeeded"
            assert fofoca.ok("logs", job_id, *where).out == f"{name}\n"
            assert fofoca.ok("job", job_id, "--json", *where).json["home"] == name
        assert fofoca.ok("explain", jobs["n1"], *where).out


def test_every_task_of_an_array_has_its_own_output(fofoca: CommandLine) -> None:
    job_id = fofoca.submit(*SMALL, "--array", "0-9", "--", "sh", "-c", "echo task $FOFOCA_TASK_INDEX")
    fofoca.ok("wait", job_id, "--timeout", "60s")
    assert fofoca.ok("logs", job_id, "--task", 3).out == "task 3\n"
    assert sorted(fofoca.ok("logs", job_id).out.splitlines()) == sorted(f"[{n}] task {n}" for n in range(10))
    assert [task["index"] for task in fofoca.job(job_id)["tasks"]] == list(range(10))


def test_exit_codes_come_back_exactly(fofoca: CommandLine) -> None:
    job_id = fofoca.submit(*SMALL, "--array", "0-2", "--", "sh", "-c", "exit $((FOFOCA_TASK_INDEX * 7))")
    ran = fofoca("wait", job_id, "--timeout", "60s")
    assert ran.code == 1
    assert ran.err.startswith(f"fofoca: job {job_id} ")
    job = fofoca.job(job_id)
    assert job["state"] == "failed"
    assert [(task["state"], task["exit_code"]) for task in job["tasks"]] == [
        ("succeeded", 0), ("failed", 7), ("failed", 14),
    ]  # fmt: skip


def test_waiting_has_a_time_out(fofoca: CommandLine) -> None:
    job_id = fofoca.submit(*SMALL, "--", "sleep", "60")
    began = time.monotonic()
    assert fofoca("wait", job_id, "--timeout", "1s").code == 124
    assert time.monotonic() - began < 5
    fofoca.ok("cancel", job_id)


def test_a_time_limit_ends_a_task(fofoca: CommandLine) -> None:
    job_id = fofoca.submit(*SMALL, "--time", "1s", "--", "sleep", "60")
    assert fofoca("wait", job_id, "--timeout", "30s").code == 1
    assert "time" in fofoca.task(job_id)["reason"]


@pytest.mark.usefixtures("lxc_only")
def test_a_memory_limit_binds_and_is_named(fofoca: CommandLine) -> None:
    eat = "x=$(head -c 200000000 /dev/zero | tr '\\0' a); echo ${#x}"
    job_id = fofoca.submit(*SMALL, "--attempts", 1, "--", "sh", "-c", eat)
    assert fofoca("wait", job_id, "--timeout", "60s").code == 1
    assert "memory" in fofoca.task(job_id)["reason"]


def test_cancelling_stops_what_runs(fofoca: CommandLine, lab: dict[str, Any]) -> None:
    job_id = fofoca.submit(*SMALL, "--", "sleep", "61")
    eventually("it runs", lambda: fofoca.task(job_id)["state"] == "running")
    fofoca.ok("cancel", job_id)
    assert fofoca("wait", job_id, "--timeout", "30s").code == 1
    assert fofoca.job(job_id)["state"] == "cancelled"
    eventually("nothing is committed", lambda: all(node["containers"] == 0 for node in fofoca.nodes().values()))


def test_following_a_log_ends_with_the_job(fofoca: CommandLine) -> None:
    job_id = fofoca.submit(*SMALL, "--", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.5; done")
    assert fofoca.ok("logs", "-f", job_id, timeout_s=30).out == "1\n2\n3\n"


def test_what_fits_nowhere_waits_and_is_explained(fofoca: CommandLine) -> None:
    job_id = fofoca.submit("--cpu", "100m", "--memory", "64G", "--image", "busybox", "--", "true")
    eventually("a reason", lambda: "memory" in fofoca.ok("explain", job_id).out)
    assert "pending" in fofoca.ok("explain", job_id).out
    assert fofoca.job(job_id)["state"] == "pending"
    assert "memory" in fofoca.task(job_id)["reason"]
    fofoca.ok("cancel", job_id)
    assert fofoca("wait", job_id, "--timeout", "10s").code == 1


def test_nodes_never_commit_more_than_they_offer(fofoca: CommandLine) -> None:
    job_id = fofoca.submit(
        "--cpu", "600m", "--memory", "100M", "--image", "busybox", "--array", "0-11", "--", "sleep", "1.5"
    )
    fullest = 0
    while fofoca.job(job_id)["state"] not in FINAL:
        for node in fofoca.nodes().values():
            assert node["committed"]["cpu_milli"] <= node["allocatable"]["cpu_milli"]
            fullest = max(fullest, node["committed"]["cpu_milli"])
    assert fofoca.job(job_id)["state"] == "succeeded"
    assert fullest > 0


# --- images


def owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    return entry


def test_a_tar_is_an_image_too_and_the_newest_wins(fofoca: CommandLine, rootfs: Path, tmp_path: Path) -> None:
    tar = tmp_path / "rootfs.tar.gz"
    with tarfile.open(tar, "w:gz") as archive:
        archive.add(rootfs, arcname=".", filter=owned_by_root)
    fofoca.ok("image", "import", "from-tar:1", tar)
    listed = {f"{each['name']}:{each['tag']}": each for each in fofoca.ok("image", "ls", "--json").json}
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", listed["from-tar:1"]["digest"])
    assert listed["from-tar:1"]["digest"] == listed["busybox:latest"]["digest"], "the same content has the same digest"
    job_id = fofoca.submit("--cpu", "100m", "--memory", "32M", "--image", "from-tar:1", "--", "echo", "from a tar")
    fofoca.ok("wait", job_id, "--timeout", "60s")
    fofoca.ok("image", "rm", "from-tar:1")
    assert "from-tar" not in fofoca.ok("image", "ls").out


def test_what_was_exported_can_be_imported(fofoca: CommandLine, tmp_path: Path) -> None:
    out = tmp_path / "busybox.tar"
    fofoca.ok("image", "export", "busybox", "-o", out)
    fofoca.ok("image", "import", "again", out)
    digests = {each["name"]: each["digest"] for each in fofoca.ok("image", "ls", "--json").json}
    assert digests["again"] == digests["busybox"]
    fofoca.ok("image", "rm", "again")


# --- mistakes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["submit", *SMALL[:4], "--image", "nosuch", "--", "true"], "nosuch"),
        (["submit", *SMALL[:4], "--image", "../etc", "--", "true"], "../etc"),
        (["submit", "--cpu", "100m", "--memory", "64Q", "--image", "busybox", "--", "true"], "64Q"),
        (["submit", *SMALL, "--array", "9-0", "--", "true"], "9-0"),
        (["submit", *SMALL, "--constraint", "a==b==c", "--", "true"], "a==b==c"),
        (["submit", *SMALL, "--env", "9X=1", "--", "true"], "9X"),
        (["job", "999001"], "999001"),
        (["wait", "999001"], "999001"),
        (["logs", "999001"], "999001"),
        (["explain", "999001"], "999001"),
        (["cancel", "999001"], "999001"),
        (["job", "12999"], "12999"),
        (["image", "rm", "nosuch"], "nosuch"),
        (["image", "import", "x", "/nonexistent"], "/nonexistent"),
        (["image", "import", "x", "/etc/passwd"], "/etc/passwd"),
        (["image", "import", "BAD NAME", "/var/empty-or-not"], "/var/empty-or-not"),
        (["nodes", "--node-api", "http://127.0.0.1:9"], "127.0.0.1:9"),
        (["lab", "exec", "n9", "--", "true"], "n9"),
        (["lab", "up"], "already up"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_2(fofoca: CommandLine, words: list[str], said: str) -> None:
    ran = fofoca(*words)
    assert ran.code == 2, ran
    assert ran.out == ""
    assert len(ran.err.splitlines()) == 1, ran.err
    assert ran.err.startswith("fofoca: ")
    assert said in ran.err


def test_a_wrong_token_opens_nothing(fofoca: CommandLine) -> None:
    stranger = CommandLine(fofoca.lab, {"FOFOCA_TOKEN": "fof1.AAAA.BBBB"})
    ran = stranger("jobs")
    assert ran.code == 2
    assert "token" in ran.err


def test_users_see_only_their_own_jobs(fofoca: CommandLine) -> None:
    people = {}
    for name in ("ana", "bea"):
        token = fofoca.ok("token", "create", "--user", name).out.strip()
        people[name] = CommandLine(fofoca.lab, {"FOFOCA_TOKEN": token})
    job_id = people["ana"].submit(*SMALL, "--", "echo", "mine")
    people["ana"].ok("wait", job_id, "--timeout", "60s")
    assert people["ana"].ok("logs", job_id).out == "mine\n"
    assert [job["id"] for job in people["ana"].ok("jobs", "--json").json] == [job_id]
    assert people["bea"].ok("jobs", "--json").json == []
    for words in (["job", job_id], ["logs", job_id], ["cancel", job_id], ["explain", job_id]):
        ran = people["bea"](*words)
        assert (ran.code, ran.err) == (2, f"fofoca: no job {job_id}\n"), "a foreign job looks like none"
    assert people["bea"]("image", "rm", "busybox").code == 2


# --- what may break


def test_containers_run_on_without_their_agent(fofoca: CommandLine, lab: dict[str, Any]) -> None:
    home = api_of(lab, "n1")
    job_ids = [start_counting(fofoca, home, cpu="1500m") for _ in range(2)]
    steady, node = away_from(fofoca, "n1", job_ids)
    short = fofoca.submit(
        "--node-api", home, *SMALL, "--constraint", f"node={node}", "--", "sh", "-c", "sleep 2; exit 7"
    )
    eventually("it runs", lambda: fofoca.task(short)["state"] == "running")
    before = eventually("it counts", lambda: counted(fofoca, steady))
    fofoca.ok("lab", "kill", node)
    time.sleep(3)
    fofoca.ok("lab", "start", node)
    assert fofoca("wait", short, "--timeout", "60s").code == 1
    task = fofoca.task(short)
    assert (task["state"], task["exit_code"], task["attempt"], task["node"]) == ("failed", 7, 1, node)
    after = eventually("it counts on", lambda: (count := counted(fofoca, steady)) > before + 12 and count)
    lines = fofoca.ok("logs", steady).out.splitlines()
    assert [int(line) for line in lines] == list(range(1, len(lines) + 1)), "not one line is lost or doubled"
    assert after <= len(lines)
    assert fofoca.task(steady)["attempt"] == 1
    fofoca.ok("cancel", *job_ids)


def test_an_acknowledged_job_survives_its_homes_kill(fofoca: CommandLine, lab: dict[str, Any]) -> None:
    job_id = fofoca.submit("--node-api", api_of(lab, "n2"), *SMALL, "--", "sh", "-c", "sleep 1; echo done")
    fofoca.ok("lab", "kill", "n2")
    waiting = fofoca.start("wait", job_id, "--timeout", "60s")
    try:
        time.sleep(1)
        fofoca.ok("lab", "start", "n2")
        assert waiting.wait(timeout=70) == 0
    finally:
        stop(waiting)
    assert fofoca.ok("logs", job_id).out == "done\n"
    assert fofoca.task(job_id)["exit_code"] == 0


def test_a_home_that_does_not_answer_is_named(fofoca: CommandLine, lab: dict[str, Any]) -> None:
    job_id = fofoca.submit("--node-api", api_of(lab, "n3"), *SMALL, "--", "true")
    fofoca.ok("wait", job_id, "--timeout", "60s")
    fofoca.ok("lab", "kill", "n3")
    ran = fofoca("job", job_id, "--node-api", api_of(lab, "n1"))
    assert ran.code == 2
    assert "n3" in ran.err
    listed = fofoca.ok("jobs", "--node-api", api_of(lab, "n1"))
    assert "n3" in listed.err
    fofoca.ok("lab", "start", "n3")
    eventually("n3 answers", lambda: fofoca("job", job_id, "--node-api", api_of(lab, "n1")).code == 0)


def test_a_lost_nodes_tasks_come_up_elsewhere_once(fofoca: CommandLine, lab: dict[str, Any]) -> None:
    eventually("all are back", lambda: all(node["state"] == "alive" for node in fofoca.nodes().values()))
    home = api_of(lab, "n1")
    job_ids = [start_counting(fofoca, home, cpu="900m") for _ in range(3)]
    moved, node = away_from(fofoca, "n1", job_ids)
    fofoca.ok("lab", "kill", node, "--host")
    task = eventually(
        "it runs elsewhere", lambda: (now := fofoca.task(moved))["state"] == "running" and now["node"] != node and now
    )
    assert task["attempt"] > 1
    eventually("it counts", lambda: counted(fofoca, moved))
    fofoca.ok("lab", "start", node)
    eventually("the node is back", lambda: fofoca.nodes()[node]["state"] == "alive")
    eventually("it holds nothing", lambda: fofoca.nodes()[node]["containers"] == 0)
    assert fofoca.task(moved)["attempt"] == task["attempt"]
    assert fofoca.task(moved)["node"] == task["node"]
    fofoca.ok("cancel", *job_ids)


@pytest.mark.usefixtures("isolated_only")
def test_an_outdated_attempt_is_stopped_when_a_partition_heals(fofoca: CommandLine, lab: dict[str, Any]) -> None:
    eventually("all are back", lambda: all(node["state"] == "alive" for node in fofoca.nodes().values()))
    home = api_of(lab, "n1")
    job_ids = [start_counting(fofoca, home, cpu="900m") for _ in range(3)]
    moved, node = away_from(fofoca, "n1", job_ids)
    old = eventually("its processes", lambda: processes_of(fofoca, node))
    fofoca.ok("lab", "cut", node)
    task = eventually(
        "it runs elsewhere", lambda: (now := fofoca.task(moved))["state"] == "running" and now["node"] != node and now
    )
    assert processes_of(fofoca, node) == old, "an unreachable node goes on with what it has"
    fofoca.ok("lab", "heal")
    eventually("the outdated attempts are stopped", lambda: not processes_of(fofoca, node))
    assert fofoca.task(moved)["attempt"] == task["attempt"]
    assert fofoca.task(moved)["state"] == "running"
    fofoca.ok("cancel", *job_ids)


def processes_of(fofoca: CommandLine, name: str) -> list[int]:
    """The counting shells of a node, as this machine numbers them."""
    script = (
        "import sys; from node.lab import leftovers, looking; node = looking.node_of(looking.running(), sys.argv[1]);"
        "print(*sorted(pid for pid in leftovers.descendants(node.keeper_pid)"
        " if sys.argv[2].encode() in leftovers.command_line(pid)[2:3]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, name, COUNT],
        capture_output=True,
        text=True,
        env=fofoca.full_environment(),
        check=True,
    )
    return [int(word) for word in done.stdout.split()]
