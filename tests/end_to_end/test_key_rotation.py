"""The key of a running cluster is changed: jobs go on, sleepers catch up, and tokens end with their key."""

from __future__ import annotations

import signal
import threading
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.keys import read_keys
from node.tokens import Tokens
from tests.end_to_end.agents import Agents
from tests.end_to_end.command_line import CommandLine, eventually

pytestmark = [pytest.mark.xdist_group("promises"), pytest.mark.slow]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Agents]:
    agents = Agents(tmp_path, 3, sealed=True)
    try:
        agents.start()
        yield agents
    finally:
        agents.end()


class Submissions:
    """Jobs submitted to every node in turn for as long as it lasts."""

    def __init__(self, agents: Agents, names: list[str]) -> None:
        self.ids: list[tuple[str, int]] = []
        self.errors: list[OSError] = []
        self._nodes = [agents[name] for name in names]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._submit)

    def __enter__(self) -> Submissions:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _submit(self) -> None:
        while not self._ended.wait(0.1):
            for node in self._nodes:
                try:
                    self.ids.append((node.config.stem, node.submit(argv=["true"], cpu_milli=50)))
                except OSError as error:
                    self.errors.append(error)


def command_line(agents: Agents, name: str) -> CommandLine:
    node = agents[name]
    return CommandLine("none", {"FOFOCA_API": node.url, "FOFOCA_TOKEN": node.token})


def held(agents: Agents, asked: str) -> dict[str, list[str]]:
    nodes: list[dict[str, Any]] = agents[asked].get("/v1/keys")["nodes"]
    return {node["name"]: node["ids"] for node in nodes}


def state(agents: Agents, asked: str, name: str) -> str | None:
    members: list[dict[str, Any]] = agents[asked].get("/v1/members")
    return next((member["state"] for member in members if member["name"] == name), None)


def test_a_key_is_replaced_while_jobs_run_and_a_node_is_away(cluster: Agents, tmp_path: Path) -> None:
    first, second = command_line(cluster, "n1"), command_line(cluster, "n2")
    old_token = cluster["n1"].token
    (old,) = held(cluster, "n1")["n1"]
    cluster["n3"].kill()
    for name in ("n1", "n2"):
        eventually(f"{name} knows that n3 is away", lambda name=name: state(cluster, name, "n3") == "down")
    with Submissions(cluster, ["n1", "n2"]) as jobs:
        new = first.ok("keys", "add", "--new").out.strip()
        assert second("keys", "remove", old).code == 2, "it seals"
        assert "n3 was not asked" in second.ok("keys", "use", new).err
        assert held(cluster, "n1")["n2"] == [new, old]

        cluster["n3"].start()
        started_s = time.monotonic()
        eventually("n3 has the new key", lambda: held(cluster, "n1").get("n3") == [new, old], 20)
        print(f"n3 had the new key {time.monotonic() - started_s:.2f} s after its start")
        cluster.whole()  # with the old token, on every node
        removed = second.ok("keys", "remove", old)
        assert removed.err == ""

        for node in cluster.nodes.values():
            with pytest.raises(urllib.error.HTTPError, match="401"):
                node.get("/v1/version")
            keys = read_keys(node.config.with_suffix(".key"))
            node.token = Tokens(keys.primary).create("tests", "admin", time.time())
            assert node.get("/v1/keys")["nodes"][0]["ids"] == [new]
        cluster.whole()
        count = len(jobs.ids)
        eventually("jobs are taken under the new key", lambda: len(jobs.ids) > count + 4)
    assert all(isinstance(error, urllib.error.HTTPError) and error.code == 401 for error in jobs.errors)
    for home, job_id in jobs.ids:
        assert cluster[home].wait(job_id)["state"] == "succeeded"
    assert old_token != cluster["n1"].token
    assert_nothing_leaked(cluster)


def test_a_node_that_slept_through_a_change_of_keys_catches_up_when_it_wakes(cluster: Agents) -> None:
    first = command_line(cluster, "n1")
    (old,) = held(cluster, "n1")["n1"]
    cluster["n3"].signal(signal.SIGSTOP)
    try:
        eventually("n1 misses n3", lambda: state(cluster, "n1", "n3") in ("failed", "down"), 30)
        new = first.ok("keys", "add", "--new").out.strip()
        assert "n3 was not asked" in first.ok("keys", "use", new).err
    finally:
        cluster["n3"].signal(signal.SIGCONT)
    eventually("n3 has the new key", lambda: held(cluster, "n1").get("n3") == [new, old], 30)
    cluster.whole()
    assert_nothing_leaked(cluster)


def assert_nothing_leaked(cluster: Agents) -> None:
    """No log has a key."""
    lines = cluster["n1"].config.with_suffix(".key").read_text().splitlines()[1:]
    assert lines
    for node in cluster.nodes.values():
        log = node.config.with_suffix(".log").read_text()
        assert not [line for line in lines if line in log]
