"""The examples for nginx and HAProxy in docs/examples/door work, with the real ones, in front of a door."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import h11
import httpx
import pytest
import trio

from node.door.wish import HEADERS
from tests.door.http_parts import PATIENCE_S, Backend, MemorySites, RawClient, RunningDoor, backend, door

EXAMPLES = Path(__file__).parents[2] / "docs/examples/door"
HOST = "shimoo.com.br"
KEY = "b:u:shimoo:1"
WORDS = {"X-Backend": "b:u:shimoo:9", "X-User": "shimoo", "X-Memory-Limit": "9999", "X-Fofoca-Door": "answer",
         "X-Fofoca-Token": "fof1.x", "X-Instance": "9", "X-Forwarded-For": "6.6.6.6"}  # fmt: skip


def program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        pytest.skip(f"{name} is not installed; tools/prepare-host gets it")
    return found


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


async def listening(port: int, process: trio.Process) -> None:
    with trio.fail_after(PATIENCE_S):
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
            except OSError:
                assert process.poll() is None, "it ended instead of listening"
                await trio.sleep(0.02)
            else:
                return


@asynccontextmanager
async def running(command: list[str], ports: list[int]) -> AsyncIterator[None]:
    """Run a server in the foreground until the test is done with it."""
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, check=False))
        try:
            for port in ports:
                await listening(port, process)
            yield
        finally:
            process.terminate()
            with trio.move_on_after(PATIENCE_S, shield=True):
                await process.wait()
            if process.returncode is None:
                process.kill()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def nginx(doors: int) -> AsyncIterator[tuple[int, int]]:
    """Run the example in front of a door; yields the ports for forwarding and for asking."""
    command = program("nginx")
    folder = Path(tempfile.mkdtemp(prefix="fofoca-nginx."))
    folder.chmod(0o755)
    forward, asking = free_ports(2)
    text = (EXAMPLES / "nginx.conf").read_text()
    text = text.replace("server 10.0.0.1:8650;", f"server 127.0.0.1:{doors};").replace("server 10.0.0.2:8650;", "")
    text = text.replace("listen 8080;", f"listen 127.0.0.1:{forward};")
    text = text.replace("listen 8081;", f"listen 127.0.0.1:{asking};")
    places = "".join(f"{each}_temp_path {folder};\n" for each in ("proxy", "fastcgi", "uwsgi", "scgi", "client_body"))
    text = text.replace("http {", f"http {{\naccess_log off;\n{places}", 1)
    text = f"daemon off;\npid {folder}/pid;\n" + text.replace("processes auto", "processes 1")
    shutil.copy(EXAMPLES / "fofoca-words.conf", folder)
    (folder / "nginx.conf").write_text(text)
    whole = [command, "-p", str(folder), "-e", f"{folder}/errors", "-c", f"{folder}/nginx.conf"]
    try:
        async with running(whole, [forward, asking]):
            yield forward, asking
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def haproxy(doors: int) -> AsyncIterator[int]:
    """Run the example in front of a door; yields its port."""
    command = program("haproxy")
    (port,) = free_ports(1)
    text = (EXAMPLES / "haproxy.cfg").read_text()
    text = text.replace("bind :8080", f"bind 127.0.0.1:{port}").replace("10.0.0.1:8650", f"127.0.0.1:{doors}")
    text = "\n".join(line for line in text.split("\n") if "10.0.0.2" not in line) + "\n"
    with tempfile.TemporaryDirectory(prefix="fofoca-haproxy.") as folder:
        (Path(folder) / "haproxy.cfg").write_text(text)
        async with running([command, "-db", "-q", "-f", f"{folder}/haproxy.cfg"], [port]):
            yield port


async def get(port: int, path: str = "/", host: str = HOST, **more: object) -> httpx.Response:
    async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
        headers = {"Host": host, **WORDS}
        return await client.request("GET", f"http://127.0.0.1:{port}{path}", headers=headers, **more)  # type: ignore[arg-type]


@asynccontextmanager
async def platform(**settings: object) -> AsyncIterator[tuple[RunningDoor, Backend]]:
    """A door whose front end is this host, and an application that is asleep."""
    sites = MemorySites(start_s=0.3)
    async with backend() as behind, door(sites, front_ends=("127.0.0.1/32",), **settings) as front:
        sites.ports[KEY] = behind.port
        yield front, behind


async def forwards(port: int, front: RunningDoor, behind: Backend) -> None:
    """A visitor's request through a front end starts the site that the front end says, and no other."""
    cold = await get(port, "/a?b=c")
    assert (cold.status_code, cold.headers["x-fofoca-cold-start"]) == (200, "1")
    assert cold.json()["target"] == "/a?b=c"
    seen = behind.headers()
    assert (seen["x-forwarded-for"], seen["x-forwarded-host"]) == ("127.0.0.1, 127.0.0.1", HOST)
    warm = await get(port, content=b"x" * 300_000)
    assert (warm.status_code, warm.json()["bytes"]) == (200, 300_000)
    assert "x-fofoca-cold-start" not in warm.headers
    assert list(front.sites.views) == [KEY]
    assert "x-backend-address" not in warm.headers
    unknown = await get(port, host="other.example")
    assert unknown.status_code == 404
    assert unknown.headers["content-type"] == "application/problem+json"


