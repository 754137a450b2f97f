"""What sleeping sites cost an agent: memory and CPU at rest, with none and with COUNT of them.

    python -m benchmarks.door.sleeping [COUNT]

Starts an agent of plain processes on loopback, with a data directory of its own that is removed afterwards. Sites are
made by POST /v1/sites and put to sleep at once, so each has been up; then the agent is restarted, which is what they
cost when it reads them, and left alone while its CPU time is taken.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

COUNT = 2_000
REST_S = 20.0
SETTLE_S = 5.0
AT_ONCE = 8


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


class Agent:
    """One agent, and what its process costs."""

    def __init__(self, folder: Path) -> None:
        self.api, gossip = free_port(), free_port()
        self.config, catalogue = folder / "agent.toml", folder / "apps.toml"
        catalogue.write_text(
            '[app.rest]\nimage = ""\nport = 9\ncommand = ["/bin/sleep", "1000"]\nmemory = "1M"\ncpu = "1m"\n'
        )
        self.config.write_text(
            f'[node]\nname = "n1"\ndata_dir = "{folder}/data"\n[gossip]\nport = {gossip}\n[api]\nport = {self.api}\n'
            f'[runtime]\nkind = "process"\n[door]\nsites_per_user_max = 1000000\nsites_up_per_user_max = 1000\n'
            f'catalogue = "{catalogue}"\n'
        )

    def __enter__(self) -> Agent:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "node.cli", "agent", "--config", str(self.config)], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                self.ask("GET", "/v1/version")
            except OSError:
                time.sleep(0.1)
            else:
                return self
        raise SystemExit("the agent does not start")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.api, timeout=60)
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {text.decode()}")
        return json.loads(text)

    def memory_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def cpu_s(self) -> float:
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / 100


class Rest(NamedTuple):
    """What an agent takes while nobody asks for anything."""

    memory_mib: float
    cpu_percent: float

    def __str__(self) -> str:
        return f"{self.memory_mib:.1f} MiB, {self.cpu_percent:.2f} % of a core"


def at_rest(agent: Agent, rest_s: float) -> Rest:
    time.sleep(SETTLE_S)
    before, began = agent.cpu_s(), time.monotonic()
    time.sleep(rest_s)
    return Rest(agent.memory_mib(), 100 * (agent.cpu_s() - before) / (time.monotonic() - began))


def make(agent: Agent, number: int) -> None:
    key = f"b:u:u{number % 50}:{number // 50 + 1}"
    agent.ask("POST", "/v1/sites", {"backend": key, "user": f"u{number % 50}", "application": "rest",
                                    "domains": [f"site{number}.br"]})  # fmt: skip
    agent.ask("POST", f"/v1/sites/{key}/sleep")


def measure(count: int, rest_s: float = REST_S) -> tuple[Rest, Rest]:
    """Return what an agent takes without sites, and with so many that sleep."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Agent(folder) as agent:
            without = at_rest(agent, rest_s)
            began = time.monotonic()
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(lambda number: make(agent, number), range(count)))
            print(f"{count} sites were made and put to sleep in {time.monotonic() - began:.1f} s", file=sys.stderr)
        with Agent(folder) as agent:
            found = agent.ask("GET", "/v1/sites")
            if [site["phase"] for site in found] != ["asleep"] * count:
                raise SystemExit(f"{len(found)} sites of {count}, { ({site['phase'] for site in found}) }")
            return without, at_rest(agent, rest_s)


def main(count: int) -> None:
    without, sleeping = measure(count)
    print(f"without sites: {without}")
    print(f"{count} sites asleep: {sleeping}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT)
