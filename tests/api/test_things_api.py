"""Nodes, images and logs over HTTP."""

from __future__ import annotations

import json

import pytest
import trio

from scheduler.model import State


def problem(response, status: int, kind: str) -> dict:
    assert response.status_code == status, response.text
    assert response.json()["type"] == f"urn:fofoca:problem:{kind}"
    return response.json()


async def submitted(cluster, home: str = "n1", **body: object) -> int:
    async with cluster[home].client() as client:
        return (await client.post("/v1/jobs", json={"argv": ["x"], **body})).json()["id"]


async def test_nodes_have_what_users_compare(cluster):
    cluster["n1"].states["n2"] = "suspect"
    async with cluster["n1"].client() as client:
        nodes = {node["name"]: node for node in (await client.get("/v1/nodes")).json()}
    assert nodes["n1"] == {
        "name": "n1",
        "number": 1,
        "state": "alive",
        "capacity": {"cpu_milli": 2000, "memory_bytes": 2 << 30},
        "allocatable": {"cpu_milli": 2000, "memory_bytes": 2 << 30},
        "committed": {"cpu_milli": 500, "memory_bytes": 1 << 30},
        "used": {"cpu_milli": 0, "memory_bytes": 0},
        "overcommit": {"cpu": 0.25, "memory": 0.5},
        "permitted": {"cpu": 1.0, "memory": 1.0},
        "containers": 0,
        "labels": {},
        "leader": True,
        "address": "n1:8642",
        "accepting": True,
        "draining": False,
    }
    assert nodes["n2"]["state"] == "suspect"
    assert nodes["n3"]["capacity"] == {"cpu_milli": 0, "memory_bytes": 0}


async def test_version_and_members_are_this_nodes_own_view(cluster):
    cluster["n2"].states["n1"] = "alive"
    async with cluster["n2"].client() as client:
        told = (await client.get("/v1/version")).json()
        assert told == {"version": "0", "node": "n2", "cluster": "test", "user": "ana", "role": "user"}
        assert (await client.get("/v1/members")).json() == [{"name": "n1", "state": "alive"}]


# --- images


async def test_an_image_goes_in_at_one_node_and_is_listed_by_all(cluster):
    async with cluster["n2"].client("root", "admin") as client:
        stored = await client.put("/v1/images/busybox:1.36", content=b"tar" * 1000)
        assert stored.status_code == 201
        assert stored.json() == {
            "name": "busybox", "tag": "1.36", "digest": "sha256:3000", "size_bytes": 3000, "nodes": ["n2"],
            "copies": [
                {"node": "n2", "percent": 100, "imported_unix_s": 0, "last_used_unix_s": 0.0, "fetched": False,
                 "uses": 0, "used_by": []}
            ],
            "config": {},
        }  # fmt: skip
    async with cluster["n1"].client("root", "admin") as client:
        await client.put("/v1/images/busybox:1.36", content=b"tar" * 1000)
        assert [(each["name"], each["nodes"]) for each in (await client.get("/v1/images")).json()] == [
            ("busybox", ["n1", "n2"])
        ]
        cluster.wire.cut.add("n2:8642")
        answer = await client.get("/v1/images")
        assert answer.json()[0]["nodes"] == ["n1"]
        assert answer.headers["x-fofoca-missing"] == "n2"


async def test_an_image_comes_out_as_it_went_in_and_goes(cluster):
    async with cluster["n1"].client("root", "admin") as client:
        await client.put("/v1/images/library/web", content=b"tar")
        assert (await client.get("/v1/images/library/web:latest/export")).content == b"tar"
        assert (await client.delete("/v1/images/library/web")).status_code == 200
        problem(await client.get("/v1/images/library/web/export"), 404, "not-found")
        problem(await client.delete("/v1/images/library/web"), 404, "not-found")


