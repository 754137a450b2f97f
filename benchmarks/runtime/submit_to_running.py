"""From a client's request at one node to the job's process running on another, beside lxc-execute, docker and podman.

    python benchmarks/runtime/submit_to_running.py [--rounds 30] [--jobs 500] [--rivals lxc,docker,podman] [--json]

The job is a static program that prints CLOCK_MONOTONIC, which all containers of a machine share: "running" is that
moment, counted from just before the request (HTTP to n1, placed on n2 by constraint, network included), from just
before the spawn of `lxc-execute` with the same configuration, or of `docker run` / `podman run --network none`. All
take turns, so that neighbours on the machine disturb them alike. Then JOBS short containers as one array on the lab's
nodes give jobs/s; and the agents are watched at rest. Needs root, LXC, busybox and a C compiler; starts and removes a
lab, a bridge and, for docker, a dockerd of its own. Leaves nothing behind.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import trio
from start_overhead import BRIDGE, make_image, percentile, spec

from node.host.cgroups import remove_tree
from node.host.network import ensure_bridge, remove_interface
from node.lab import record
from node.runtime.lxc.lxc import LxcRuntime
from node.runtime.supervisor import build

STAMP_SOURCE = r"""
#include <stdio.h>
#include <time.h>
int main(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
    return 0;
}
"""
REST_S = 10.0
Times = dict[str, list[float]]
Run = Callable[[int], float]
"""One turn of one way: takes its number, returns milliseconds to running."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--rivals", default="lxc,docker,podman")
    parser.add_argument("--json", action="store_true", help="one line")
    options = parser.parse_args()
    with ExitStack() as stack:
        top = Path(tempfile.mkdtemp(prefix="fofoca-bench."))
        stack.callback(shutil.rmtree, top, ignore_errors=True)
        top.chmod(0o711)
        image = make_stamp_image(top / "image")
        ways = {"fofoca": stack.enter_context(fofoca(image))}
        for rival in filter(None, options.rivals.split(",")):
            ways[rival] = stack.enter_context(RIVALS[rival](top, image))
        times = take_turns(ways, options.rounds)
        summary = {"jobs_per_s": jobs_per_s(options.jobs), **at_rest(), "disk_sync_ms": disk_sync_ms(top)}
    report(times, summary, options.json)


def take_turns(ways: dict[str, Run], rounds: int) -> Times:
    """Return milliseconds to running by way; the first two rounds warm up."""
    times: Times = {name: [] for name in ways}
    for number in range(rounds + 2):
        for name, run in ways.items():
            took_ms = run(number)
            if number >= 2:
                times[name].append(took_ms)
    return times


def timed(command: list[object], env: dict[str, str] | None = None) -> float:
    """Run a command that prints the stamp; return the milliseconds from its spawn to the stamp."""
    begin = time.monotonic_ns()
    done = subprocess.run(
        list(map(str, command)), env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True
    )
    return (int(done.stdout) - begin) / 1e6


def make_stamp_image(path: Path) -> Path:
    make_image(path)
    source = path.parent / "stamp.c"
    source.write_text(STAMP_SOURCE)
    compiler = shutil.which("gcc") or shutil.which("tcc")
    if compiler is None:
        raise SystemExit("this benchmark needs a C compiler (package gcc or tcc)")
    subprocess.run([compiler, "-static", "-o", path / "bin/stamp", source], check=True)
    return path


# --- ours


@contextmanager
def fofoca(image: Path) -> Iterator[Run]:
    command = Path(shutil.which("fofoca") or ".venv/bin/fofoca")
    subprocess.run([command, "lab", "up", "--nodes", "3"], check=True, stdout=subprocess.DEVNULL)
    try:
        subprocess.run([command, "image", "import", "stamp", image], check=True, stdout=subprocess.DEVNULL)
        agent = Agent()
        yield lambda number: fofoca_run(agent)
    finally:
        subprocess.run([command, "lab", "down"], check=True, stdout=subprocess.DEVNULL)


