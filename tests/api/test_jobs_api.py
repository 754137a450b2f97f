"""Jobs over HTTP: submit, list, show, wait, cancel, explain; whose they are, and what bad input is told."""

from __future__ import annotations

import httpx
import pytest
import trio

JOB = {"name": "hello", "argv": ["echo", "hi"], "cpu_milli": 250, "memory_bytes": 64 << 20, "image": "busybox"}


def problem(response: httpx.Response, status: int, kind: str) -> dict:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["type"] == f"urn:fofoca:problem:{kind}"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert "Traceback" not in response.text
    return document


async def test_a_submitted_job_is_shown_by_every_node(cluster):
    async with cluster["n2"].client() as client:
        accepted = await client.post("/v1/jobs", json=JOB)
    assert accepted.status_code == 201
    assert accepted.json() == {"id": 1002, "home": "n2"}
    for node in cluster.nodes.values():
        async with node.client() as client:
            job = (await client.get("/v1/jobs/1002")).json()
            assert (job["id"], job["name"], job["home"], job["owner"], job["state"]) == (
                1002, "hello", "n2", "ana", "pending",
            )  # fmt: skip
            (task,) = job["tasks"]
            known = {"index": 0, "state": "pending", "node": "", "attempt": 0, "exit_code": None, "reason": "new"}
            assert known.items() <= task.items()


async def test_the_spec_is_what_was_asked_for(cluster):
    body = {
        **JOB,
        "env": {"B": "2", "A": "1"},
        "array": "0-9%3",
        "time_limit_s": 60,
        "priority": 7,
        "constraints": ["disk=ssd", "!gpu", "rack in (a,b)"],
        "limit": {"memory_bytes": 128 << 20},
        "on_lost": "fail",
    }
    async with cluster["n1"].client() as client:
        assert (await client.post("/v1/jobs", json=body)).status_code == 201
    owner, spec = cluster["n1"].jobs.specs[1001]
    assert owner == "ana"
    assert spec.argv == ("echo", "hi")
    assert spec.env == (("A", "1"), ("B", "2"))
    assert list(spec.indices()) == list(range(10))
    assert spec.array.throttle == 3
    assert (spec.limit.cpu_milli, spec.limit.memory_bytes) == (0, 128 << 20)
    assert [(each.label, each.operator.value, each.values) for each in spec.constraints] == [
        ("disk", "in", ("ssd",)),
        ("gpu", "absent", ()),
        ("rack", "in", ("a", "b")),
    ]


async def test_a_list_of_jobs_gets_ids_in_its_order(cluster):
    async with cluster["n1"].client() as client:
        answer = await client.post("/v1/jobs", json=[{**JOB, "name": f"j{index}"} for index in range(20)])
    assert answer.status_code == 201
    names = [cluster["n1"].jobs.specs[job_id][1].name for job_id in answer.json()["ids"]]
    assert names == [f"j{index}" for index in range(20)]


async def test_a_list_with_one_bad_job_leaves_no_job_behind(cluster):
    async with cluster["n1"].client() as client:
        answer = await client.post("/v1/jobs", json=[JOB, {**JOB, "image": "nothing"}, JOB])
    document = problem(answer, 400, "invalid-value")
    assert document["field"] == "[1].image"
    jobs = cluster["n1"].jobs
    assert not jobs.specs
    assert not jobs.cancelled


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"cpu": 1}, "cpu"),
        ({"limit": {"disk": 1}}, "limit.disk"),
        ({"cpu_milli": "250m"}, "cpu_milli"),
        ({"cpu_milli": 0}, "cpu_milli"),
        ({"memory_bytes": -1}, "memory_bytes"),
        ({"memory_bytes": 2**70}, "memory_bytes"),
        ({"argv": [], "image": ""}, "argv"),
        ({"argv": [""]}, "argv"),
        ({"image": "a;;b"}, "image"),
        ({"image": "a;a"}, "image"),
        ({"argv": ["a\0b"]}, "argv"),
        ({"argv": "echo"}, "argv"),
        ({"argv": ["x", 3]}, "argv[1]"),
        ({"env": {"A=B": "1"}}, "env"),
        ({"array": "9-0"}, "array"),
        ({"array": "0-99999999999"}, "array"),
        ({"array": "0-9%0"}, "array"),
        ({"array": 5}, "array"),
        ({"constraints": ["rack in a"]}, "constraints"),
        ({"kind": "daemon"}, "kind"),
        ({"on_lost": "shrug"}, "on_lost"),
        ({"network": "host"}, "network"),
        ({"time_limit_s": -1}, "time_limit_s"),
        ({"image": "../../etc"}, "image"),
        ({"name": "a b"}, "name"),
        ({"name": "../x"}, "name"),
        ({"limit": {"memory_bytes": 1}}, "limit.memory_bytes"),
    ],
)
async def test_a_bad_value_is_refused_by_the_name_of_its_field(cluster, change, field):
    async with cluster["n1"].client() as client:
        document = problem(await client.post("/v1/jobs", json={**JOB, **change}), 400, "invalid-value")
    assert document["field"] == field
    assert document["expected"]
    assert cluster["n1"].jobs.specs == {}


