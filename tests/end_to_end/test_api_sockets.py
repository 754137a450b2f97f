"""The API over real sockets: TCP and unix, connections that are kept, and clients that misbehave."""

from __future__ import annotations

import importlib.util
import socket
import stat
import sys
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from cluster import KeyRing
from node.api import Listening, serve, serve_calls, server
from node.caller import Agents, parse_address
from node.errors import AgentUnreachable, ApiProblem, PeerRefused
from node.peers import Peers, body_sealer
from node.tokens import Tokens

JOB = {"name": "hello", "argv": ["echo", "hi"], "cpu_milli": 250, "memory_bytes": 64 << 20}


def _fakes():
    path = Path(__file__).parents[1] / "api" / "conftest.py"
    spec = importlib.util.spec_from_file_location("api_fakes", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["api_fakes"] = module
    spec.loader.exec_module(module)
    return module


fakes = _fakes()
TOKEN = Tokens(fakes.KEY).create("ana", "admin", time.time())


@asynccontextmanager
async def served(tmp_path: Path, connections_max: int = 50, stall_timeout_s: float = 5.0):
    node = fakes.make_cluster(1, stall_timeout_s=stall_timeout_s)["n1"]
    where = Listening(
        host="127.0.0.1",
        port=0,
        socket_path=tmp_path / "run" / "api.sock",
        connections_max=connections_max,
        stall_timeout_s=stall_timeout_s,
    )
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            node.port = await nursery.start(partial(serve, node.app, partial(serve_calls, node.services), where))
            node.socket_path = where.socket_path
            yield node
            nursery.cancel_scope.cancel()


async def exchange(port: int, request: bytes, timeout_s: float = 5.0) -> bytes:
    """Send raw bytes; return what comes back until the server closes (or the time is over)."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    answer = b""
    async with stream:
        with trio.move_on_after(timeout_s):
            # As real clients do: an answer that came early is read although the request could not be sent whole.
            with suppress(trio.BrokenResourceError):
                await stream.send_all(request)
            with suppress(trio.BrokenResourceError):
                async for piece in stream:
                    answer += piece
    return answer


def head(method: str = "GET", path: str = "/v1/version", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: n", f"authorization: Bearer {TOKEN}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def caller(url: str) -> Agents:
    return Agents([parse_address(url)], TOKEN)


async def call(method, *arguments, **options):
    """Call an agent as the command line does, without holding up the server in this process."""
    return await trio.to_thread.run_sync(partial(method, *arguments, **options))


async def test_tcp_and_the_local_socket_give_the_same_answers(tmp_path):
    async with served(tmp_path) as node:
        urls = [f"http://127.0.0.1:{node.port}", f"unix://{node.socket_path}"]
        for agents in map(caller, urls):
            assert (await call(agents.get, "/v1/version")).json()["node"] == "n1"
            job_id = (await call(agents.post, "/v1/jobs", JOB)).json()["id"]
            assert (await call(agents.get, f"/v1/jobs/{job_id}")).json()["name"] == "hello"
            assert len((await call(agents.post, "/v1/jobs", [JOB, JOB])).json()["ids"]) == 2
            assert (await call(agents.delete, f"/v1/jobs/{job_id}")).json()["state"] == "cancelled"
            with pytest.raises(ApiProblem) as refused:
                await call(agents.post, "/v1/jobs", {**JOB, "cpu_milli": "much"})
            assert refused.value.document["field"] == "cpu_milli"
        assert len((await call(caller(urls[0]).get, "/v1/jobs")).json()) == 6


async def test_the_local_socket_is_for_its_owner_alone_and_is_gone_afterwards(tmp_path):
    async with served(tmp_path) as node:
        mode = node.socket_path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        path = node.socket_path
    assert not path.exists()


async def test_a_socket_left_by_a_killed_agent_is_replaced(tmp_path):
    (tmp_path / "run").mkdir()
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "run" / "api.sock"))
    stale.close()
    async with served(tmp_path) as node:
        answer = await call(caller(f"unix://{node.socket_path}").get, "/v1/version")
        assert answer.json()["node"] == "n1"


async def test_images_are_streamed_both_ways(tmp_path):
    async with served(tmp_path) as node:
        agents = caller(f"http://127.0.0.1:{node.port}")
        pieces = (b"x" * 65_536 for _ in range(64))
        image = (await call(agents.put_stream, "/v1/images/busybox:1", pieces, 10.0)).json()
        assert image["size_bytes"] == 64 * 65_536
        exported = await call(lambda: list(agents.get_stream("/v1/images/busybox:1/export", 10.0)))
        assert sum(map(len, exported)) == 64 * 65_536
        await call(agents.delete, "/v1/images/busybox:1")
        with pytest.raises(ApiProblem, match="no image"):
            await call(agents.delete, "/v1/images/busybox:1")


async def test_nobody_there_is_one_clear_error(tmp_path):
    with pytest.raises(AgentUnreachable, match="no agent answers at unix://"):
        await call(caller(f"unix://{tmp_path}/none.sock").get, "/v1/version")


async def test_a_body_that_is_answered_without_being_read_frees_its_connection(tmp_path):
    async with served(tmp_path, connections_max=1) as node:
        job_id = await node.jobs.submit("ana", fakes.JobSpec("x", ("x",), fakes.Resources(1, 1 << 20)))
        for method, path, status in [("POST", "/v1/version", 405), ("GET", f"/v1/jobs/{job_id}?wait_s=0.2", 200)]:
            request = head(method, path, content_length=str(20 << 20)) + b"x" * (4 << 20)
            answer = await exchange(node.port, request, timeout_s=2)
            assert answer.startswith(b"HTTP/1.1 %d" % status)
        assert b" 200 " in await exchange(node.port, head(connection="close"))


async def test_a_client_that_reads_nothing_is_cut_off(tmp_path):
    async with served(tmp_path, connections_max=1, stall_timeout_s=0.3) as node:
        node.images.stored["big", "latest"] = b"x" * (32 << 20)
        stream = await trio.open_tcp_stream("127.0.0.1", node.port)
        async with stream:
            await stream.send_all(head(path="/v1/images/big/export"))
            # With one slot alone, the next client is served only once the first one is cut.
            assert b" 200 " in await exchange(node.port, head(connection="close"))


async def test_a_body_that_does_not_come_is_told_so(tmp_path):
    async with served(tmp_path, stall_timeout_s=0.3) as node:
        answer = await exchange(node.port, head("POST", "/v1/jobs", content_length="100") + b"[")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"urn:fofoca:problem:too-slow" in answer


async def test_headers_that_do_not_come_end_the_connection(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "KEEP_ALIVE_S", 0.3)
    async with served(tmp_path, connections_max=1) as node:
        start = trio.current_time()
        await exchange(node.port, b"GET /v1/version HTTP/1.1\r\nhost:")
        assert trio.current_time() - start < 3


@pytest.mark.parametrize(
    "request_bytes",
    [
        head(x_filler="y" * 100_000),
        b"GET /\xff\xfe HTTP/1.1\r\nhost: n\r\n\r\n",
        b"\x16\x03\x01 not http\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: n\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nhost: n\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense",
        head(upgrade="websocket", connection="upgrade", sec_websocket_version="13", sec_websocket_key="x"),
    ],
)
async def test_nonsense_ends_one_connection_and_no_other(tmp_path, request_bytes):
    async with served(tmp_path) as node:
        agents = caller(f"http://127.0.0.1:{node.port}")
        await call(agents.get, "/v1/version")
        answer = await exchange(node.port, request_bytes, timeout_s=0.5)
        assert b" 200 " not in answer
        assert b"Traceback" not in answer
        assert (await call(agents.get, "/v1/version")).json()["node"] == "n1"


async def test_a_request_under_way_is_answered_before_the_end(tmp_path, nursery):
    async with served(tmp_path) as node:
        agents = caller(f"http://127.0.0.1:{node.port}")
        job_id = (await call(agents.post, "/v1/jobs", JOB)).json()["id"]
        answers = []

        async def wait() -> None:
            answers.append((await call(agents.get, f"/v1/jobs/{job_id}", wait_s=0.5)).json())

        nursery.start_soon(wait)
        await trio.sleep(0.1)
    await trio.sleep(0.6)
    assert [job["state"] for job in answers] == ["pending"]


async def test_a_sealed_call_goes_over_a_real_connection(tmp_path):
    async with served(tmp_path) as node:

        async def echo(sender: str, payload: bytes) -> bytes:
            return sender.encode() + payload

        node.peers.register("echo", echo)
        peers = Peers("n2", body_sealer("n2", KeyRing(fakes.KEY, label="test")))
        peers.set_member("n1", 1, f"127.0.0.1:{node.port}")
        for _ in range(3):
            assert await peers.call("n1", "echo", b"!", 5) == b"n2!"
        large = b"x" * (5 << 20)
        assert await peers.call("n1", "echo", large, 5) == b"n2" + large
        stranger = Peers("n2", body_sealer("n2", KeyRing(bytes(32), label="test")))
        stranger.set_member("n1", 1, f"127.0.0.1:{node.port}")
        with pytest.raises(PeerRefused, match="401"):
            await stranger.call("n1", "echo", b"!", 5)
        assert node.peers.refused.total() == 1
        await peers.close()
        await stranger.close()


async def test_a_connection_that_began_with_a_call_carries_nothing_else_and_ends_with_the_server(tmp_path):
    async with served(tmp_path) as node:
        sealer = body_sealer("n2", KeyRing(fakes.KEY, label="test"))
        body = sealer.seal(b"no call")
        call = head("POST", "/internal/v1/rpc", content_length=str(len(body))) + body
        answer = await exchange(node.port, call + head())
        assert answer.count(b"HTTP/1.1 ") == 1, "what is refused ends the connection"
        for bad in (head("POST", "/internal/v1/rpc"), head("POST", "/internal/v1/rpc", content_length="99999999")):
            answer = await exchange(node.port, bad)
            assert answer.startswith(b"HTTP/1.1 4"), answer
            assert b"connection: close" in answer
        assert (await exchange(node.port, head("POST", "/internal/v1/rpc", a="1", A="2"))) == b""
        begun = time.monotonic()
        idle = await trio.open_tcp_stream("127.0.0.1", node.port)
        await idle.send_all(b"POST /internal/v1/rpc HTTP/1.1\r\nhost: n")
        await trio.sleep(0.05)
    assert await idle.receive_some() == b""
    assert time.monotonic() - begun < server.GRACE_S
