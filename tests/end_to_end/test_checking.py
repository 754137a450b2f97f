"""One look at a task, with real processes and sockets: what is wrong is said, and nothing outlives its time-out."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from node.checking import OUTPUT_BYTES, look
from node.runtime.fake import FakeRuntime
from node.runtime.protocol import EnterError, Entrance
from scheduler.spec.health import Health, HttpCheck

LOOPBACK = "127.0.0.1"


class Host(FakeRuntime):
    """Its containers are the host: what runs inside runs here."""

    def entrance(self, name: str, *, tty: bool = False) -> Entrance:
        if name == "gone":
            raise EnterError(name, "it does not run (any more)")
        return Entrance((), (), (("PATH", os.environ["PATH"]),))


async def command(*argv: str, timeout_s: float = 20.0, container: str = "1.0.1") -> str:
    return await look(Host(), container, LOOPBACK, Health(command=argv, timeout_s=timeout_s))


async def test_a_command_is_well_when_it_ends_with_0() -> None:
    assert await command("sh", "-c", "echo fine") == ""
    assert await command("sh", "-c", "echo no; echo disk full >&2; exit 3") == "exit code 3: no\ndisk full"
    assert "No such file" in await command("/no/such/program")
    assert "it does not run" in await command("true", container="gone")


async def test_of_a_flood_the_end_is_kept() -> None:
    said = await command("sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo last words; exit 1")
    assert len(said) <= OUTPUT_BYTES + 20
    assert said.endswith("last words")


async def test_what_a_command_left_behind_does_not_keep_the_check() -> None:
    began_s = time.monotonic()
    assert await command("sh", "-c", "sleep 30 & exit 0") == ""
    assert time.monotonic() - began_s < 15


async def test_a_command_that_takes_too_long_is_killed_with_all_below_it(tmp_path: Path) -> None:
    line = f"sleep 300 & echo $! >{tmp_path}/a; sh -c 'sleep 300 & echo $! >{tmp_path}/b; wait' & wait"
    assert await command("sh", "-c", line, timeout_s=1.5) == "no answer within 1.5 s"
    for name in ("a", "b"):
        pid = int((tmp_path / name).read_text())
        with trio.fail_after(30):
            while _alive(pid):
                await trio.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def asked() -> list[bytes]:
    return []


def answering(text: bytes, asked: list[bytes], hold: bool = False) -> Callable[[trio.SocketStream], Awaitable[None]]:
    async def answer(stream: trio.SocketStream) -> None:
        asked.append(bytes(await stream.receive_some(4096)))
        for piece in (text[:7], text[7:]):
            await stream.send_all(piece)
        if hold:
            await trio.sleep_forever()
        await stream.aclose()

    return answer


async def http(text: bytes, asked: list[bytes], hold: bool = False, timeout_s: float = 20.0, **fields: object) -> str:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, answering(text, asked, hold), 0)
        port = listeners[0].socket.getsockname()[1]
        check = HttpCheck(port=port, **fields)  # type: ignore[arg-type]
        said = await look(Host(), "1.0.1", LOOPBACK, Health(http=check, timeout_s=timeout_s))
        nursery.cancel_scope.cancel()
    return said


async def test_a_status_in_the_range_is_well(asked: list[bytes]) -> None:
    assert await http(b"HTTP/1.1 204 No Content\r\n\r\n", asked, path="/healthz?x=1", host="web.example") == ""
    assert asked[0].startswith(b"GET /healthz?x=1 HTTP/1.1\r\nHost: web.example\r\n")
    said = await http(b"HTTP/1.1 503 Busy\r\nA: b\r\n\r\n", asked)
    assert said == "GET /: status 503 Busy, expected 200 to 399"
    assert await http(b"HTTP/1.1 503 Busy\r\n\r\n", asked, status_min=500, status_max=599) == ""
    assert "no HTTP answer" in await http(b"SSH-2.0-x\r\n", asked)
    assert "no HTTP answer" in await http(b"x" * 100_000, asked, hold=True)


async def test_an_answer_that_does_not_come_is_not_waited_for(asked: list[bytes]) -> None:
    assert await http(b"HTTP/1.1 2", asked, hold=True, timeout_s=0.5) == "no answer within 0.5 s"


async def test_a_port_must_take_a_connection() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, answering(b"", []), 0)
        port = listeners[0].socket.getsockname()[1]
        assert await look(Host(), "1.0.1", LOOPBACK, Health(tcp=port)) == ""
        nursery.cancel_scope.cancel()
    assert await look(Host(), "1.0.1", LOOPBACK, Health(tcp=port)) == f"{LOOPBACK}:{port}: Connection refused"
