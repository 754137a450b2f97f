"""Agents started by hand on loopback, with plain processes as tasks: no root, no lab (no test module)."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from node.keys import ClusterKeys, write_keys
from node.lab.configuration import endpoints
from node.runtime import open_runtime
from node.tokens import Tokens
from tests.end_to_end.command_line import eventually

CPU_MILLI = 1000
START_TIMEOUT_S = 40.0
SAID_MAX = 3000
"""Characters of each answer and log that are shown."""


class AgentProcess:
    """One node's agent: a process that a test may kill, pause and start again on the same data."""

    def __init__(self, config: Path, data: Path, url: str) -> None:
        self.token = ""
        self.config = config
        self.data = data
        self.url = url
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.config.with_suffix(".log")).open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "node.cli", "agent", "--config", str(self.config)], stderr=log
            )

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """As the kernel would: no word, no order."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)

    @property
    def returncode(self) -> int | None:
        return self._process.poll() if self._process else None

    def answers(self) -> bool:
        try:
            self.get("/v1/version")
        except OSError:
            return False
        return True

    def log(self) -> str:
        """The end of what the agent said."""
        return self.config.with_suffix(".log").read_text()[-SAID_MAX:]

    def get(self, path: str) -> Any:
        return self._ask(urllib.request.Request(self.url + path))

    def submit(self, **body: Any) -> int:
        body = {"cpu_milli": 100, "memory_bytes": 1 << 20, **body}
        return int(self._ask(urllib.request.Request(self.url + "/v1/jobs", json.dumps(body).encode()))["id"])

    def cancel(self, job_id: int) -> None:
        self._ask(urllib.request.Request(f"{self.url}/v1/jobs/{job_id}", method="DELETE"))

    def task(self, job_id: int) -> dict[str, Any]:
        task: dict[str, Any] = self.get(f"/v1/jobs/{job_id}")["tasks"][0]
        return task

    def wait(self, job_id: int, timeout_s: float = 30.0) -> dict[str, Any]:
        """The job's only task, once it is final."""

        def final() -> dict[str, Any] | None:
            with suppress(OSError):
                task = self.task(job_id)
                return task if task["state"] not in ("pending", "running") else None
            return None

        task: dict[str, Any] = eventually(f"job {job_id} ends", final, timeout_s)
        return task

    def _ask(self, request: urllib.request.Request) -> Any:
        if self.token:
            request.add_header("authorization", f"Bearer {self.token}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")


class Agents:
    """A cluster of agents in a folder, called n1, n2, ...; `labels` by name of node; `sealed`: each has a key file."""

    def __init__(
        self, folder: Path, count: int, labels: Mapping[str, str] | None = None, *, sealed: bool = False
    ) -> None:
        self.folder = folder
        places = endpoints(count, isolated=False)
        self.nodes: dict[str, AgentProcess] = {}
        key, token = ClusterKeys(0, (secrets.token_bytes(32),)), ""
        if sealed:
            token = Tokens(key.primary).create("tests", "admin", time.time())
        for number, place in enumerate(places, start=1):
            name = f"n{number}"
            seeds = [f"{other.host}:{other.gossip_port}" for other in places if other != place]
            config = folder / f"{name}.toml"
            config.write_text(
                f'[node]\nname = "{name}"\ndata_dir = "{folder / name}"\n'
                + (f'labels = {{ part = "{labels[name]}" }}\n' if labels and name in labels else "")
                + f"[cluster]\nseeds = {json.dumps(seeds)}\n"
                + (f'key_file = "{folder / name}.key"\n' if sealed else "")
                + f"[gossip]\nport = {place.gossip_port}\nprobe_interval_s = 0.5\nprobe_timeout_s = 0.25\n"
                f"[api]\nport = {place.api_port}\n"
                f'[resources]\ncpu_milli = {CPU_MILLI}\nmemory_bytes = "1G"\nreserve_memory_bytes = 0\n'
                '[runtime]\nkind = "process"\n[scheduler]\nlost_grace_s = 1.0\n'
            )
            if sealed:
                write_keys(folder / f"{name}.key", key)
            self.nodes[name] = AgentProcess(config, folder / name, f"http://127.0.0.1:{place.api_port}")
            self.nodes[name].token = token

    def __getitem__(self, name: str) -> AgentProcess:
        return self.nodes[name]

    def start(self) -> None:
        for node in self.nodes.values():
            node.start()
        self.whole()

    def whole(self) -> None:
        """Wait until every node sees every other one alive and knows what it offers."""

        def seen() -> bool:
            try:
                views = [node.get("/v1/nodes") for node in self.nodes.values()]
            except OSError:
                return False
            return all(len([each for each in view if usable(each)]) == len(self.nodes) for view in views)

        eventually("all agents see each other", seen, START_TIMEOUT_S)

    def cancel_all(self) -> None:
        """Cancel what has not ended, and wait until it has."""
        node = next(iter(self.nodes.values()))

        def left() -> list[int]:
            return [job["id"] for job in node.get("/v1/jobs") if job["state"] in ("pending", "running")]

        for job_id in left():
            node.cancel(job_id)
        eventually("all jobs end", lambda: not left())

    def describe(self) -> str:
        """What each node says of its cluster and its jobs, and the end of its log."""

        def said(node: AgentProcess, path: str, *keys: str) -> str:
            try:
                answer = node.get(path)
                return json.dumps([{key: each[key] for key in keys} for each in answer] if keys else answer)[:SAID_MAX]
            except OSError as error:
                return str(error)

        return "\n".join(
            f"--- {name}\nnodes {said(node, '/v1/nodes', 'name', 'number', 'state', 'allocatable', 'committed')}\n"
            f"jobs {said(node, '/v1/jobs')}\n{node.log()}"
            for name, node in self.nodes.items()
        )

    def end(self) -> None:
        """Kill every agent, and with them every container they left."""
        for node in self.nodes.values():
            with suppress(ProcessLookupError, AssertionError):
                node.signal(signal.SIGCONT)
            node.kill()
        for node in self.nodes.values():
            print(f"--- {node.config.stem}", node.log(), sep="\n")
            if (node.data / "containers").exists():
                trio.run(_purge, node.data)


def usable(node: Mapping[str, Any]) -> bool:
    return node["state"] == "alive" and (node["allocatable"] or {}).get("cpu_milli", 0) > 0


async def _purge(data: Path) -> None:
    runtime = await open_runtime("process", data)
    await runtime.recover()
    await runtime.purge()


def runs(pid: int) -> bool:
    """Whether a process lives, zombies aside."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
