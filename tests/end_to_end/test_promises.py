"""The design's promises 1 to 7, on real agents that are killed, paused and overrun. Failing seeds are printed."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.agents import CPU_MILLI, Agents, runs
from tests.end_to_end.command_line import eventually

pytestmark = [pytest.mark.xdist_group("promises"), pytest.mark.slow]

SEED = 20_261_122
WORKERS = {"n2": "work", "n3": "work"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    """Three agents; each test leaves them running and empty."""
    agents = Agents(tmp_path_factory.mktemp("promises"), 3, WORKERS)
    try:
        agents.start()
        yield agents
    finally:
        agents.end()


@pytest.fixture(autouse=True)
def healed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Bring back what a test took away, and end what it left running."""
    yield
    if "cluster" in request.fixturenames:
        agents: Agents = request.getfixturevalue("cluster")
        for node in agents.nodes.values():
            if node.returncode is not None:
                node.start()
            node.signal(signal.SIGCONT)
        agents.whole()
        for node in agents.nodes.values():
            for job in node.get("/v1/jobs"):
                if job["state"] in ("pending", "running"):
                    node.cancel(job["id"])


def shell(line: str) -> list[str]:
    return ["sh", "-c", line]


def waits_for(path: Path, code: int = 0) -> str:
    return f"while ! [ -e {path} ]; do sleep 0.05; done; exit {code}"


def running(cluster: Agents, job_id: int, attempt: int = 1) -> dict[str, Any]:
    """The job's task once this attempt of it runs."""

    def task() -> dict[str, Any] | None:
        found = cluster["n1"].task(job_id)
        return found if (found["state"], found["attempt"]) == ("running", attempt) else None

    found: dict[str, Any] = eventually(f"attempt {attempt} of job {job_id} runs", task, 40)
    return found