async def test_an_image_is_shown_with_its_copies_and_a_bounded_list_of_users(cluster):
    async with cluster["n1"].client("root", "admin") as client:
        await client.put("/v1/images/busy", content=b"tar")
        await client.put("/v1/images/quiet", content=b"tarball")
    async with cluster["n2"].client("root", "admin") as client:
        await client.put("/v1/images/busy", content=b"tar")
        shown = (await client.get("/v1/images/busy")).json()
        assert [each["name"] for each in shown] == ["busy"]
        assert [(copy["node"], copy["uses"], len(copy["used_by"])) for copy in shown[0]["copies"]] == [
            ("n1", 120, 100),
            ("n2", 120, 100),
        ]
        problem(await client.get("/v1/images/absent"), 404, "not-found")
        problem(await client.get("/v1/images/UPPER"), 400, "bad-image")


async def test_pruning_asks_every_node_and_takes_no_name_that_is_used(cluster):
    async with cluster["n1"].client("root", "admin") as client:
        for name in ("a", "busy", "c"):
            await client.put(f"/v1/images/{name}", content=name.encode())
        tried = (await client.delete("/v1/images?keep_last=1&dry_run=yes")).json()
        assert tried["names"] == ["c:latest"]
        assert sorted(copy["node"] for copy in tried["copies"]) == ["n1", "n2", "n3"]
        assert len(cluster["n1"].images.stored) == 3
        await client.delete("/v1/images?keep_last=1")
        assert sorted(name for name, _ in cluster["n1"].images.stored) == ["a", "busy"]
        assert (await client.delete("/v1/images?unused_for_s=100")).json() == {"names": [], "copies": []}
        problem(await client.delete("/v1/images?unused_for_s=-1"), 400, "invalid-value")
        problem(await client.delete("/v1/images?dry_run=perhaps"), 400, "invalid-value")
        cluster.wire.cut.add("n2:8642")
        answer = await client.delete("/v1/images?keep_last=1")
        assert answer.json()["names"] == [], "a node that can't be asked may use it"
        assert answer.headers["x-fofoca-missing"] == "n2"


async def test_a_build_is_told_line_by_line_and_ends_with_the_image_or_why_not(cluster):
    async with cluster["n1"].client("root", "admin") as client:
        answer = await client.post("/v1/images/deb:1/build", json={"suite": "bookworm", "include": ["curl"]})
        steps = [json.loads(line) for line in answer.text.splitlines()]
        assert steps[0] == {"progress": "I: building bookworm with curl"}
        assert (steps[1]["image"]["name"], steps[1]["image"]["nodes"]) == ("deb", ["n1"])
        answer = await client.post("/v1/images/deb:2/build", json={"suite": "nowhere"})
        assert json.loads(answer.text.splitlines()[-1])["problem"]["detail"] == "no such suite"


@pytest.mark.parametrize(
    ("field", "order"),
    [
        ("suite", {"suite": "--help"}),
        ("suite", {"suite": "book worm"}),
        ("suite", {"suite": "../x"}),
        ("include", {"suite": "bookworm", "include": ["-oDebug=1"]}),
        ("include", {"suite": "bookworm", "include": ["a,b"]}),
        ("include", {"suite": "bookworm", "include": ["./x.deb"]}),
        ("include", {"suite": "bookworm", "include": ["?essential"]}),
        ("include", {"suite": "bookworm", "include": ["ab"] * 501}),
        ("variant", {"suite": "bookworm", "variant": "custom"}),
        ("body", {"suite": "bookworm", "hooks": ["rm -rf /"]}),
        ("body", {}),
    ],
)
async def test_a_build_that_could_mean_something_else_is_refused(cluster, field, order):
    async with cluster["n1"].client("root", "admin") as client:
        assert problem(await client.post("/v1/images/x/build", json=order), 400, "invalid-value")["field"] == field
    assert cluster["n1"].images.stored == {}