class Agent:
    """A client of n1's API with one connection, as a program that submits jobs would keep."""

    def __init__(self) -> None:
        lab = record.load()
        assert lab is not None
        self._token = lab.token
        self._connection = http.client.HTTPConnection("agent")
        self._connection.sock = socket.socket(socket.AF_UNIX)
        self._connection.sock.connect(lab.nodes[0].api_socket)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        self._connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = self._connection.getresponse()
        data = response.read()
        assert response.status < 300, (response.status, data)
        return data if "/logs" in path else json.loads(data)


def fofoca_run(agent: Agent) -> float:
    job = {
        "name": "stamp",
        "argv": ["/bin/stamp"],
        "cpu_milli": 250,
        "memory_bytes": 64 << 20,
        "image": "stamp",
        "constraints": ["node=n2"],
    }
    begin = time.monotonic_ns()
    job_id = agent.call("POST", "/v1/jobs", job)["id"]
    done = agent.call("GET", f"/v1/jobs/{job_id}?wait_s=30")
    assert done["state"] == "succeeded", done
    return (int(agent.call("GET", f"/v1/jobs/{job_id}/logs?stream=stdout")) - begin) / 1e6


def jobs_per_s(count: int) -> float:
    """Run one array of short containers over all nodes of the lab."""
    agent = Agent()
    job = {
        "name": "many",
        "argv": ["/bin/true"],
        "cpu_milli": 250,
        "memory_bytes": 32 << 20,
        "image": "stamp",
        "array": f"0-{count - 1}",
    }
    begin = time.monotonic()
    job_id = agent.call("POST", "/v1/jobs", job)["id"]
    while (done := agent.call("GET", f"/v1/jobs/{job_id}?wait_s=30"))["state"] in ("pending", "running"):
        pass
    assert done["state"] == "succeeded", done["state"]
    return count / (time.monotonic() - begin)


def at_rest() -> dict[str, float]:
    """Return the agents' mean CPU share (percent of one core) and resident memory while nothing happens."""
    time.sleep(2)
    lab = record.load()
    assert lab is not None
    configs = {node.config for node in lab.nodes}
    agents = [each for each in psutil.process_iter(["cmdline"]) if _runs_agent(each.info["cmdline"] or [], configs)]
    before = [sum(process.cpu_times()[:2]) for process in agents]
    time.sleep(REST_S)
    burnt = [sum(process.cpu_times()[:2]) - begun for process, begun in zip(agents, before, strict=True)]
    return {
        "agent_cpu_percent": sum(burnt) / len(burnt) / REST_S * 100,
        "agent_rss_mb": sum(process.memory_info().rss for process in agents) / len(agents) / 1e6,
    }


def disk_sync_ms(top: Path) -> float:
    """Return the median time this disk takes to make a small write durable: a submission pays it twice."""
    times = []
    with (top / "sync").open("wb", buffering=0) as file:
        for _ in range(50):
            begin = time.perf_counter()
            file.write(b"x" * 512)
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - begin) * 1000)
    return percentile(times, 0.5)


def _runs_agent(cmdline: list[str], configs: set[str]) -> bool:
    return (
        cmdline[-1:] != [] and cmdline[-1] in configs and "agent" in cmdline and "keeper" not in " ".join(cmdline[:3])
    )


# --- rivals


@contextmanager
def raw_lxc(top: Path, image: Path) -> Iterator[Run]:
    ensure_bridge(BRIDGE, "10.213.7.1/24")
    runtime = LxcRuntime(top / "run", build(top / "bin"), f"fofoca-bench-{os.getpid()}")
    try:
        yield lambda number: trio.run(raw_lxc_run, runtime, image, number)
    finally:
        trio.run(runtime.purge)
        remove_interface(BRIDGE)


