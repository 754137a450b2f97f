"""Hold, release, requeue, cordon and drain over the API: who may, on which node it is done, and what is refused."""

from __future__ import annotations

import pytest

JOB = {"argv": ["true"]}


async def test_an_owner_steers_from_any_node_and_a_stranger_sees_nothing(cluster):
    async with cluster["n1"].client() as owner:
        job = (await owner.post("/v1/jobs", json=JOB)).json()["id"]
    async with cluster["n2"].client() as owner:
        for verb in ("hold", "requeue"):
            answer = await owner.post(f"/v1/jobs/{job}/{verb}", json={})
            assert (answer.status_code, answer.json()["id"]) == (202, job)
        refused = await owner.post(f"/v1/jobs/{job}/release", json={})
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:fofoca:problem:not-possible")
    async with cluster["n2"].client("eve") as stranger:
        assert (await stranger.post(f"/v1/jobs/{job}/hold", json={})).status_code == 404
    assert cluster["n1"].jobs.steered == [("hold", job, False), ("requeue", job, False)]


@pytest.mark.parametrize("role", ["operator", "admin"])
async def test_an_operators_hold_of_a_foreign_job_is_an_operators(cluster, role):
    async with cluster["n1"].client() as owner:
        job = (await owner.post("/v1/jobs", json=JOB)).json()["id"]
    async with cluster["n3"].client("ops", role) as operator:
        assert (await operator.post(f"/v1/jobs/{job}/hold", json={})).status_code == 202
        assert (await operator.post(f"/v1/jobs/{job}/release", json={})).status_code == 202
        assert [each["id"] for each in (await operator.get("/v1/jobs")).json()] == [job]
    assert cluster["n1"].jobs.steered == [("hold", job, True), ("release", job, True)]


async def test_a_node_is_cordoned_and_drained_through_any_other(cluster):
    async with cluster["n1"].client("ops", "operator") as operator:
        answer = await operator.post("/v1/nodes/n2/cordon", json={})
        assert (answer.status_code, answer.json()["node"]) == (202, "n2")
        assert (cluster["n1"].jobs.accepting, cluster["n2"].jobs.accepting) == (True, False)
        await operator.post("/v1/nodes/n2/uncordon", json={})
        assert cluster["n2"].jobs.accepting
        assert (await operator.post("/v1/nodes/n3/drain?deadline_s=90", json={})).status_code == 202
        assert (await operator.post("/v1/nodes/n3/drain", json={})).status_code == 202
    assert cluster["n3"].jobs.drained == [90.0, None]


@pytest.mark.parametrize("verb", ["cordon", "uncordon", "drain"])
async def test_nodes_are_for_operators(cluster, verb):
    async with cluster["n1"].client() as user:
        assert (await user.post(f"/v1/nodes/n2/{verb}", json={})).status_code == 403


async def test_what_is_no_node_or_no_time_is_named(cluster):
    async with cluster["n1"].client("ops", "operator") as operator:
        assert (await operator.post("/v1/nodes/n9/cordon", json={})).status_code == 404
        for text in ("soon", "-1", "nan", "1e99"):
            answer = await operator.post(f"/v1/nodes/n1/drain?deadline_s={text}", json={})
            assert (answer.status_code, answer.json()["field"]) == (400, "deadline_s")


async def test_an_operator_is_no_administrator(cluster):
    async with cluster["n1"].client("ops", "operator") as operator:
        assert (await operator.get("/v1/keys")).status_code == 403
