"""A lab is there or it is not: half-made, crashed and repeated ones leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.host import cgroups
from tests.end_to_end.command_line import FOFOCA, CommandLine, eventually, remains_of, stop

pytestmark = [pytest.mark.xdist_group("lab"), pytest.mark.slow]


@pytest.fixture(autouse=True)
def nothing_before_and_after(fofoca: CommandLine) -> Iterator[None]:
    assert remains_of(fofoca.lab) == []
    yield
    fofoca("lab", "down")
    assert remains_of(fofoca.lab) == []


def record_of(fofoca: CommandLine) -> Path:
    script = "from node.lab import record; print(record.path())"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=fofoca.full_environment(), check=True
    )
    return Path(done.stdout.strip())


def submit_small(fofoca: CommandLine, *command: str) -> int:
    """Containers need an image, which a lab has where the machine has busybox; plain processes need none."""
    names = [each["name"] for each in fofoca.ok("image", "ls", "--json").json]
    image = ["--image", "busybox"] if "busybox" in names else []
    return fofoca.submit("--cpu", "100m", "--memory", "32M", *image, "--", *command)


def test_without_a_lab_every_lab_command_says_so(fofoca: CommandLine) -> None:
    for words in (["status"], ["exec", "n1", "--", "true"], ["kill", "n1"], ["start", "n1"], ["cut", "n1"], ["heal"]):
        ran = fofoca("lab", *words)
        assert ran.code == 2
        assert "fofoca lab up" in ran.err
    assert fofoca.ok("lab", "down").out == "there was no lab\n"


def test_a_lab_comes_goes_and_comes_again(fofoca: CommandLine) -> None:
    assert "1 node is up" in fofoca.ok("lab", "up", "--nodes", 1, "--cpu", "500m", "--memory", "256M").out
    assert fofoca.nodes()["n1"]["allocatable"] == {"cpu_milli": 500, "memory_bytes": 256 << 20}
    refused = fofoca("lab", "up")
    assert (refused.code, refused.err) == (2, "fofoca: a lab is already up (n1); `fofoca lab down` removes it\n")
    fofoca.ok("lab", "down")
    assert remains_of(fofoca.lab) == []
    assert fofoca.ok("lab", "down").out == "there was no lab\n"


@pytest.mark.root
def test_a_labs_groups_are_the_machines_wherever_it_was_started(fofoca: CommandLine) -> None:
    """A login session's group holds processes: on v2 it can't be divided, and nobody would find the groups later."""
    session = f"{fofoca.lab}-session"
    groups = [each.mount / session for each in cgroups.detect().hierarchies]
    for group in groups:
        group.mkdir()
    try:
        moves = "".join(f"echo $$ >{group}/cgroup.procs; " for group in groups)
        script = f'{moves} exec "$0" "$@"'
        environment = fofoca.full_environment()
        subprocess.run(["/bin/sh", "-c", script, FOFOCA, "lab", "up", "--nodes", "1"], env=environment, check=True)
        assert [group for group in groups if (group / "cgroup.procs").read_text()] == []
        fofoca.ok("lab", "down")
    finally:
        for group in groups:
            group.rmdir()


def test_removing_one_lab_leaves_another_alone(fofoca: CommandLine) -> None:
    other = CommandLine(fofoca.lab + "b")
    try:
        fofoca.ok("lab", "up", "--nodes", 1)
        other.ok("lab", "up", "--nodes", 1)
        fofoca.ok("lab", "down")
        assert other.nodes()["n1"]["state"] == "alive"
    finally:
        other("lab", "down")
    assert remains_of(other.lab) == []


def test_a_node_is_switched_off_and_on(fofoca: CommandLine) -> None:
    fofoca.ok("lab", "up", "--nodes", 1)
    job_id = submit_small(fofoca, "true")
    fofoca.ok("wait", job_id, "--timeout", "60s")
    fofoca.ok("lab", "kill", "n1", "--host")
    assert fofoca.ok("lab", "status", "--json").json["nodes"][0]["host"] == "off"
    for words in (["exec", "n1", "--", "true"], ["kill", "n1"]):
        assert "switched off" in fofoca("lab", *words).err
    fofoca.ok("lab", "start", "n1")
    eventually(
        "its ledger is as it was",
        lambda: fofoca("job", job_id).code == 0 and fofoca.job(job_id)["state"] == "succeeded",
    )
    with_agent = fofoca.ok("lab", "status", "--json").json["nodes"][0]["agent"]
    fofoca.ok("lab", "kill", "n1")
    eventually("the agent is gone", lambda: fofoca.ok("lab", "status", "--json").json["nodes"][0]["agent"] == "-")
    fofoca.ok("lab", "start", "n1")
    again = eventually(
        "another agent", lambda: fofoca.ok("lab", "status", "--json").json["nodes"][0]["agent"].strip("-")
    )
    assert again != with_agent


@pytest.mark.parametrize("after_s", [0.4, 1.0, 2.0])
def test_a_lab_that_died_while_being_made_is_removed(fofoca: CommandLine, after_s: float) -> None:
    making = fofoca.start("lab", "up", "--nodes", 2)
    time.sleep(after_s)
    os.killpg(making.pid, signal.SIGKILL)
    stop(making)
    fofoca.ok("lab", "down")
    assert remains_of(fofoca.lab) == []


def test_a_lab_is_removed_without_its_record_and_over_a_stale_one_a_new_one_starts(fofoca: CommandLine) -> None:
    fofoca.ok("lab", "up", "--nodes", 1)
    submit_small(fofoca, "sleep", "1000")
    record = record_of(fofoca)
    keeper = json.loads(record.read_text())["nodes"][0]["keeper_pid"]
    record.unlink()
    fofoca.ok("lab", "down")
    assert remains_of(fofoca.lab) == []

    fofoca.ok("lab", "up", "--nodes", 1)
    keeper = json.loads(record.read_text())["nodes"][0]["keeper_pid"]
    os.kill(keeper, signal.SIGKILL)
    eventually("the keeper is gone", lambda: not Path(f"/proc/{keeper}").exists())
    fofoca.ok("lab", "up", "--nodes", 1)


def test_two_lab_commands_do_not_work_at_once(fofoca: CommandLine) -> None:
    making = fofoca.start("lab", "up", "--nodes", 2)
    try:
        eventually("it is at work", lambda: record_of(fofoca).exists(), 10)
        ran = fofoca("lab", "down")
        assert ran.code in (0, 1)
        if ran.code == 1:
            assert "at work" in ran.err
        making.communicate(timeout=60)
    finally:
        stop(making)


def test_a_broken_agent_is_shown_by_the_end_of_its_log(fofoca: CommandLine) -> None:
    """An agent that can't start must not leave its starter waiting."""
    broken = CommandLine(fofoca.lab, {"PYTHONPATH": str(Path(__file__).parent / "broken")})
    ran = broken("lab", "up", "--nodes", 1)
    assert ran.code == 1
    assert "this agent is broken on purpose" in ran.err
    assert remains_of(fofoca.lab) == []
