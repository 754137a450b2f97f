"""Changes of a live job's limits over HTTP: what stays, what is refused by name, and whose job it must be."""

from __future__ import annotations

import pytest

from scheduler.model import Resources
from scheduler.spec.health import Health
from scheduler.spec.life import Life, Restart
from scheduler.spec.limits import Limits, Rlimit
from tests.api.test_jobs_api import JOB, problem

LIMITS = {"cpu_weight": 50, "rlimits": [{"name": "nofile", "soft": 100}]}


async def submitted(cluster, **changes: object) -> int:
    async with cluster["n1"].client() as client:
        answer = await client.post("/v1/jobs", json={**JOB, "limits": LIMITS, **changes})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


@pytest.mark.parametrize("asked", ["n1", "n3"])
async def test_what_is_left_out_stays_as_it_is_whichever_node_is_asked(cluster, asked):
    job = await submitted(cluster, limit={"cpu_milli": 900})
    body = {"memory_bytes": 128 << 20, "pids_max": 9, "limits": {"memory_soft_bytes": 1 << 20}}
    async with cluster[asked].client() as client:
        answer = await client.patch(f"/v1/jobs/{job}", json=body)
    assert (answer.status_code, answer.json()) == (200, {"id": job, "tasks": 1})
    ((_, spec, index),) = cluster["n1"].jobs.amended
    assert index is None
    assert (spec.request, spec.limit) == (Resources(250, 128 << 20), Resources(900))
    assert spec.pids_max == 9
    rlimits = (Rlimit(name="nofile", soft=100),)
    assert spec.limits == Limits(cpu_weight=50, memory_soft_bytes=1 << 20, rlimits=rlimits)


async def test_restarts_and_checks_are_changed_and_signals_are_not(cluster):
    life = {"stop_signal": "QUIT", "health": {"tcp": 80}}
    job = await submitted(cluster, life=life)
    async with cluster["n2"].client() as client:
        await client.patch(f"/v1/jobs/{job}", json={"life": {"health": {"tcp": 81, "interval_s": 5.0}}})
        await client.patch(f"/v1/jobs/{job}", json={"life": {"restart": "never", "health": None}})
        answer = await client.patch(f"/v1/jobs/{job}", json={"life": {"stop_signal": "TERM"}})
    document = problem(answer, 400, "invalid-value")
    assert document["field"] == "life.stop_signal"
    assert "known: restart, backoff_s, backoff_max_s, health" in document["detail"]
    first, second = (spec.life for _, spec, _ in cluster["n1"].jobs.amended)
    assert first == Life(stop_signal="QUIT", health=Health(tcp=81, interval_s=5.0))
    assert second == Life(stop_signal="QUIT", restart=Restart.NEVER)


async def test_one_task_is_named_in_the_query(cluster):
    job = await submitted(cluster, array="0-3")
    async with cluster["n2"].client() as client:
        await client.patch(f"/v1/jobs/{job}?task=3", json={"pids_max": 9})
    assert cluster["n1"].jobs.amended[0][2] == 3


async def test_a_nodes_refusal_is_a_problem_that_names_it(cluster):
    job = await submitted(cluster)
    cluster["n1"].jobs.amend_refusals = ("task 0 on n2: memory: needs 9 more, free 5",)
    async with cluster["n2"].client() as client:
        document = problem(await client.patch(f"/v1/jobs/{job}", json={"memory_bytes": 1 << 40}), 409, "not-possible")
    assert document["detail"] == f"job {job} keeps its limits: task 0 on n2: memory: needs 9 more, free 5"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"cpu_milli": 0}, "cpu_milli"),
        ({"memory_bytes": "much"}, "memory_bytes"),
        ({"argv": ["x"]}, "argv"),
        ({"limits": {"devices": ["fuse"]}}, "limits.devices"),
        ({"limits": {"exclusive_cores": 1}}, "limits.exclusive_cores"),
        ({"limits": {"swappyness": 5}}, "limits"),
        ({"life": {"health": {}}}, "life.health"),
        ({"life": {"health": {"tcp": 80, "interval_s": 0}}}, "life.health.interval_s"),
        ({"limits": {"swappiness": 500}}, "limits.swappiness"),
        ({"limits": {"rlimits": [{"name": "nosuch", "soft": 5}]}}, "limits.rlimits.name"),
    ],
)
async def test_bad_changes_name_their_field_and_change_nothing(cluster, body, field):
    job = await submitted(cluster)
    async with cluster["n1"].client() as client:
        document = problem(await client.patch(f"/v1/jobs/{job}", json=body), 400, "invalid-value")
    assert document["field"] == field
    assert cluster["n1"].jobs.amended == []


async def test_a_foreign_job_looks_like_none(cluster):
    job = await submitted(cluster)
    async with cluster["n2"].client("bob") as client:
        problem(await client.patch(f"/v1/jobs/{job}", json={"pids_max": 9}), 404, "unknown-job")
    assert cluster["n1"].jobs.amended == []
