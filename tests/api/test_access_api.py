"""Who may call: tokens, the node without a key, the door between nodes, and requests that other nodes forward."""

from __future__ import annotations

import time

import msgspec
import pytest

from cluster import KeyRing
from node.api.forward import ForwardedRequest, ForwardedResponse
from node.peers import PlainBodies, body_sealer
from node.tokens import Role, Tokens

KEY = bytes(range(32))
PATHS = [
    ("GET", "/v1/version"),
    ("GET", "/v1/nodes"),
    ("GET", "/v1/members"),
    ("GET", "/v1/jobs"),
    ("POST", "/v1/jobs"),
    ("GET", "/v1/jobs/1001"),
    ("DELETE", "/v1/jobs/1001"),
    ("GET", "/v1/jobs/1001/logs"),
    ("GET", "/v1/jobs/1001/explain"),
    ("GET", "/v1/images"),
    ("PUT", "/v1/images/x"),
    ("DELETE", "/v1/images/x"),
    ("GET", "/v1/images/x"),
    ("DELETE", "/v1/images"),
    ("POST", "/v1/images/x/build"),
    ("GET", "/v1/images/x/export"),
    ("POST", "/v1/node/accepting"),
]


def problem(response, status: int, kind: str) -> dict:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["type"] == f"urn:fofoca:problem:{kind}"
    return document


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_nothing_is_served_without_a_token(cluster, method, path):
    async with cluster["n1"].client(user=None) as client:
        answer = await client.request(method, path)
    problem(answer, 401, "bad-token")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Bearer x",
        "Bearer fof1.AAAA.BBBB",
        "Bearer fof1..",
        "Bearer " + "x" * 9000,
    ],
)
async def test_what_is_no_token_opens_nothing(cluster, header):
    async with cluster["n1"].client(user=None, authorization=header) as client:
        problem(await client.get("/v1/version"), 401, "bad-token")


async def test_tokens_of_another_cluster_and_expired_ones_open_nothing(cluster):
    foreign = Tokens(bytes(32)).create("ana", "admin", time.time())
    expired = Tokens(KEY).create("ana", "admin", time.time() - 100, lifetime_s=50)
    for token, word in ((foreign, "key"), (expired, "expired")):
        async with cluster["n1"].client(user=None, authorization=f"Bearer {token}") as client:
            assert word in problem(await client.get("/v1/version"), 401, "bad-token")["detail"]


async def test_a_token_that_expires_is_soon_forgotten(cluster, monkeypatch):
    async with cluster["n1"].client() as client:
        assert (await client.get("/v1/version")).status_code == 200
        later = time.time() + 3601
        monkeypatch.setattr(time, "time", lambda: later)
        problem(await client.get("/v1/version"), 401, "bad-token")


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/v1/images/x"), ("DELETE", "/v1/images/x"), ("POST", "/v1/node/accepting")]
)
async def test_users_may_not_do_what_is_for_administrators(cluster, method, path):
    async with cluster["n1"].client("ana", "user") as client:
        problem(await client.request(method, path, content=b"{}"), 403, "not-permitted")
    assert cluster["n1"].jobs.accepting


async def test_the_doors_role_opens_the_door_alone(cluster):
    async with cluster["n1"].client("front", "door") as client:
        problem(await client.get("/v1/jobs"), 403, "not-permitted")


async def test_an_administrator_cordons_a_node(cluster):
    async with cluster["n1"].client("root", "admin") as client:
        answer = await client.post("/v1/node/accepting", json={"accepting": False})
        assert answer.json() == {"node": "n1", "accepting": False}
        assert not cluster["n1"].jobs.accepting
        for body in (b"", b"{}", b'{"accepting": 1}', b'{"accepting": true, "more": 1}', b" " * 2000):
            assert (await client.post("/v1/node/accepting", content=body)).status_code in (400, 413)


async def test_paths_and_methods_that_are_not_there_are_problems_too(cluster):
    async with cluster["n1"].client() as client:
        for path in ("/v1", "/v1/jobs/", "/v2/jobs", "/v1/jobs/1/2", "/%2e%2e/etc/passwd", "/%0d%0a" + "x" * 500):
            problem(await client.get(path), 404, "not-found")
        answer = await client.put("/v1/jobs")
        problem(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == "GET, POST"


async def test_without_a_key_every_local_caller_is_the_administrator(new_cluster):
    node = new_cluster(1, key=None)["n1"]
    async with node.client(user=None, host="localhost:8642") as client:
        assert (await client.post("/v1/node/accepting", json={"accepting": False})).status_code == 200
        assert (await client.post("/v1/jobs", json={"argv": ["x"]})).status_code == 201
    assert node.jobs.specs[1001][0] == "admin"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8642"},
        {"host": "127.0.0.1:8642", "origin": "http://evil.example"},
        {"host": "127.0.0.1:8642", "origin": "null"},
    ],
)
async def test_without_a_key_a_foreign_web_page_gets_nothing(new_cluster, headers):
    node = new_cluster(1, key=None)["n1"]
    async with node.client(user=None, **headers) as client:
        problem(await client.post("/v1/jobs", json={"argv": ["x"]}), 403, "not-permitted")
        problem(await client.post("/internal/v1/rpc", content=b"x"), 403, "not-permitted")
    assert node.jobs.specs == {}


