"""The containers' resolver between real sockets: what is not a task's name goes on to the host's own servers."""

from __future__ import annotations

import os
import socket

import pytest
import trio

from node.resolver import Resolver
from node.task_names import Asker, Resident

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="port 53 is root's")]
OURS, UPSTREAM, SILENT = "127.53.0.1", "127.53.0.2", "127.53.0.3"
ASKER = "127.0.0.1"
ANN = Resident(owner="ann", job=7001, index=0, addresses=("10.77.1.5",))


def query(name: str, number: int = 0x1234) -> bytes:
    words = b"".join(bytes([len(word)]) + word.encode() for word in name.split("."))
    return number.to_bytes(2, "big") + bytes.fromhex("01000001000000000000") + words + b"\0\0\1\0\1"


async def serve_upstream(nursery: trio.Nursery) -> None:
    """A server whose answer is the question, with how it was asked behind it."""
    datagrams = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    await datagrams.bind((UPSTREAM, 53))

    async def by_datagram() -> None:
        while True:
            message, source = await datagrams.recvfrom(4096)
            await datagrams.sendto(message + b"udp", source)

    async def by_stream(stream: trio.SocketStream) -> None:
        message = await stream.receive_some(4096)
        answer = message[2:] + b"tcp" + bytes(2000)
        await stream.send_all(len(answer).to_bytes(2, "big") + answer)

    nursery.start_soon(by_datagram)
    nursery.start_soon(trio.serve_listeners, by_stream, await trio.open_tcp_listeners(53, host=UPSTREAM))


async def ask_datagram(message: bytes) -> bytes:
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        await asking.sendto(message, (OURS, 53))
        return await asking.recv(4096)


async def ask_stream(message: bytes) -> bytes:
    async with await trio.open_tcp_stream(OURS, 53) as stream:
        for byte in len(message).to_bytes(2, "big") + message:  # it may arrive in any pieces
            await stream.send_all(bytes([byte]))
        answer = b""
        while piece := await stream.receive_some(4096):
            answer += piece
    assert int.from_bytes(answer[:2], "big") == len(answer) - 2
    return answer[2:]


async def test_other_names_are_forwarded_and_tcp_serves_too() -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await serve_upstream(nursery)
            resolver = Resolver({ASKER: Asker("ann", 7001)}.get, lambda: [ANN], [UPSTREAM])
            await resolver.listen([OURS], nursery)
            question = query("example.org")
            assert await ask_datagram(question) == question + b"udp"
            assert (await ask_stream(question)).startswith(question + b"tcp")
            own = query("task-0.job-7001.fofoca")
            for answer in (await ask_datagram(own), await ask_stream(own)):
                assert answer.endswith(socket.inet_aton("10.77.1.5"))
            nursery.cancel_scope.cancel()


async def test_a_server_that_is_silent_is_passed_over() -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await serve_upstream(nursery)
            resolver = Resolver({ASKER: Asker("ann", 7001)}.get, lambda: [ANN], [SILENT, UPSTREAM])
            await resolver.listen([OURS], nursery)
            question = query("example.org", 7)
            assert await ask_datagram(question) == question + b"udp"
            nursery.cancel_scope.cancel()


async def test_who_is_no_container_gets_no_answer() -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await Resolver(lambda _: None, lambda: [ANN], [UPSTREAM]).listen([OURS], nursery)
            with pytest.raises(trio.TooSlowError), trio.fail_after(0.5):
                await ask_datagram(query("example.org"))
            nursery.cancel_scope.cancel()