async def raw_lxc_run(runtime: LxcRuntime, image: Path, number: int) -> float:
    """Time `lxc-execute` alone: control groups and the container's layer are there before the clock starts."""
    container = spec(f"r.{number}", image, network=True, argv=("/bin/stamp",))
    await runtime.prepare(container)
    directory = runtime._directory(container.name)
    command, env = runtime._command(container, directory)
    ready = os.open(directory.path / "ready", os.O_RDONLY | os.O_NONBLOCK)  # the hook tells somebody that it is set up
    took_ms = timed(list(command), env)
    os.close(ready)
    for path in runtime._cgroups.directories(container.name):
        remove_tree(path)
    await runtime.remove(container.name)
    return took_ms


@contextmanager
def docker(top: Path, image: Path) -> Iterator[Run]:
    home = top / "docker"
    home.mkdir()
    address = f"unix://{home}/d.sock"
    options = ["--iptables=false", "--ip6tables=false", "--ip-masq=false", "--bridge=none", "--storage-driver=overlay2"]
    places = ["--data-root", home / "data", "--exec-root", home / "exec", "-H", address, "-p", home / "pid"]
    daemon = subprocess.Popen(["dockerd", *places, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = ["docker", "-H", address]
    try:
        wait_until(lambda: (home / "d.sock").exists() and not run_quietly([*client, "version"]))
        run_tar_import([*client, "import", "-", "stamp:1"], image)
        run = [*client, "run", "--rm", "--network", "none", "stamp:1", "/bin/stamp"]
        yield lambda number: timed(run)
    finally:
        daemon.terminate()
        daemon.wait(30)
        subprocess.run(["umount", "-R", home / "data"], check=False, stderr=subprocess.DEVNULL)
        for group in Path("/sys/fs/cgroup").glob("*/docker"):
            remove_tree(group)


@contextmanager
def podman(top: Path, image: Path) -> Iterator[Run]:
    home = top / "podman"
    places = ["--root", home / "root", "--runroot", home / "run"]
    client = ["podman", *places, "--cgroup-manager", "cgroupfs", "--storage-driver", "overlay", "--events-backend=file"]
    try:
        run_tar_import([*client, "import", "-", "stamp:1"], image)
        limits = ["--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000", "--log-driver", "none"]
        run = [*client, "--runtime", "runc", "run", "--rm", "--network", "none", *limits, "stamp:1", "/bin/stamp"]
        yield lambda number: timed(run)
    finally:
        subprocess.run(["umount", home / "root/overlay"], check=False, stderr=subprocess.DEVNULL)
        for group in Path("/sys/fs/cgroup").glob("*/libpod_parent"):
            remove_tree(group)


RIVALS = {"lxc": raw_lxc, "docker": docker, "podman": podman}


def run_tar_import(command: list[object], image: Path) -> None:
    with subprocess.Popen(["tar", "-C", image, "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(list(map(str, command)), stdin=tar.stdout, check=True, capture_output=True)


def run_quietly(command: list[str]) -> int:
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode


def wait_until(condition: Callable[[], bool], deadline_s: float = 30.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("a rival did not come up in time")
        time.sleep(0.1)


# --- the table


def report(times: Times, summary: dict[str, float], as_json: bool) -> None:
    rows = {name: (percentile(values, 0.5), percentile(values, 0.95)) for name, values in times.items()}
    if as_json:
        flat = {
            f"{name}_{q}_ms": round(value, 1)
            for name, row in rows.items()
            for q, value in zip(("p50", "p95"), row, strict=True)
        }
        print(json.dumps({**flat, **{name: round(value, 1) for name, value in summary.items()}}))
        return
    print(f"request to running     p50 ms   p95 ms   ({len(times['fofoca'])} rounds, in turns)")
    for name, (p50, p95) in rows.items():
        print(f"{name:20}{p50:9.1f}{p95:9.1f}")
    for name, value in summary.items():
        print(f"{name:20}{value:9.1f}")


if __name__ == "__main__":
    main()
