"""The queue, usage, settings, dry runs and idempotency keys over the API."""

from __future__ import annotations

import pytest

from scheduler.settings import Licence
from scheduler.usage import UsageRow, Used
from scheduler.views import WaitingView

JOB = {"argv": ["true"]}


async def test_a_second_submission_of_a_key_gets_the_first_ones_id(cluster):
    async with cluster["n1"].client() as user:
        first, second = [
            (await user.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "a b"})).json()["id"] for _ in range(2)
        ]
        third = (await user.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "c"})).json()["id"]
        several = [
            (await user.post("/v1/jobs", json=[JOB, JOB], headers={"Idempotency-Key": "d"})).json()["ids"]
            for _ in range(2)
        ]
    assert first == second != third
    assert several[0] == several[1]
    assert len(set(several[0])) == 2
    async with cluster["n1"].client("eve") as other:
        assert (await other.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "a b"})).json()["id"] != first
        bad = await other.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": "x" * 201})
        assert (bad.status_code, bad.json()["field"]) == (400, "Idempotency-Key")


async def test_a_dry_run_submits_nothing(cluster):
    async with cluster["n1"].client() as user:
        answer = await user.post("/v1/jobs?test_only=1", json=JOB)
        assert (answer.status_code, answer.json()["places"], answer.json()["start_in_s"]) == (200, {"n1": 1}, 0.0)
        refused = await user.post("/v1/jobs?test_only=1", json=JOB | {"cpu_milli": 0})
        assert (refused.status_code, refused.json()["field"]) == (400, "cpu_milli")
        assert (await user.post("/v1/jobs?test_only=1", json=[JOB])).status_code == 400
    assert cluster["n1"].jobs.specs == {}


async def test_the_line_is_asked_of_the_leader_and_users_see_their_own(cluster):
    cluster["n1"].jobs.line = [
        WaitingView(1001, "n1", 2, 0, 0, "ana", "", 3.0),
        WaitingView(2002, "n2", 1, 0, -1, "eve", "", 2.0, "user/eve"),
    ]
    async with cluster["n3"].client("ops", "operator") as operator:
        answer = (await operator.get("/v1/queue")).json()
        assert (answer["leader"], answer["waiting"]) == ("n1", 2)
        assert [(row["job"], row["position"], row["quota"]) for row in answer["jobs"]] == [
            (1001, 1, ""),
            (2002, None, "user/eve"),
        ]
    async with cluster["n2"].client("ana") as user:
        answer = (await user.get("/v1/queue")).json()
        assert ([row["job"] for row in answer["jobs"]], answer["waiting"]) == ([1001], 2)


async def test_usage_adds_up_over_the_homes_and_users_see_their_own(cluster):
    for name, count in (("n1", 2), ("n2", 3)):
        cluster[name].jobs.used = [
            UsageRow(0, "physics", "ana", Used(attempts=count, core_ms=10 * count)),
            UsageRow(1, "", "eve", Used(attempts=1)),
        ]
        cluster[name].states |= dict.fromkeys(("n1", "n2", "n3"), "alive")
    days = "first=1970-01-01&last=1970-01-02"
    async with cluster["n1"].client("ops", "operator") as operator:
        rows = (await operator.get(f"/v1/usage?{days}")).json()
        assert [(row["day"], row["user"], row["attempts"], row["core_ms"]) for row in rows] == [
            ("1970-01-01", "ana", 5, 50),
            ("1970-01-02", "eve", 2, 0),
        ]
        assert (await operator.get("/v1/usage?first=1970-01-02&last=1970-01-02")).json() == rows[1:]
        assert (await operator.get("/v1/usage?first=soon")).json()["field"] == "first"
    async with cluster["n2"].client("ana") as user:
        assert [row["user"] for row in (await user.get(f"/v1/usage?{days}")).json()] == ["ana"]
        job = (await user.post("/v1/jobs", json=JOB)).json()["id"]
        assert [row["job"] for row in (await user.get("/v1/usage?by=job")).json()] == [job]


