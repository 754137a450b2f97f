"""A lab of Fofoca's own for benchmarks, and a client of its first node that costs as little as one can."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from node.lab import record

FINAL = ("succeeded", "failed", "cancelled", "lost")


class Client:
    """One kept connection to a node's API; sends what was made ready before, reads as little as it must."""

    def __init__(self, node: int = 0) -> None:
        lab = record.load()
        assert lab is not None
        self._token = lab.token
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(lab.nodes[node].api_socket)
        self._unread = b""

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Return a request as it goes over the wire."""
        head = f"{method} {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {self._token}\r\n"
        return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body

    def exchange(self, request: bytes) -> bytes:
        """Send a request; return its answer's body."""
        self._socket.sendall(request)
        while (end := self._unread.find(b"\r\n\r\n")) < 0:
            self._unread += self._socket.recv(1 << 16)
        head, self._unread = self._unread[:end].lower(), self._unread[end + 4 :]
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        while len(self._unread) < length:
            self._unread += self._socket.recv(1 << 16)
        body, self._unread = self._unread[:length], self._unread[length:]
        assert head[9:10] == b"2", (head, body)
        return body

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Exchange JSON."""
        raw = json.dumps(body).encode() if body is not None else b""
        return json.loads(self.exchange(self.request(method, path, raw)))

    def submit(self, job: dict[str, Any]) -> int:
        """Return a new job's id."""
        return int(self.call("POST", "/v1/jobs", job)["id"])

    def ended(self, job_id: int) -> str:
        """Wait for a job's end; return how it ended."""
        while True:
            state = self.call("GET", f"/v1/jobs/{job_id}?wait_s=30&count=1")["state"]
            if state in FINAL:
                return str(state)


def job(argv: list[str], cpu_milli: int = 1000, memory_bytes: int = 8 << 20, **more: Any) -> dict[str, Any]:
    """Return a job's body."""
    return {"name": "bench", "argv": argv, "cpu_milli": cpu_milli, "memory_bytes": memory_bytes, **more}


@contextmanager
def lab(nodes: int, cpus: int, runtime: str) -> Iterator[Client]:
    """Start a lab of its own name; yield a client of its first node; remove everything."""
    os.environ.setdefault("FOFOCA_LAB", "bench")
    command = shutil.which("fofoca") or str(Path(__file__).parents[2] / ".venv/bin/fofoca")
    options = ["--nodes", str(nodes), "--cpu", str(cpus), "--memory", "8G", "--runtime", runtime]
    subprocess.run([command, "lab", "up", *options], check=True, stdout=subprocess.DEVNULL)
    try:
        time.sleep(1.0)
        yield Client()
    finally:
        subprocess.run([command, "lab", "down"], check=True, stdout=subprocess.DEVNULL)


def agents_cpu_s() -> float:
    """Return the processor time that the lab's agents took so far."""
    lab = record.load()
    assert lab is not None
    configs = {node.config for node in lab.nodes}
    taken = 0.0
    for process in psutil.process_iter(["cmdline", "cpu_times"]):
        if (process.info["cmdline"] or [""])[-1] in configs:
            taken += process.info["cpu_times"].user + process.info["cpu_times"].system
    return taken


def percentile(values: list[float], share: float) -> float:
    """Return the value below which this share of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
