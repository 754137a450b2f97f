"""The life of tasks on real containers, through any node of a lab: health, freezing, signals, output that goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.command_line import CommandLine, eventually, stop

pytestmark = [pytest.mark.xdist_group("lab"), pytest.mark.slow, pytest.mark.root, pytest.mark.lxc]

SMALL = ("--cpu", "50m", "--memory", "16M", "--image", "busybox")
WEB = "mkdir -p /tmp/www && touch /tmp/www/ok && exec httpd -f -p 8080 -h /tmp/www"


@pytest.fixture(scope="module", autouse=True)
def lab(fofoca: CommandLine) -> Iterator[None]:
    fofoca.ok("lab", "up", "--nodes", 3)
    yield
    fofoca("lab", "down")


def task(fofoca: CommandLine, id: int) -> dict[str, Any]:
    found: dict[str, Any] = fofoca.ok("job", id, "--json").json["tasks"][0]
    return found


def becomes(fofoca: CommandLine, id: int, **wanted: object) -> dict[str, Any]:
    """Wait until the task has these fields; return it."""

    def has() -> dict[str, Any] | None:
        found = task(fofoca, id)
        return found if wanted.items() <= found.items() else None

    found: dict[str, Any] = eventually(f"job {id} is {wanted}", has, 40)
    return found


def test_a_service_that_gets_unhealthy_is_restarted_and_says_why(fofoca: CommandLine) -> None:
    checks = ("--health-http", "8080/ok", "--health-interval", "500ms", "--health-failures", "2")
    policy = ("--kind", "service", "--restart", "on-failure", "--restart-backoff", "3s")
    id = fofoca.submit(*SMALL, *checks, *policy, "--", "sh", "-c", WEB)
    becomes(fofoca, id, state="running", health="healthy", attempt=1)
    assert "healthy" in fofoca.ok("job", id).out
    fofoca.ok("exec", id, "--", "rm", "/tmp/www/ok")
    ended = becomes(fofoca, id, state="pending", attempt=1)
    assert ended["reason"].startswith("unhealthy: GET /ok: status 404 Not Found, expected 200 to 399")
    becomes(fofoca, id, state="running", health="healthy", attempt=2)
    fofoca.ok("cancel", id)


def test_a_command_inside_tells_too_and_may_only_be_reported_or_changed(fofoca: CommandLine) -> None:
    checks = ("--health-command", "sh -c 'echo no file; test -e /tmp/ready'", "--health-interval", "500ms")
    id = fofoca.submit(
        *SMALL, *checks, "--health-start", "0s", "--unhealthy", "report", "--network", "none", "--", "sleep", "600"
    )
    found = becomes(fofoca, id, state="running", health="unhealthy")
    assert found["health_reason"] == "exit code 1: no file"
    (line,) = [each for each in fofoca.ok("jobs", "--json").json if each["id"] == id]
    assert line["unhealthy"] == 1
    assert "1 running, 1 unhealthy" in fofoca.ok("jobs").out
    fofoca.ok("exec", id, "--", "touch", "/tmp/ready")
    becomes(fofoca, id, state="running", health="healthy", attempt=1)
    other = ("--health-command", "sh -c 'exit 4'", "--health-start", "0s", "--health-failures", "1")
    fofoca.ok("update", id, *other, "--unhealthy", "report")
    becomes(fofoca, id, state="running", health="unhealthy", health_reason="exit code 4")
    fofoca.ok("update", id, "--no-health")
    becomes(fofoca, id, state="running", health="", attempt=1)
    fofoca.ok("cancel", id)


def test_a_frozen_task_shows_also_after_its_home_and_its_node_were_killed(fofoca: CommandLine) -> None:
    id = fofoca.submit(*SMALL, "--constraint", "node=n1", "--", "sleep", "600")
    assert becomes(fofoca, id, state="running")["node"] == fofoca.ok("job", id, "--json").json["home"] == "n1"
    fofoca.ok("freeze", id)
    becomes(fofoca, id, state="running", frozen=True)
    assert "frozen" in fofoca.ok("job", id).out
    assert "1 running, 1 frozen" in fofoca.ok("jobs").out
    fofoca.ok("lab", "kill", "n1")
    fofoca.ok("lab", "start", "n1")
    eventually("n1 answers for its job", lambda: fofoca("job", id).code == 0, 40)
    becomes(fofoca, id, state="running", frozen=True)
    fofoca.ok("thaw", id)
    becomes(fofoca, id, state="running", frozen=False)
    fofoca.ok("cancel", id)


def test_a_task_is_warned_and_stopped_by_the_signals_it_asked_for(fofoca: CommandLine) -> None:
    line = "trap 'echo warned' USR1; trap 'echo asked; exit 0' INT; echo ready; while :; do sleep 0.1; done"
    signals = ("--time", "60s", "--signal", "B:USR1@58", "--stop-signal", "INT")
    id = fofoca.submit(*SMALL, *signals, "--", "sh", "-c", line)
    eventually("it is warned", lambda: fofoca.ok("logs", id).out == "ready\nwarned\n", 40)
    fofoca.ok("cancel", id)
    eventually("it is asked", lambda: fofoca.ok("logs", id).out == "ready\nwarned\nasked\n", 40)


def test_how_a_task_ended_is_shown_in_full(fofoca: CommandLine) -> None:
    bomb = "x=0123456789abcdef; while :; do x=$x$x; done"
    killed = fofoca.submit(*SMALL, "--", "sh", "-c", "kill -9 $$")
    hungry = fofoca.submit(*SMALL, "--attempts", "1", "--", "sh", "-c", bomb)
    failed = becomes(fofoca, killed, state="failed", exit_code=137)
    assert (failed["reason"], failed["result"]["signal"], failed["result"]["oom_killed"]) == ("signal 9", 9, False)
    failed = becomes(fofoca, hungry, state="failed", exit_code=137)
    assert (failed["reason"], failed["result"]["oom_killed"]) == ("out of memory", True)
    assert (15 << 20) < failed["result"]["memory_peak_bytes"] <= (16 << 20)
    assert failed["result"]["cpu_ns"] > 0
    lines = fofoca.ok("job", hungry).out.splitlines()
    assert "PEAK" in lines[1].split()
    assert re.search(r" 1[56](\.\d+)?M ", lines[2]), lines[2]


BURST = 3 << 20
LINE = 64
WRITER = f"""
n=0
while [ $n -lt 7 ]; do
    n=$((n + 1))
    awk -v b=$n 'BEGIN {{ for (i = 0; i < {BURST // LINE}; i++) printf "%03d %059d\\n", b, i }}'
    while [ ! -e /tmp/go$n ]; do sleep 0.05; done