async def test_a_missing_field_is_named(cluster):
    async with cluster["n1"].client() as client:
        assert problem(await client.post("/v1/jobs", json={}), 400, "invalid-value")["field"] == "argv"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"nonsense", b"[", b"[]", b"3", b"null", b'"\xff"', b"[" * 100_000, b"{}x"]
)
async def test_what_is_no_submission_is_refused(cluster, body):
    async with cluster["n1"].client() as client:
        problem(await client.post("/v1/jobs", content=body), 400, "invalid-value")


async def test_half_a_surrogate_pair_is_refused(cluster):
    async with cluster["n1"].client() as client:
        problem(await client.post("/v1/jobs", content=b'{"argv": ["\\ud800"]}'), 400, "invalid-value")


async def test_an_unknown_image_is_told_apart(cluster):
    async with cluster["n1"].client() as client:
        document = problem(await client.post("/v1/jobs", json={**JOB, "image": "nothing"}), 400, "unknown-image")
    assert document["field"] == "image"


async def test_a_huge_body_is_refused_whether_declared_or_not(new_cluster):
    node = new_cluster(1, body_bytes_max=1000)["n1"]

    async def pieces():
        for _ in range(20):
            yield b" " * 100

    async with node.client() as client:
        problem(await client.post("/v1/jobs", content=b" " * 2000), 413, "too-large")
        problem(await client.post("/v1/jobs", content=pieces()), 413, "too-large")


async def test_a_foreign_job_looks_like_an_unknown_one(cluster):
    async with cluster["n1"].client("ana") as client:
        await client.post("/v1/jobs", json=JOB)
    for node in cluster.nodes.values():
        async with node.client("eve") as client:
            for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/logs"), ("GET", "/explain")]:
                foreign = problem(await client.request(method, f"/v1/jobs/1001{path}"), 404, "unknown-job")
                unknown = problem(await client.request(method, f"/v1/jobs/9001{path}"), 404, "unknown-job")
                assert foreign["detail"].replace("1001", "N") == unknown["detail"].replace("9001", "N")
            assert (await client.get("/v1/jobs")).json() == []
            assert (await client.get("/v1/jobs?owner=ana")).json() == []
    assert cluster["n1"].jobs.cancelled == []


async def test_an_admin_sees_and_cancels_everybodys_jobs(cluster):
    async with cluster["n1"].client("ana") as client:
        await client.post("/v1/jobs", json=JOB)
    async with cluster["n3"].client("root", "admin") as client:
        assert [job["id"] for job in (await client.get("/v1/jobs")).json()] == [1001]
        answer = await client.delete("/v1/jobs/1001")
        assert (answer.status_code, answer.json()) == (202, {"id": 1001, "state": "cancelled"})


async def test_the_list_joins_all_homes_and_names_those_that_did_not_answer(cluster):
    for name, node in cluster.nodes.items():
        async with node.client() as client:
            await client.post("/v1/jobs", json={**JOB, "name": name})
    async with cluster["n1"].client() as client:
        answer = await client.get("/v1/jobs")
        assert sorted(job["home"] for job in answer.json()) == ["n1", "n2", "n3"]
        assert "x-fofoca-missing" not in answer.headers
        cluster.wire.cut.add("n2:8642")
        cluster["n1"].states["n3"] = "failed"
        answer = await client.get("/v1/jobs")
        assert [job["home"] for job in answer.json()] == ["n1"]
        assert answer.headers["x-fofoca-missing"] == "n2,n3"


async def test_a_home_that_hangs_does_not_hold_up_the_list(cluster, autojump_clock):
    async def hang(*_: object) -> tuple[int, bytes]:
        await trio.sleep_forever()
        raise AssertionError

    cluster["n2"].peers.handle = hang
    async with cluster["n1"].client() as client:
        start = trio.current_time()
        answer = await client.get("/v1/jobs")
        assert answer.headers["x-fofoca-missing"] == "n2"
        assert trio.current_time() - start < 3


async def test_an_unreachable_home_is_named(cluster):
    async with cluster["n2"].client() as client:
        await client.post("/v1/jobs", json=JOB)
    cluster.wire.cut.add("n2:8642")
    async with cluster["n1"].client() as client:
        answer = await client.get("/v1/jobs/1002")
        assert problem(answer, 503, "node-unreachable")["node"] == "n2"
        assert answer.headers["retry-after"]