async def test_operators_set_and_everybody_reads(cluster):
    async with cluster["n1"].client("ops", "operator") as operator:
        answer = await operator.put("/v1/settings/licence/matlab", json={"count": 5})
        assert (answer.status_code, answer.json()) == (200, {"kind": "licence", "name": "matlab", "count": 5})
        assert cluster["n1"].jobs.set_things == {"licence/matlab": Licence(count=5)}
        partition = {"constraints": ["rack in (a, b)", "!gpu"], "time_limit_max_s": 60}
        answer = await operator.put("/v1/settings/partition/short", json=partition)
        assert (answer.json()["constraints"], answer.json()["open"]) == (["rack in (a, b)", "!gpu"], True)
    async with cluster["n1"].client() as user:
        assert [each["name"] for each in (await user.get("/v1/settings")).json()] == ["matlab", "short"]
        assert (await user.put("/v1/settings/licence/more", json={"count": 5})).status_code == 403
        assert (await user.delete("/v1/settings/licence/matlab")).status_code == 403
    async with cluster["n1"].client("ops", "operator") as operator:
        assert (await operator.delete("/v1/settings/licence/matlab")).status_code == 202
        assert (await operator.delete("/v1/settings/licence/matlab")).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("thing/x", {}, "kind"),
        ("licence/x", {}, "count"),
        ("licence/x", {"count": "many"}, "count"),
        ("licence/x", {"count": -1}, "count"),
        ("licence/x", {"count": 1, "colour": 2}, "colour"),
        ("partition/x", {"constraints": ["=="]}, "constraints"),
        ("reservation/x", {"nodes": ["n1"], "start_unix_s": 2, "end_unix_s": 1, "users": ["a"]}, "end_unix_s"),
    ],
)
async def test_a_setting_without_sense_is_refused_by_name(cluster, path, body, field):
    async with cluster["n1"].client("ops", "operator") as operator:
        answer = await operator.put(f"/v1/settings/{path}", json=body)
        assert (answer.status_code, answer.json()["field"]) == (400, field)


async def test_operators_copy_what_any_node_knows_page_by_page(cluster):
    async with cluster["n2"].client() as owner:
        jobs = [(await owner.post("/v1/jobs", json={"argv": ["true"]})).json()["id"] for _ in range(3)]
    async with cluster["n1"].client("ops", "operator") as operator:
        first = (await operator.get("/v1/nodes/n2/snapshot?count=2")).json()
        assert ([each["record"]["id"] for each in first["jobs"]], first["next"]) == (jobs[:2], jobs[1])
        last = (await operator.get(f"/v1/nodes/n2/snapshot?count=2&after={jobs[1]}")).json()
        assert ([each["record"]["id"] for each in last["jobs"]], last["next"]) == (jobs[2:], None)
        assert (await operator.get("/v1/nodes/n2/snapshot?count=0")).status_code == 400
        assert (await operator.get("/v1/nodes/nobody/snapshot")).status_code == 404
    async with cluster["n2"].client() as owner:
        assert (await owner.get("/v1/nodes/n2/snapshot")).status_code == 403


async def test_users_read_what_of_theirs_has_ended_page_by_page_and_operators_everything(cluster):
    async with cluster["n1"].client() as owner, cluster["n1"].client("eve") as eve:
        mine = [(await owner.post("/v1/jobs", json={"argv": ["true"]})).json()["id"] for _ in range(3)]
        theirs = (await eve.post("/v1/jobs", json={"argv": ["true"]})).json()["id"]
    async with cluster["n2"].client() as owner:
        first = (await owner.get("/v1/nodes/n1/history?count=2")).json()
        assert ([each["job"] for each in first["tasks"]], first["next"]) == (mine[:2], [mine[1], 0])
        last = (await owner.get(f"/v1/nodes/n1/history?after={mine[1]}.0")).json()
        assert ([each["job"] for each in last["tasks"]], last["next"]) == (mine[2:], None)
        assert (await owner.get("/v1/nodes/n1/history?owner=eve")).json()["tasks"] == []
        assert (await owner.get("/v1/nodes/n1/history?after=x")).status_code == 400
    async with cluster["n2"].client("ops", "operator") as operator:
        told = (await operator.get("/v1/nodes/n1/history")).json()["tasks"]
        assert [each["job"] for each in told] == [*mine, theirs]
        only = (await operator.get("/v1/nodes/n1/history?owner=eve")).json()["tasks"]
        assert [each["job"] for each in only] == [theirs]