done
"""


def written(bursts: int) -> bytes:
    lines = (f"{burst:03d} {line:059d}\n" for burst in range(1, bursts + 1) for line in range(BURST // LINE))
    return "".join(lines).encode()


def test_output_is_followed_through_every_node_while_it_is_rotated(fofoca: CommandLine, tmp_path: Path) -> None:
    """Seven times three megabytes, of which the node keeps 16: followers that keep up miss nothing."""
    id = fofoca.submit(*SMALL, "--constraint", "node=n2", "--", "sh", "-c", WRITER)
    home = fofoca.ok("job", id, "--json").json["home"]
    nodes = {node["name"]: node["api"] for node in fofoca.ok("lab", "status", "--json").json["nodes"]}
    assert len({home, "n2", *nodes}) == 3
    files = {name: tmp_path / name for name in nodes}
    followers = [
        fofoca.start("logs", "-f", id, "--stdout", "--node-api", url, output=files[name]) for name, url in nodes.items()
    ]
    try:
        for burst in range(1, 8):
            for name, file in files.items():
                eventually(f"{name} has burst {burst}", lambda file=file, n=burst: _size(file) == n * BURST, 40)
            fofoca.ok("exec", id, "--", "touch", f"/tmp/go{burst}")
        assert [follower.wait(40) for follower in followers] == [0] * 3
    finally:
        for follower in followers:
            stop(follower)
    expected = written(7)
    for name, file in files.items():
        assert file.read_bytes() == expected, name


def _size(file: Path) -> int:
    return file.stat().st_size


def test_output_of_the_next_attempt_is_followed_from_its_beginning(fofoca: CommandLine, tmp_path: Path) -> None:
    line = 'echo "attempt $FOFOCA_ATTEMPT of many"; sleep 1; [ $FOFOCA_ATTEMPT = 3 ]'
    policy = ("--kind", "service", "--restart", "on-failure", "--restart-backoff", "500ms")
    id = fofoca.submit(*SMALL, *policy, "--", "sh", "-c", line)
    followed = fofoca.ok("logs", "-f", id, "--stdout")
    assert followed.out == "".join(f"attempt {attempt} of many\n" for attempt in (1, 2, 3))


COUNTER = "n=0; while [ $n -lt 60 ]; do n=$((n+1)); echo $n; sleep 0.1; done"
UNTIL_TOLD = "until [ -e /tmp/done ]; do sleep 0.1; done"


@pytest.fixture
def freezing(fofoca: CommandLine) -> Iterator[None]:
    fofoca.ok("settings", "set", "partition/urgent", "tier=10")
    fofoca.ok("settings", "set", "preemption/default", "mode=freeze", "run_min=0s")
    yield
    fofoca("settings", "remove", "preemption/default")


def test_a_lower_tier_stands_still_for_a_higher_one_and_finishes_its_work_in_the_same_try(
    fofoca: CommandLine, lab_name: str, freezing: None
) -> None:
    cpu = f"{_most_of(fofoca, 'n2')}m"
    options = ("--cpu", cpu, "--memory", "16M", "--image", "busybox", "--constraint", "node=n2")
    low = fofoca.submit(*options, "--", "sh", "-c", COUNTER)
    eventually("it counts", lambda: "2\n" in fofoca("logs", low).out, 40)
    high = fofoca.submit(*options, "--partition", "urgent", "--", "sh", "-c", UNTIL_TOLD)
    becomes(fofoca, high, state="running", node="n2")
    found = becomes(fofoca, low, state="running", frozen=True, attempt=1)
    assert found["reason"].startswith(f"frozen for job {high} by preemption since ")
    assert _stands(lab_name, low)
    refused = fofoca("thaw", low)
    assert refused.code == 2
    assert f"was frozen for job {high} by preemption" in refused.err
    assert "frozen for a higher tier" in fofoca("update", low, "--memory", "32M").err
    fofoca.ok("lab", "kill", "n2")
    assert _stands(lab_name, low)
    fofoca.ok("lab", "start", "n2")
    eventually("it answers", lambda: fofoca("exec", high, "--", "true").code == 0, 40)
    eventually("it is known again", lambda: "by preemption" in fofoca.ok("explain", low).out, 40)
    assert _stands(lab_name, low)
    assert "60\n" not in fofoca.ok("logs", low).out
    fofoca.ok("exec", high, "--", "touch", "/tmp/done")
    becomes(fofoca, high, state="succeeded")
    becomes(fofoca, low, state="succeeded", attempt=1)
    assert fofoca.ok("logs", low).out.split() == [str(n) for n in range(1, 61)]


def _most_of(fofoca: CommandLine, node: str) -> int:
    """So much CPU that two of it don't fit on a node."""
    (found,) = [each for each in fofoca.ok("nodes", "--json").json if each["name"] == node]
    return int(found["allocatable"]["cpu_milli"] * found["permitted"]["cpu"] * 2 / 3)


def _stands(lab: str, job: int) -> bool:
    """Whether the kernel says that all processes of a job's container in this lab stand still."""
    hierarchies = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]
    states = []
    for root in (hierarchy / f"fofoca-lab-{lab}" for hierarchy in hierarchies):
        states += [*root.rglob(f"{job}.0.1/payload/freezer.state"), *root.rglob(f"{job}.0.1/payload/cgroup.events")]
    assert states
    return any(each.read_text().strip() == "FROZEN" or "frozen 1" in each.read_text() for each in states)