@pytest.mark.parametrize("name", ["..", "../x", "UPPER", "a b", "a:b:c", ".x", "x" * 300, "%00"])
async def test_an_impossible_image_name_is_refused(cluster, name):
    async with cluster["n1"].client("root", "admin") as client:
        answer = await client.put(f"/v1/images/{name}", content=b"tar")
    assert answer.status_code in (400, 404)
    assert answer.headers["content-type"] == "application/problem+json"
    assert cluster["n1"].images.stored == {}


async def test_an_image_has_a_bound(new_cluster):
    async with new_cluster(1, image_bytes_max=1000)["n1"].client("root", "admin") as client:
        problem(await client.put("/v1/images/x", content=b"y" * 1001), 413, "too-large")


# --- logs


async def test_a_tasks_output_is_read_through_any_node(cluster):
    job_id = await submitted(cluster, "n2")
    cluster["n2"].jobs.move(job_id, State.SUCCEEDED, "n3", 2, 0)
    written = cluster["n3"].logs.written
    written[f"{job_id}.0.2", "stdout"], written[f"{job_id}.0.2", "stderr"] = b"out", b"err"
    cluster["n3"].logs.ended.add(f"{job_id}.0.2")
    for node in cluster.nodes.values():
        async with node.client() as client:
            answer = await client.get(f"/v1/jobs/{job_id}/logs?stream=stdout")
            assert (answer.content, answer.headers["x-next-offset"], answer.headers["x-ended"]) == (b"out", "3", "1")
            answer = await client.get(f"/v1/jobs/{job_id}/logs")
            assert answer.content == b"outerr"


async def test_both_streams_are_read_on_from_one_offset(cluster):
    job_id = await submitted(cluster)
    cluster["n1"].jobs.move(job_id, State.SUCCEEDED, "n2", 1, 0)
    name = f"{job_id}.0.1"
    cluster["n2"].logs.written |= {(name, "stdout"): b"a" * 10, (name, "stderr"): b"b" * 10}
    cluster["n2"].logs.ended.add(name)
    text, offset, ended = b"", "0", "0"
    async with cluster["n3"].client() as client:
        for _ in range(100):
            answer = await client.get(f"/v1/jobs/{job_id}/logs?limit=3&offset={offset}")
            text, offset, ended = text + answer.content, answer.headers["x-next-offset"], answer.headers["x-ended"]
            assert len(answer.content) <= 3
            if ended == "1":
                break
    assert sorted(text) == sorted(b"a" * 10 + b"b" * 10)
    assert ended == "1"


async def test_following_waits_for_the_next_bytes(cluster, autojump_clock, nursery):
    job_id = await submitted(cluster)
    start = trio.current_time()

    async def run() -> None:
        await trio.sleep(3)
        cluster["n1"].jobs.move(job_id, State.RUNNING, "n2", 1)
        await trio.sleep(3)
        cluster["n2"].logs.written[f"{job_id}.0.1", "stdout"] = b"hello"

    nursery.start_soon(run)
    async with cluster["n1"].client() as client:
        answer = await client.get(f"/v1/jobs/{job_id}/logs?wait_s=20&stream=stdout")
        assert (answer.content, answer.headers["x-ended"]) == (b"hello", "0")
        assert 6 <= trio.current_time() - start < 7
        answer = await client.get(f"/v1/jobs/{job_id}/logs?wait_s=5&stream=stdout&offset=5")
        assert (answer.content, answer.headers["x-next-offset"]) == (b"", "5")
        assert 11 <= trio.current_time() - start < 12.5


async def test_an_ended_attempt_is_not_the_end_of_a_task_that_goes_on(cluster):
    job_id = await submitted(cluster)
    cluster["n1"].jobs.move(job_id, State.RUNNING, "n2", 1)
    cluster["n2"].logs.ended.add(f"{job_id}.0.1")
    async with cluster["n1"].client() as client:
        assert (await client.get(f"/v1/jobs/{job_id}/logs")).headers["x-ended"] == "0"


