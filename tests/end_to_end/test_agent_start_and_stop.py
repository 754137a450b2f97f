"""Starting an agent that cannot run says why in one line; a signal ends one at any moment."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.lab.configuration import endpoints
from tests.end_to_end.agents import Agents
from tests.end_to_end.command_line import eventually

pytestmark = [pytest.mark.xdist_group("promises"), pytest.mark.slow]


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    agents = Agents(tmp_path_factory.mktemp("one"), 1)
    try:
        agents.start()
        yield agents
    finally:
        agents.end()


def written(folder: Path, **changes: str) -> Path:
    """A configuration on free ports that would do, but for the changes."""
    (place,) = endpoints(1, isolated=False)
    tables = {
        "node": f'name = "x"\ndata_dir = "{folder / "data"}"',
        "gossip": f"port = {place.gossip_port}",
        "api": f"port = {place.api_port}",
        "runtime": 'kind = "process"',
        **changes,
    }
    path = folder / "agent.toml"
    path.write_text("".join(f"[{name}]\n{content}\n" for name, content in tables.items()))
    return path


def refusal(config: Path) -> str:
    """What the agent says when it will not run: one line, exit code 2."""
    done = subprocess.run(
        [sys.executable, "-m", "node.cli", "agent", "--config", str(config)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith("fofoca: ")
    return line


def test_a_second_agent_on_the_same_data_is_kept_out(agents: Agents, tmp_path: Path) -> None:
    config = written(tmp_path, node=f'name = "x"\ndata_dir = "{agents["n1"].data}"')
    assert "another agent" in refusal(config)
    assert agents["n1"].answers()


@pytest.mark.parametrize(("table", "kind"), [("api", "the API"), ("gossip", "gossip")])
def test_a_taken_port_is_named(table: str, kind: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refusal(written(tmp_path, **{table: f"port = {port}"}))
    assert f"{kind} can't listen on 127.0.0.1:{port}" in line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cluster": 'key_file = "/nonexistent/key"'}, "cluster.key_file"),
        ({"node": 'name = "x"\ndata_dir = "/proc/nowhere"'}, "/proc/nowhere"),
        ({"gossip": "prt = 1"}, "did you mean `port`?"),
        ({"api": "port = "}, "expected TOML"),
        ({"node.labels": "\n".join(f'label{n} = "{"v" * 40}"' for n in range(40))}, "labels"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(changes: dict[str, str], said: str, tmp_path: Path) -> None:
    assert said in refusal(written(tmp_path, **changes))


def test_a_number_that_jobs_were_named_by_cannot_be_changed(tmp_path: Path) -> None:
    agents = Agents(tmp_path, 1)
    home = agents["n1"]
    try:
        agents.start()
        home.wait(home.submit(argv=["true"]))
        home.kill()
        config = home.config.read_text()
        home.config.write_text(config.replace('name = "n1"', 'name = "n1"\nnumber = 7'))
        assert "node.number: 7 is not valid; expected 1" in refusal(home.config)
    finally:
        agents.end()


def test_a_signal_ends_an_agent_that_still_waits_for_its_seeds(tmp_path: Path) -> None:
    config = written(tmp_path, cluster='seeds = ["127.0.0.1:9"]')
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        waiting = subprocess.Popen([sys.executable, "-m", "node.cli", "agent", "--config", str(config)], stderr=stderr)
    try:
        eventually("it waits", lambda: "waiting for a seed" in log.read_text())
        asked_s = time.monotonic()
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(timeout=10) == 0
        assert time.monotonic() - asked_s < 3
        assert "Traceback" not in log.read_text()
    finally:
        waiting.kill()
        waiting.wait()


def test_an_agent_comes_back_smaller_with_what_it_holds(agents: Agents) -> None:
    node = agents["n1"]
    held = node.submit(argv=["sleep", "60"], cpu_milli=800)
    eventually("it runs", lambda: node.task(held)["state"] == "running")
    node.kill()
    node.config.write_text(node.config.read_text().replace("cpu_milli = 1000", "cpu_milli = 500"))
    node.start()
    eventually("it is back", node.answers)
    assert node.task(held)["attempt"] == 1
    late = node.submit(argv=["true"], cpu_milli=100)
    assert "cpu" in eventually("a reason", lambda: node.get(f"/v1/jobs/{late}/explain")["summary"])
    node.cancel(held)
    assert node.wait(late)["state"] == "succeeded"
