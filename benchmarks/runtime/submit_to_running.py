"""From a client's request at one node to the job's process running on another; jobs a second; the agents at rest.

    python benchmarks/runtime/submit_to_running.py [--rounds 30] [--jobs 500] [--network bridge] [--json]

A job prints the monotonic clock (rivals.py): "running" is that moment, counted from just before the HTTP request to n1;
the job is placed on n2 by constraint. Then JOBS short containers as one array on the lab's nodes give jobs/s; and the
agents are watched at rest. compare.py has the same beside other runtimes, without network. Needs root, LXC, busybox
and a C compiler; starts and removes a lab. Leaves nothing behind.
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
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from rivals import Run, Took, make_stamp_image
from start_overhead import percentile

from node.lab import record

REST_S = 10.0
WARM_UP = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--network", choices=("bridge", "none"), default="bridge")
    parser.add_argument("--json", action="store_true", help="one line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fofoca-bench.") as folder:
        top = Path(folder)
        top.chmod(0o711)
        with agents(make_stamp_image(top / "image"), options.network) as run:
            took = [run(number) for number in range(options.rounds + WARM_UP)][WARM_UP:]
            summary = {"jobs_per_s": jobs_per_s(options.jobs), **at_rest(), "disk_sync_ms": disk_sync_ms(top)}
    report([each.running_ms for each in took], summary, options.json)


@contextmanager
def agents(image: Path, network: str = "none") -> Iterator[Run]:
    """Start a lab of three nodes; the way of a job through two of them."""
    command = Path(shutil.which("fofoca") or ".venv/bin/fofoca")
    subprocess.run([command, "lab", "up", "--nodes", "3", "--cpu", "4"], check=True, stdout=subprocess.DEVNULL)
    try:
        subprocess.run([command, "image", "import", "stamp", image], check=True, stdout=subprocess.DEVNULL)
        clients = threading.local()

        def run(number: int) -> Took:
            if not hasattr(clients, "agent"):
                clients.agent = Agent()
            return through_agents(clients.agent, network)

        yield run
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


def through_agents(agent: Agent, network: str) -> Took:
    job = {
        "name": "stamp",
        "argv": ["/bin/stamp"],
        "cpu_milli": 250,
        "memory_bytes": 64 << 20,
        "image": "stamp",
        "network": network,
        "constraints": ["node=n2"],
    }
    begin = time.monotonic_ns()
    job_id = agent.call("POST", "/v1/jobs", job)["id"]
    done = agent.call("GET", f"/v1/jobs/{job_id}?wait_s=30")
    end = time.monotonic_ns()
    assert done["state"] == "succeeded", done
    stamp = int(agent.call("GET", f"/v1/jobs/{job_id}/logs?stream=stdout"))
    return Took((stamp - begin) / 1e6, (end - begin) / 1e6)


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


def report(running: list[float], summary: dict[str, float], as_json: bool) -> None:
    rows = {"running_p50_ms": percentile(running, 0.5), "running_p95_ms": percentile(running, 0.95), **summary}
    if as_json:
        print(json.dumps({name: round(value, 1) for name, value in rows.items()}))
        return
    for name, value in rows.items():
        print(f"{name:20}{value:9.1f}")


if __name__ == "__main__":
    main()