async def test_the_next_attempt_is_read_from_its_beginning_and_waited_for(cluster, autojump_clock, nursery):
    job_id = await submitted(cluster)
    cluster["n1"].jobs.move(job_id, State.RUNNING, "n2", 1)
    cluster["n2"].logs.written[f"{job_id}.0.1", "stdout"] = b"first try"
    cluster["n2"].logs.ended.add(f"{job_id}.0.1")
    cluster["n3"].logs.written[f"{job_id}.0.2", "stdout"] = b"second"
    cluster["n3"].logs.ended.add(f"{job_id}.0.2")

    async def run() -> None:
        await trio.sleep(5)
        cluster["n1"].jobs.move(job_id, State.SUCCEEDED, "n3", 2, 0)

    async with cluster["n2"].client() as client:
        path = f"/v1/jobs/{job_id}/logs?wait_s=20&stream=stdout"
        answer = await client.get(path)
        assert (answer.content, answer.headers["x-ended"], answer.headers["x-attempt"]) == (b"first try", "0", "1")
        start = trio.current_time()
        nursery.start_soon(run)
        answer = await client.get(f"{path}&offset=9&attempt=1")
        assert 5 <= trio.current_time() - start < 6, "neither at once, again and again, nor too late"
        assert (answer.content, answer.headers["x-ended"], answer.headers["x-attempt"]) == (b"second", "1", "2")
        answer = await client.get(f"{path}&offset=6&attempt=2")
        assert (answer.content, answer.headers["x-ended"]) == (b"", "1")


async def test_a_task_that_got_lost_after_what_was_read_has_ended(cluster):
    job_id = await submitted(cluster)
    cluster["n1"].jobs.move(job_id, State.LOST, "", 2)
    async with cluster["n1"].client() as client:
        answer = await client.get(f"/v1/jobs/{job_id}/logs?wait_s=20&offset=7&attempt=1")
    assert (answer.content, answer.headers["x-ended"]) == (b"", "1")


async def test_a_task_that_never_ran_has_an_empty_ended_log(cluster):
    job_id = await submitted(cluster)
    async with cluster["n1"].client() as client:
        await client.delete(f"/v1/jobs/{job_id}")
        answer = await client.get(f"/v1/jobs/{job_id}/logs?wait_s=20")
    assert (answer.content, answer.headers["x-ended"]) == (b"", "1")


async def test_the_node_of_a_task_that_can_not_be_reached_is_named(cluster):
    job_id = await submitted(cluster)
    cluster["n1"].jobs.move(job_id, State.RUNNING, "n2", 1)
    cluster.wire.cut.add("n2:8642")
    async with cluster["n1"].client() as client:
        assert problem(await client.get(f"/v1/jobs/{job_id}/logs"), 503, "node-unreachable")["node"] == "n2"


@pytest.mark.parametrize(
    "query",
    [
        "task=x",
        "task=-1",
        "offset=x",
        "offset=-1",
        "limit=0",
        "limit=99999999",
        "stream=all",
        "wait_s=x",
        "offset=" + "9" * 40,
    ],
)
async def test_a_bad_question_for_a_log_names_the_parameter(cluster, query):
    job_id = await submitted(cluster)
    async with cluster["n1"].client() as client:
        document = problem(await client.get(f"/v1/jobs/{job_id}/logs?{query}"), 400, "invalid-value")
    assert document["field"] == query.partition("=")[0]


async def test_an_array_has_the_logs_of_its_own_tasks_alone(cluster):
    job_id = await submitted(cluster, array="10-20:5")
    cluster["n1"].jobs.move(job_id, State.RUNNING, "n1", 1)
    cluster["n1"].logs.written[f"{job_id}.15.1", "stdout"] = b"fifteen"
    async with cluster["n2"].client() as client:
        assert (await client.get(f"/v1/jobs/{job_id}/logs?task=15")).content == b"fifteen"
        problem(await client.get(f"/v1/jobs/{job_id}/logs?task=11"), 404, "not-found")