def test_1_an_acknowledged_job_survives_kill_9_of_its_home_at_any_moment(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    agents = Agents(tmp_path, 1)
    home, acknowledged = agents["n1"], list[int]()
    try:
        agents.start()
        for round_ in range(8):
            ended = threading.Event()

            def submit_until_it_dies(ended: threading.Event = ended) -> None:
                try:
                    while not ended.is_set():
                        acknowledged.append(home.submit(argv=["true"]))
                except OSError:
                    pass  # killed: what was not answered was not promised

            submitter = threading.Thread(target=submit_until_it_dies)
            submitter.start()
            time.sleep(rng.uniform(0.0, 0.15))
            home.kill()
            ended.set()
            submitter.join()
            home.start()
            eventually("the home is back", home.answers)
            known = {job["id"] for job in home.get("/v1/jobs")}
            assert known >= set(acknowledged), f"seed {SEED}, round {round_}"
        assert len(acknowledged) == len(set(acknowledged)), "ids are never given twice"
        for job_id in acknowledged:
            assert home.wait(job_id)["state"] == "succeeded", f"seed {SEED}"
    finally:
        agents.end()


@pytest.mark.parametrize("ends_by_itself", [False, True])
def test_2_an_outdated_attempt_is_stopped_and_its_result_not_taken(
    ends_by_itself: bool, cluster: Agents, tmp_path: Path
) -> None:
    line = f"echo $$ > {tmp_path}/pid.$FOFOCA_ATTEMPT; "
    line += f"while ! [ -e {tmp_path}/go.$FOFOCA_ATTEMPT ]; do sleep 0.05; done; exit $((FOFOCA_ATTEMPT - 2))"
    job_id = cluster["n1"].submit(argv=shell(line), constraints=["part=work"], stop_grace_s=1.0)
    old = running(cluster, job_id)
    lost = cluster[old["node"]]
    old_pid = int(eventually("its process", lambda: read(tmp_path / "pid.1")))
    lost.signal(signal.SIGSTOP)
    new = running(cluster, job_id, attempt=2)
    assert new["node"] != old["node"]
    assert runs(old_pid), "nobody could tell it to stop so far"
    if ends_by_itself:
        (tmp_path / "go.1").touch()
        eventually("the old attempt ends", lambda: not runs(old_pid))
    lost.signal(signal.SIGCONT)
    eventually("the old attempt is stopped", lambda: not runs(old_pid), 30)
    cluster.whole()
    time.sleep(1.0)
    assert running(cluster, job_id, attempt=2)["node"] == new["node"]
    (tmp_path / "go.2").touch()
    task = cluster["n1"].wait(job_id)
    assert (task["state"], task["attempt"], task["exit_code"], task["node"]) == ("succeeded", 2, 0, new["node"])


def test_3_committed_never_passes_permitted_whoever_submits(cluster: Agents) -> None:
    accepted: list[int] = []

    def burst(name: str) -> None:
        for _ in range(15):
            accepted.append(cluster[name].submit(argv=["sleep", "0.2"], cpu_milli=300))

    threads = [threading.Thread(target=burst, args=(name,)) for name in cluster.nodes]
    for thread in threads:
        thread.start()
    highest = 0
    while any(thread.is_alive() for thread in threads) or unfinished(cluster):
        for name, node in cluster.nodes.items():
            (own,) = [each for each in node.get("/v1/nodes") if each["name"] == name]
            for amount in ("cpu_milli", "memory_bytes"):
                assert own["committed"][amount] <= own["allocatable"][amount], own
            highest = max(highest, own["committed"]["cpu_milli"])
    assert len(accepted) == 45
    assert highest == CPU_MILLI // 300 * 300, "the burst did fill nodes"
    assert {cluster["n1"].task(job_id)["state"] for job_id in accepted} == {"succeeded"}


def test_4_any_node_answers_for_any_job_and_only_its_home_keeps_it(cluster: Agents) -> None:
    job_ids = {name: node.submit(argv=["true"]) for name, node in cluster.nodes.items()}
    for home, job_id in job_ids.items():
        for node in cluster.nodes.values():
            assert node.wait(job_id)["state"] == "succeeded"
            assert node.get(f"/v1/jobs/{job_id}")["home"] == home
    cluster["n3"].kill()
    assert cluster["n1"].task(job_ids["n2"])["state"] == "succeeded"
    with pytest.raises(OSError):
        cluster["n1"].task(job_ids["n3"])


def test_5_the_others_go_on_when_the_leader_dies(cluster: Agents, tmp_path: Path) -> None:
    full = [
        cluster["n2"].submit(argv=shell(waits_for(tmp_path / "go")), cpu_milli=900, constraints=["part=work"])
        for _ in range(2)
    ]
    for job_id in full:
        running(cluster, job_id)
    waiting = [cluster[name].submit(argv=["true"], cpu_milli=800, constraints=["part=work"]) for name in ("n2", "n3")]
    eventually("both wait", lambda: all(cluster["n2"].task(job_id)["state"] == "pending" for job_id in waiting))
    cluster["n1"].kill()
    (tmp_path / "go").touch()
    for job_id in (*full, *waiting):
        assert cluster["n3"].wait(job_id, 40)["state"] == "succeeded"
    assert cluster["n2"].wait(cluster["n2"].submit(argv=["true"]))["state"] == "succeeded"


def test_6_containers_outlive_their_agent_and_exit_codes_are_reported(cluster: Agents, tmp_path: Path) -> None:
    lines = {
        "ends": f"echo $$ > {tmp_path}/ends; {waits_for(tmp_path / 'go.ends', 9)}",
        "lasts": f"echo $$ > {tmp_path}/lasts; {waits_for(tmp_path / 'go.lasts', 0)}",
    }
    ids = {
        name: cluster["n1"].submit(argv=shell(line), constraints=["node=n2"], attempts_max=1)
        for name, line in lines.items()
    }
    for job_id in ids.values():
        running(cluster, job_id)
    pids = {name: int(eventually("its process", lambda name=name: read(tmp_path / name))) for name in lines}
    cluster["n2"].kill()
    assert all(map(runs, pids.values()))
    (tmp_path / "go.ends").touch()
    eventually("one ends without an agent", lambda: not runs(pids["ends"]))
    cluster["n2"].start()
    task = cluster["n1"].wait(ids["ends"], 40)
    assert (task["state"], task["exit_code"], task["attempt"]) == ("failed", 9, 1)
    assert runs(pids["lasts"])
    assert running(cluster, ids["lasts"])["node"] == "n2"
    (tmp_path / "go.lasts").touch()
    task = cluster["n1"].wait(ids["lasts"])
    assert (task["state"], task["attempt"]) == ("succeeded", 1)


def test_6_an_orderly_stop_is_quick_and_leaves_containers_alone(cluster: Agents, tmp_path: Path) -> None:
    line = f"echo $$ > {tmp_path}/pid; {waits_for(tmp_path / 'go')}"
    job_id = cluster["n1"].submit(argv=shell(line), constraints=["node=n3"])
    running(cluster, job_id)
    pid = int(eventually("its process", lambda: read(tmp_path / "pid")))
    cluster["n3"].signal(signal.SIGTERM)
    eventually("the agent stops", lambda: cluster["n3"].returncode is not None, 5)
    assert cluster["n3"].returncode == 0
    assert runs(pid)
    cluster["n3"].start()
    (tmp_path / "go").touch()
    task = cluster["n1"].wait(job_id, 40)
    assert (task["state"], task["attempt"]) == ("succeeded", 1)


def test_7_a_waiting_task_names_its_dimension_and_how_many_nodes(cluster: Agents) -> None:
    for body, dimension in (({"cpu_milli": 50_000}, "cpu"), ({"memory_bytes": 1 << 40}, "memory")):
        job_id = cluster["n2"].submit(argv=["true"], **body)
        for node in cluster.nodes.values():
            reason = str(eventually("a reason", lambda n=node, i=job_id: n.get(f"/v1/jobs/{i}/explain"))["summary"])
            assert dimension in reason
            assert "3 of 3 nodes" in reason


def unfinished(cluster: Agents) -> bool:
    jobs = [job for node in cluster.nodes.values() for job in node.get("/v1/jobs")]
    return any(job["state"] in ("pending", "running") for job in jobs)


def read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""
