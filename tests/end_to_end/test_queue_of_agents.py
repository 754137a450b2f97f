"""The queue on real agents with plain processes: dependencies, holds, licences, accounting, draining, leases."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.agents import AgentProcess, Agents
from tests.end_to_end.command_line import eventually, files_below


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    found = Agents(tmp_path_factory.mktemp("queue"), 3)
    try:
        found.start()
        yield found
    finally:
        found.end()


def ask(node: AgentProcess, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    return node._ask(urllib.request.Request(node.url + path, data, method=method))


def state(node: AgentProcess, job: int) -> str:
    return str(node.get(f"/v1/jobs/{job}")["state"])


def test_a_job_waits_for_another_homes_job_and_says_so(agents: Agents) -> None:
    n1, n2 = agents.nodes["n1"], agents.nodes["n2"]
    first = n1.submit(argv=["sleep", "2"])
    after = {"kind": "afterok", "job": first}
    second = n2.submit(argv=["true"], queueing={"after": [after]})
    reasons = n1.get(f"/v1/jobs/{second}/explain")["reasons"]
    assert [each["kind"] for each in reasons] == ["dependency"]
    assert n2.wait(second)["state"] == "succeeded"
    assert state(n2, first) == "succeeded"


def test_a_held_job_starts_when_it_is_released_and_a_requeued_one_runs_again(agents: Agents) -> None:
    n1, n3 = agents.nodes["n1"], agents.nodes["n3"]
    job = n3.submit(argv=["sleep", "60"], queueing={"hold": True})
    time.sleep(0.5)
    assert state(n1, job) == "pending"
    ask(n1, "POST", f"/v1/jobs/{job}/release", {})
    eventually("it runs", lambda: state(n1, job) == "running")
    ask(n1, "POST", f"/v1/jobs/{job}/requeue", {})
    eventually("it runs again", lambda: n1.task(job)["attempt"] == 2 and n1.task(job)["state"] == "running")
    n1.cancel(job)
    with pytest.raises(urllib.error.HTTPError) as refusal:
        ask(n1, "POST", f"/v1/jobs/{job}/requeue", {})
    assert refusal.value.code == 409


def test_licences_set_at_one_node_are_kept_over_all_homes(agents: Agents) -> None:
    ask(agents.nodes["n2"], "PUT", "/v1/settings/licence/matlab", {"count": 1})
    eventually("all know", lambda: all(node.get("/v1/settings") for node in agents.nodes.values()))
    jobs = [node.submit(argv=["sleep", "1"], queueing={"licences": {"matlab": 1}}) for node in agents.nodes.values()]
    most = 0
    n1 = agents.nodes["n1"]
    while any(state(n1, job) in ("pending", "running") for job in jobs):
        most = max(most, sum(state(n1, job) == "running" for job in jobs))
        time.sleep(0.05)
    assert most == 1
    assert [state(n1, job) for job in jobs] == ["succeeded"] * 3


def test_usage_is_counted_at_each_home_and_added_up_at_any(agents: Agents) -> None:
    jobs = [node.submit(argv=["sleep", "0.3"], cpu_milli=200) for node in agents.nodes.values()]
    for node, job in zip(agents.nodes.values(), jobs, strict=True):
        node.wait(job)
    rows = {row["job"]: row for row in agents.nodes["n2"].get("/v1/usage?by=job")}
    assert all(rows[job]["attempts"] == 1 and rows[job]["run_ms"] >= 250 for job in jobs)
    days = agents.nodes["n3"].get("/v1/usage")
    assert sum(row["attempts"] for row in days) == sum(row["attempts"] for row in rows.values())


def test_a_key_survives_the_agents_death(agents: Agents) -> None:
    n3 = agents.nodes["n3"]
    body = json.dumps({"argv": ["true"], "cpu_milli": 100, "memory_bytes": 1 << 20}).encode()

    def submit() -> int:
        request = urllib.request.Request(n3.url + "/v1/jobs", body, headers={"Idempotency-Key": "once"})
        return int(n3._ask(request)["id"])

    first = submit()
    n3.kill()
    n3.start()
    eventually("n3 answers", n3.answers, 40)
    assert submit() == first


def test_a_service_leaves_a_drained_node_without_a_gap(agents: Agents, tmp_path: Path) -> None:
    n1, told = agents.nodes["n1"], tmp_path / "told"
    script = f"echo up >> {told}; trap 'sleep 1; echo down >> {told}; exit' TERM; while :; do sleep 0.1; done"
    service = n1.submit(argv=["sh", "-c", script], kind="service")
    eventually("it runs", lambda: state(n1, service) == "running")
    node = n1.task(service)["node"]
    ask(n1, "POST", f"/v1/nodes/{node}/drain", {})
    eventually("it moved", lambda: n1.task(service)["node"] not in ("", node) and state(n1, service) == "running")
    eventually("the old one has ended", lambda: "down" in told.read_text())
    assert told.read_text().split() == ["up", "up", "down"]
    ask(n1, "POST", f"/v1/nodes/{node}/uncordon", {})
    n1.cancel(service)


def test_a_single_task_runs_under_a_lease(agents: Agents) -> None:
    """Its node holds a lease file that is renewed; without its home's agent it would not be."""
    n2 = agents.nodes["n2"]
    job = n2.submit(argv=["sleep", "60"], on_lost="single")
    eventually("it runs", lambda: state(n2, job) == "running")
    node = agents.nodes[n2.task(job)["node"]]
    leases = [path for path in files_below(Path(node.data)) if path.name == "lease" and f"{job}.0.1" in str(path)]
    assert leases
    assert int(leases[0].read_text()) > 1000 * (time.clock_gettime(time.CLOCK_BOOTTIME) + 20)
    n2.cancel(job)


def test_a_job_of_a_higher_tier_takes_the_room_of_a_lower_one_that_runs_again_later(agents: Agents) -> None:
    home, other = agents["n1"], agents["n2"]
    for name, fields in (
        ("partition/urgent", {"tier": 10}),
        ("preemption/default", {"mode": "requeue", "run_min_s": 0}),
    ):
        ask(home, "PUT", f"/v1/settings/{name}", fields)
    eventually("all know", lambda: all(len(each.get("/v1/settings")) >= 2 for each in agents.nodes.values()))
    low = [home.submit(argv=["sleep", "60"], cpu_milli=900, attempts_max=1) for _ in agents.nodes]
    eventually("the nodes are full", lambda: all(state(home, job) == "running" for job in low))
    high = other.submit(argv=["sleep", "3"], cpu_milli=900, queueing={"partition": "urgent"})
    eventually("it has room", lambda: state(other, high) in ("running", "succeeded"))
    (taken,) = (job for job in low if home.task(job)["state"] == "pending")
    assert f"for job {high} (tier 10)" in home.task(taken)["reason"]
    assert other.wait(high)["state"] == "succeeded"
    eventually("it runs again", lambda: state(home, taken) == "running")
    assert home.task(taken)["attempt"] == 2
    for job in low:
        home.cancel(job)
    ask(home, "DELETE", "/v1/settings/preemption/default")


def test_how_a_task_ended_is_shown_in_full(agents: Agents) -> None:
    home = agents["n1"]
    job = home.submit(argv=["sh", "-c", "kill -9 $$"], attempts_max=1)
    assert home.wait(job)["state"] == "failed"
    result = agents["n2"].get(f"/v1/jobs/{job}")["tasks"][0]["result"]
    assert (result["exit_code"], result["signal"], result["oom_killed"]) == (137, 9, False)
    assert 0 < result["started_unix_s"] <= result["ended_unix_s"]
