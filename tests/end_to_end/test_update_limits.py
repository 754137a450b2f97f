"""Limits as a user asks for them and changes them, on a lab of two nodes: what the kernel says, and who refuses."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.host.busybox import build_busybox_rootfs
from tests.end_to_end.command_line import CommandLine, eventually

pytestmark = [pytest.mark.xdist_group("lab"), pytest.mark.slow, pytest.mark.lxc, pytest.mark.root]

GROUPS = Path("/sys/fs/cgroup")
SMALL = ("--cpu", "100m", "--memory", "32M", "--image", "busybox")


@pytest.fixture(scope="module", autouse=True)
def lab(fofoca: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    fofoca.ok("lab", "up", "--nodes", 2)
    status: dict[str, Any] = fofoca.ok("lab", "status", "--json").json
    if status["runtime"] != "lxc":
        pytest.skip("plain processes have no limits")
    with tempfile.TemporaryDirectory() as folder:
        build_busybox_rootfs(Path(folder) / "rootfs")
        fofoca.ok("image", "import", "busybox", Path(folder) / "rootfs")
    yield status
    for node in status["nodes"]:
        print(f"--- {node['name']}", *fofoca("lab", "log", node["name"], "--lines", 30).out.splitlines(), sep="\n")


def running(fofoca: CommandLine, *options: str) -> int:
    job = fofoca.submit(*SMALL, *options, "--", "sleep", "300")
    eventually("it runs", lambda: fofoca.task(job)["state"] == "running")
    return job


def shown(fofoca: CommandLine, job: int, *names: str, index: int = 0) -> str:
    """What the kernel says of a task, of whichever file this version has."""
    task = f"fofoca-lab-{fofoca.lab}/{fofoca.task(job, index)['node']}/{job}.{index}.1/payload"
    places = (GROUPS / name.partition(".")[0] for name in names)
    found = [place / task / name for place, name in zip(places, names, strict=True) if (place / task / name).exists()]
    found += [GROUPS / task / name for name in names if (GROUPS / task / name).exists()]
    return found[0].read_text().strip() if found else ""


def memory(fofoca: CommandLine, job: int, index: int = 0) -> str:
    return shown(fofoca, job, "memory.limit_in_bytes", "memory.max", index=index)


def test_a_job_is_changed_while_it_runs_through_any_node(fofoca: CommandLine, lab: dict[str, Any]) -> None:
    job = running(fofoca)
    assert memory(fofoca, job) == str(32 << 20)
    for pids, node in enumerate(lab["nodes"], 40):
        changed = fofoca.ok("update", "--node-api", node["api"], job, "--memory", f"{pids}M", "--pids", pids)
        assert changed.out == f"{job}: changed, 1 running task\n"
        assert memory(fofoca, job) == str(pids << 20)
        assert shown(fofoca, job, "pids.max") == str(pids)
    fofoca.ok("cancel", job)


def test_what_no_node_has_room_for_is_refused_by_name_and_nothing_changes(fofoca: CommandLine) -> None:
    job = running(fofoca)
    refused = fofoca("update", job, "--memory", "9000G", "--pids", "7")
    assert refused.code != 0
    assert "memory" in refused.err
    assert "keeps its limits" in refused.err
    assert memory(fofoca, job) == str(32 << 20)
    assert shown(fofoca, job, "pids.max") != "7"
    fofoca.ok("cancel", job)


def test_one_task_of_an_array_can_be_changed_alone(fofoca: CommandLine) -> None:
    job = running(fofoca, "--array", "0-1")
    eventually("it runs", lambda: fofoca.task(job, 1)["state"] == "running")
    fofoca.ok("update", f"{job}.0", "--limit-memory", "64M")
    assert memory(fofoca, job) == str(64 << 20)
    assert memory(fofoca, job, index=1) == str(32 << 20)
    fofoca.ok("cancel", job)


def test_limits_are_what_was_asked_for(fofoca: CommandLine) -> None:
    line = "ulimit -n; ulimit -Hn; ulimit -c"
    job = fofoca.submit(*SMALL, "--rlimit", "nofile=100:200", "--memory-soft", "8M", "--", "sh", "-c", line)
    fofoca.ok("wait", job)
    assert fofoca.ok("logs", job).out.split() == ["100", "200", "0"]


def test_what_these_nodes_can_not_do_waits_and_is_explained(fofoca: CommandLine) -> None:
    job = fofoca.submit(*SMALL, "--device", "nosuch", "--rlimit", "nofile=100000000", "--", "true")
    said = fofoca.ok("explain", job).out
    assert "no device nosuch" in said
    fofoca.ok("cancel", job)
    other = fofoca.submit(*SMALL, "--swap", "1G", "--", "true")
    assert "maximum of swap" in fofoca.ok("explain", other).out
    fofoca.ok("cancel", other)


def test_mistakes_are_one_line(fofoca: CommandLine) -> None:
    for words in (
        ("update", "x", "--memory", "1M"),
        ("update", "12001"),
        ("update", "999999999001", "--memory", "64M"),
        ("submit", *SMALL, "--rlimit", "nofile=x", "--", "true"),
        ("submit", *SMALL, "--cores", "3-1", "--", "true"),
        ("submit", *SMALL, "--disk-limit", "speed=9", "--", "true"),
    ):
        ran = fofoca(*words)
        assert ran.code != 0, words
        assert ran.err.startswith("fofoca: "), ran.err
        assert len(ran.err.splitlines()) == 1, ran.err