async def test_a_job_of_no_known_node_is_unknown(cluster):
    async with cluster["n1"].client() as client:
        problem(await client.get("/v1/jobs/12999"), 404, "unknown-job")


@pytest.mark.parametrize("text", ["abc", "0", "-1", "1.5", "9" * 19, "9" * 400, "%00", "٣"])
async def test_what_is_no_id_is_refused(cluster, text):
    async with cluster["n1"].client() as client:
        problem(await client.get(f"/v1/jobs/{text}"), 400, "invalid-value")


async def test_waiting_answers_when_the_job_is_final(cluster, autojump_clock, nursery):
    async with cluster["n2"].client() as client:
        await client.post("/v1/jobs", json=JOB)

    async def finish() -> None:
        await trio.sleep(5)
        from scheduler.model import State

        cluster["n2"].jobs.move(1002, State.SUCCEEDED, "n3", 1, 0)

    nursery.start_soon(finish)
    async with cluster["n1"].client() as client:
        start = trio.current_time()
        job = (await client.get("/v1/jobs/1002?wait_s=30")).json()
        assert job["state"] == "succeeded"
        assert 5 <= trio.current_time() - start < 6


async def test_waiting_ends_after_its_time(cluster, autojump_clock):
    async with cluster["n2"].client() as client:
        await client.post("/v1/jobs", json=JOB)
    async with cluster["n1"].client() as client:
        start = trio.current_time()
        assert (await client.get("/v1/jobs/1002?wait_s=20")).json()["state"] == "pending"
        assert 20 <= trio.current_time() - start < 21


async def test_one_user_can_not_take_all_long_polls(cluster, autojump_clock, nursery):
    async with cluster["n1"].client() as ana, cluster["n1"].client("eve") as eve:
        for client in (ana, eve):
            await client.post("/v1/jobs", json=JOB)
        for _ in range(200):
            nursery.start_soon(eve.get, "/v1/jobs/2001?wait_s=30")
        await trio.sleep(1)
        answer = await eve.get("/v1/jobs/2001?wait_s=30")
        problem(answer, 503, "busy")
        assert answer.headers["retry-after"]
        assert (await eve.get("/v1/jobs/2001")).status_code == 200
        assert (await ana.get("/v1/jobs/1001?wait_s=1")).status_code == 200
        await trio.sleep(60)
        assert (await eve.get("/v1/jobs/2001?wait_s=1")).status_code == 200


async def test_those_who_wait_at_a_far_home_do_not_keep_others_from_it(cluster, autojump_clock, nursery):
    async with cluster["n2"].client("root", "admin") as client:
        await client.post("/v1/jobs", json=JOB)
    waiting = [cluster["n1"].client(f"u{number}", "admin") for number in range(2)]
    for client in waiting:
        for _ in range(200):
            nursery.start_soon(client.get, "/v1/jobs/1002?wait_s=30")
    await trio.sleep(1)
    assert (await waiting[0].get("/v1/jobs/1002")).status_code == 200
    problem(await waiting[0].get("/v1/jobs/1002?wait_s=3"), 503, "busy")


@pytest.mark.parametrize("wait", ["x", "-1", "nan", ""])
async def test_a_senseless_wait_is_refused(cluster, wait):
    async with cluster["n1"].client() as client:
        assert problem(await client.get(f"/v1/jobs/1001?wait_s={wait}"), 400, "invalid-value")["field"] == "wait_s"


async def test_the_tasks_of_a_large_job_are_shown_in_windows(cluster):
    async with cluster["n1"].client() as client:
        await client.post("/v1/jobs", json={**JOB, "array": "0-19999"})
        job = (await client.get("/v1/jobs/1001")).json()
        assert len(job["tasks"]) == 10_000
        assert job["counts"] == {"pending": 20_000}
        job = (await client.get("/v1/jobs/1001?first=15000&count=2")).json()
        assert [task["index"] for task in job["tasks"]] == [15_000, 15_001]


async def test_an_explanation_has_words_and_parts(cluster):
    async with cluster["n2"].client() as client:
        await client.post("/v1/jobs", json=JOB)
    async with cluster["n3"].client() as client:
        explained = (await client.get("/v1/jobs/1002/explain")).json()
    assert (explained["id"], explained["state"], explained["summary"]) == (1002, "pending", "it waits")
    assert explained["position"] == 1
    assert explained["reasons"][0]["dimension"] == "memory"
    assert "memory short on 1 of 1 nodes" in explained["reasons"][0]["text"]


async def test_our_own_bug_tells_nobody_how(cluster, caplog):
    cluster["n1"].jobs.fail_with = RuntimeError("secret detail")
    async with cluster["n1"].client() as client:
        answer = await client.post("/v1/jobs", json=JOB)
    document = problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert document["detail"].split()[-1] in str(caplog.records[-1].fofoca_fields)