@pytest.mark.parametrize("host", ["127.0.0.1:8642", "[::1]:8642", "localhost", "agent", "api.localhost:1"])
async def test_without_a_key_local_names_are_served(new_cluster, host):
    async with new_cluster(1, key=None)["n1"].client(user=None, host=host) as client:
        assert (await client.get("/v1/version", headers={"origin": f"http://{host}"})).status_code == 200


# --- the door between nodes


async def test_a_call_that_is_not_sealed_under_the_key_is_refused_and_counted(cluster):
    bodies = [
        b"",
        b"x",
        b"\xf1" * 100,
        PlainBodies("n2").seal(b"x"),
        body_sealer("n2", KeyRing(bytes(32), label="test")).seal(b"x"),
    ]
    async with cluster["n1"].client(user=None) as client:
        for body in bodies:
            problem(await client.post("/internal/v1/rpc", content=body), 401, "bad-seal")
    assert cluster["n1"].peers.refused.total() == len(bodies)


async def test_a_replayed_call_is_refused(cluster):
    async with cluster["n2"].client() as client:
        await client.get("/v1/jobs/1001")
    body = cluster.wire.carried[-1]
    async with cluster["n1"].client(user=None) as client:
        problem(await client.post("/internal/v1/rpc", content=body), 401, "bad-seal")
    assert cluster["n1"].peers.refused == {"replayed": 1}


async def test_a_call_to_another_node_is_refused(cluster):
    async with cluster["n2"].client() as client:
        await client.get("/v1/jobs/1001")
    body = cluster.wire.carried[-1]
    async with cluster["n3"].client(user=None) as client:
        problem(await client.post("/internal/v1/rpc", content=body), 401, "bad-seal")
    assert cluster["n3"].peers.refused == {"misdirected": 1}


async def test_the_door_between_nodes_takes_posts_of_a_bounded_size_alone(cluster):
    async with cluster["n1"].client(user=None) as client:
        problem(await client.get("/internal/v1/rpc"), 405, "method-not-allowed")
        problem(await client.post("/internal/v1/rpc", content=b"x" * 65_537), 413, "too-large")
        headers = {"x-fofoca-ticket": cluster["n2"].peers._new_ticket()}
        answer = await client.post("/internal/v1/rpc", content=b"x" * 65_537, headers=headers)
        problem(answer, 401, "bad-seal")
        headers = {"x-fofoca-ticket": cluster["n2"].peers._new_ticket()}
        answer = await client.post("/internal/v1/rpc", content=b"x" * (17 << 20), headers=headers)
        problem(answer, 413, "too-large")


# --- forwarding


def forwarded(path: str, method: str = "GET", user: str = "ana") -> bytes:
    return msgspec.msgpack.encode(ForwardedRequest(method, path, b"", user, Role.USER))


async def call(cluster, payload: bytes) -> ForwardedResponse:
    answer = await cluster["n1"].peers.call("n2", "http", payload, 5)
    return msgspec.msgpack.decode(answer, type=ForwardedResponse)


async def test_a_forwarded_request_is_never_forwarded_again(cluster):
    answer = await call(cluster, forwarded("/v1/jobs/1003"))
    assert answer.status == 508
    assert b"not the home" in answer.body


async def test_nodes_that_disagree_about_a_home_can_not_loop(cluster):
    # Each takes the other for the node with number 7.
    cluster["n1"].peers.set_member("n2", 7, "n2:8642")
    cluster["n2"].peers.set_member("n1", 7, "n1:8642")
    async with cluster["n1"].client() as client:
        problem(await client.get("/v1/jobs/5007"), 508, "not-the-home")
    assert len(cluster.wire.carried) == 1


async def test_a_forwarded_request_has_its_callers_rights_and_no_more(cluster):
    async with cluster["n2"].client("ana") as client:
        await client.post("/v1/jobs", json={"argv": ["x"]})
    assert (await call(cluster, forwarded("/v1/jobs/1002", user="ana"))).status == 200
    assert (await call(cluster, forwarded("/v1/jobs/1002", user="eve"))).status == 404
    assert (await call(cluster, forwarded("/v1/node/accepting", "POST"))).status == 403


@pytest.mark.parametrize("path", ["/internal/v1/rpc", "/", "http://x/v1/jobs", ""])
async def test_only_the_users_api_is_forwarded(cluster, path):
    with pytest.raises(Exception, match="not forwarded"):
        await call(cluster, forwarded(path))


@pytest.mark.parametrize("payload", [b"", b"x", msgspec.msgpack.encode(["GET", "/v1/jobs"])])
async def test_a_forwarded_request_that_can_not_be_read_is_refused(cluster, payload):
    with pytest.raises(Exception, match="expected a forwarded request"):
        await call(cluster, payload)


async def test_no_header_makes_a_request_look_forwarded(cluster):
    async with cluster["n1"].client(user=None, **{"fofoca.forwarded": "root", "x-forwarded-user": "root"}) as client:
        problem(await client.get("/v1/jobs"), 401, "bad-token")