async def test_nginx_sends_requests_through_the_door() -> None:
    async with platform() as (front, behind), nginx(front.port) as (port, _):
        await forwards(port, front, behind)


async def test_haproxy_sends_requests_through_the_door() -> None:
    async with platform() as (front, behind), haproxy(front.port) as port:
        await forwards(port, front, behind)


async def test_nginx_asks_the_door_and_proxies_by_itself() -> None:
    async with platform() as (front, behind), nginx(front.port) as (_, port):
        answered = await get(port, "/a?b=c", content=b"x" * 300_000)
        assert answered.status_code == 200
        assert (answered.json()["target"], answered.json()["bytes"]) == ("/a?b=c", 300_000)
        # The request itself did not go through the door, the question did.
        assert "via" not in behind.headers()
        assert front.counts.answered == 1
        assert list(front.sites.views) == [KEY]


async def test_nginx_says_when_to_come_again() -> None:
    async with platform(hold_s=0.0) as (front, _), nginx(front.port) as (_, port):
        front.sites.start_s = 60.0
        answered = await get(port)
        assert (answered.status_code, answered.headers["retry-after"]) == (503, "2")


@pytest.mark.parametrize("which", [nginx, haproxy])
async def test_websockets_pass_a_front_end_and_the_door(which: Callable[[int], object]) -> None:
    async def upgraded(_: Backend, __: h11.Connection, stream: trio.SocketStream) -> None:
        await stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        )
        while data := await stream.receive_some(65_536):
            await stream.send_all(data.upper())
        raise trio.BrokenResourceError

    async with platform() as (front, behind), which(front.port) as ports:  # type: ignore[attr-defined]
        behind.answering = upgraded
        client = RawClient(await trio.open_tcp_stream("127.0.0.1", ports[0] if isinstance(ports, tuple) else ports))
        await client.send(
            f"GET /chat HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        received = b""
        with trio.fail_after(PATIENCE_S):
            while b"\r\n\r\n" not in received:
                received += await client.stream.receive_some(65_536)
            assert received.startswith(b"HTTP/1.1 101 ")
            await client.send(b"raw")
            assert await client.stream.receive_some(65_536) == b"RAW"


def test_the_examples_are_sound_as_they_are() -> None:
    """What a user copies is what these programs take, but for addresses."""
    checked = subprocess.run(
        [program("haproxy"), "-c", "-f", str(EXAMPLES / "haproxy.cfg")], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert "[WARNING]" not in checked.stderr


async def test_every_word_of_the_door_is_said_or_emptied() -> None:
    """A new header of a wish must not be one that visitors can send through the examples."""
    nginx_text = (EXAMPLES / "fofoca-words.conf").read_text().lower()
    haproxy_text = (EXAMPLES / "haproxy.cfg").read_text()
    for header in HEADERS:
        assert f"proxy_set_header {header} " in nginx_text, header
        assert header.removeprefix("x-") in haproxy_text.split("^x-(")[1].split(")$")[0].split("|"), header
