"""Homes with their record in a real etcd: without etcd, and after the loss of a home."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.end_to_end.agents import AgentProcess, Agents
from tests.end_to_end.command_line import eventually
from tests.ledger.etcd_stores import ETCD, RealEtcd

pytestmark = pytest.mark.skipif(ETCD is None, reason="no etcd (on Debian: apt-get install etcd-server)")


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[RealEtcd]:
    etcd = RealEtcd(tmp_path)
    try:
        etcd.start()
        yield etcd
    finally:
        etcd.stop()


@pytest.fixture
def agents(tmp_path: Path, etcd: RealEtcd) -> Iterator[Agents]:
    agents = Agents(tmp_path, 2, sealed=True)
    for node in agents.nodes.values():
        ledger = f'kind = "etcd"\netcd_urls = ["{etcd.url}"]\netcd_lease_s = 2.0\nstand_in_after_s = 1.0\n'
        gossip = "suspicion_min_s = 0.5\n"
        text = node.config.read_text().replace("[api]\n", f"{gossip}[api]\n")
        node.config.write_text(text + f"[ledger]\n{ledger}")
    try:
        agents.start()
        yield agents
    finally:
        agents.end()


def refusal(error: urllib.error.HTTPError) -> tuple[int, str]:
    return error.code, json.loads(error.read())["type"].rpartition(":")[2]


def test_without_etcd_a_home_refuses_what_is_new_and_goes_on_later(agents: Agents, etcd: RealEtcd) -> None:
    n1 = agents["n1"]
    before = n1.submit(argv=["sleep", "600"])
    eventually("it runs", lambda: n1.task(before)["state"] == "running")
    etcd.stop()
    for _ in range(2):
        with pytest.raises(urllib.error.HTTPError) as refused:
            n1.submit(argv=["true"])
        assert refusal(refused.value) == (503, "ledger-away")
    assert n1.task(before)["state"] == "running"
    etcd.start()
    eventually("it takes jobs again", lambda: takes_jobs(n1))
    assert n1.task(before)["state"] == "running"
    n1.kill()
    n1.start()
    eventually("it remembers", lambda: n1.answers() and n1.task(before)["state"] == "running")


def takes_jobs(node: AgentProcess) -> bool:
    try:
        node.submit(argv=["true"])
    except urllib.error.HTTPError as error:
        return refusal(error) != (503, "ledger-away") and error.code < 500
    return True


def test_another_node_stands_in_for_a_lost_home_until_it_is_back(agents: Agents, tmp_path: Path) -> None:
    """n1 stands still, as a host does that is cut off: it comes back in the belief that nothing has happened."""
    n1, n2 = agents["n1"], agents["n2"]
    elsewhere = n1.submit(argv=["sleep", "600"], constraints=["node=n2"])
    held = n1.submit(argv=["sh", "-c", "exit 0"], queueing={"hold": True})
    eventually("it runs on n2", lambda: n2.task(elsewhere)["state"] == "running")
    n1.signal(signal.SIGSTOP)
    try:
        eventually("n1 is elsewhere", lambda: address_of_n1(n2) not in ("", n1.url.removeprefix("http://")))
        eventually("n2 answers for n1's jobs", lambda: post(n2, f"/v1/jobs/{held}/release"))
        assert n2.wait(held)["node"] == "n2"
        assert n2.task(elsewhere)["state"] == "running"
        assert {job["id"] for job in n2.get("/v1/jobs")} == {elsewhere, held}
        # New jobs are n2's own, by their number: the stand-in takes none.
        assert n2.submit(argv=["true"]) % 1000 != held % 1000
        n2.cancel(elsewhere)
        assert n2.wait(elsewhere)["state"] == "cancelled"
    finally:
        n1.signal(signal.SIGCONT)
    eventually("the old n1 ends: it may not write", lambda: n1.returncode is not None)
    assert n1.returncode != 0
    assert "may not write any more" in n1.config.with_suffix(".log").read_text()
    n1.start()
    eventually("n1 is back", n1.answers)
    assert n1.task(held)["state"] == "succeeded"
    assert n1.task(elsewhere)["state"] == "cancelled"
    agents.whole()
    assert n2.wait(n1.submit(argv=["true"]))["state"] == "succeeded"


def address_of_n1(asked: AgentProcess) -> str:
    return next((str(node["address"]) for node in asked.get("/v1/nodes") if node["name"] == "n1"), "")


def post(node: AgentProcess, path: str) -> bool:
    """Whether the order was taken."""
    headers = {"authorization": f"Bearer {node.token}"}
    with suppress(OSError):
        request = urllib.request.Request(node.url + path, method="POST", headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bool(answer.status == 202)
    return False
