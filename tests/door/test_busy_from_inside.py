"""A container may say that its own site is busy, and nothing else."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import open_stream_to_socket_listener

from node.door.inside import CONNECTIONS_MAX, Inside
from node.errors import UnknownSite
from scheduler.model import AllocationId
from scheduler.sites.site import SitePhase, SiteView

KEY = "b:u:ana:1"
OWNER = AllocationId(1001, 0, 1)


class FakeSites:
    def __init__(self) -> None:
        self.busy_s: list[tuple[str, float]] = []

    async def show(self, key: str) -> SiteView:
        await trio.lowlevel.checkpoint()
        jobs = {KEY: 1001, "b:u:bo:1": 2001}
        if key not in jobs:
            raise UnknownSite(f"no site {key}")
        return SiteView(key, "ana", SitePhase.AWAKE, "n1", job=jobs[key])

    async def busy(self, key: str, for_s: float) -> SiteView:
        self.busy_s.append((key, for_s))
        return await self.show(key)


async def say(
    nursery: trio.Nursery, request: bytes, owner: AllocationId | None = OWNER
) -> tuple[str, list[tuple[str, float]]]:
    sites = FakeSites()
    inside = Inside(sites, lambda address: owner if address == "127.0.0.1" else None)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, inside._serve, listeners)
    async with await open_stream_to_socket_listener(listeners[0]) as stream:
        await stream.send_all(request)
        answer = b"".join([piece async for piece in stream])
    return answer.decode(), sites.busy_s


def post(path: str, body: object = {"for_s": 600}, method: str = "POST") -> bytes:
    text = body if isinstance(body, str) else json.dumps(body)
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


async def test_a_container_is_busy_on_its_word(nursery: trio.Nursery) -> None:
    answer, busy_s = await say(nursery, post(f"/v1/sites/{KEY}/busy"))
    assert answer.startswith("HTTP/1.1 204 ")
    assert busy_s == [(KEY, 600.0)]


@pytest.mark.parametrize(
    ("request_", "owner", "status"),
    [
        (post("/v1/sites/b:u:bo:1/busy"), OWNER, 404),
        (post("/v1/sites/b:u:none:1/busy"), OWNER, 404),
        (post(f"/v1/sites/{KEY}/busy"), None, 404),
        (post(f"/v1/sites/{KEY}/sleep"), OWNER, 404),
        (post("/v1/jobs"), OWNER, 404),
        (post(f"/v1/sites/{KEY}/busy", method="GET"), OWNER, 405),
        (post(f"/v1/sites/{KEY}/busy", {"for_s": -1}), OWNER, 400),
        (post(f"/v1/sites/{KEY}/busy", "{"), OWNER, 400),
        (post(f"/v1/sites/{KEY}/busy", "x" * 2000), OWNER, 413),
        (b"POST / HTTP/1.1\r\n\r\n", OWNER, 400),
        (b"\x00" * 9000, OWNER, 400),
    ],
)
async def test_of_others_it_says_nothing(
    nursery: trio.Nursery, request_: bytes, owner: AllocationId | None, status: int
) -> None:
    answer, busy_s = await say(nursery, request_, owner)
    assert answer.split()[1] == str(status), answer
    assert busy_s == []


async def test_only_so_many_are_heard_at_once(nursery: trio.Nursery) -> None:
    inside = Inside(FakeSites(), lambda address: None)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, inside._serve, listeners)
    streams = [await open_stream_to_socket_listener(listeners[0]) for _ in range(CONNECTIONS_MAX + 1)]
    with trio.fail_after(5):
        assert await streams[-1].receive_some(1) == b""
    for stream in streams:
        await stream.aclose()
