"""The containers' resolver: it listens on the bridges, answers for names of tasks, and passes the rest on.

Who asks is known by the address, which no container can feign (network_rules.py). Answers are bounded: questions at
once by container and in all, what is passed on by time. While the agent restarts nobody answers for a second or two;
stub resolvers ask again. A name of the asker's own job that nobody has yet is waited for a little: a gang's ranks start
together and look for each other at once. A member that is not there by then exists all the same, perhaps it still gets
its image: "not now" makes stub resolvers ask again, as resolv.conf says, while they believe "there is none" at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import trio

from node import logs
from node.host import dns_wire
from node.host.dns_wire import Question
from node.task_names import Asker, Resident, Wanted, find, is_ours, parse

PORT = 53
AT_ONCE_MAX = 512
AT_ONCE_EACH_MAX = 64
FORWARD_TIMEOUT_S = 3.0
WAIT_S = 2.5
"""Less than the time after which a container's stub resolver asks again (node/runtime/lxc/network.py)."""
POLL_S = 0.1
STREAM_TIMEOUT_S = 10.0
STREAM_BYTES_MAX = 65_535
RESOLV_CONF = Path("/etc/resolv.conf")

log = logs.get("resolver")


class Resolver:
    """`asker` tells which container has an address here; `residents` yields all running tasks that are known."""

    def __init__(
        self, asker: Callable[[str], Asker | None], residents: Callable[[], Iterable[Resident]], upstream: list[str]
    ) -> None:
        self._asker = asker
        self._residents = residents
        self._upstream = upstream
        self._asking: Counter[str] = Counter()

    async def listen(self, addresses: Iterable[str], nursery: trio.Nursery) -> None:
        """Answer on these addresses from now on, by UDP and TCP. Raises OSError for one that can't be had."""
        for address in addresses:
            family = trio.socket.AF_INET6 if ":" in address else trio.socket.AF_INET
            datagrams = trio.socket.socket(family, trio.socket.SOCK_DGRAM)
            await datagrams.bind((address, PORT))
            nursery.start_soon(self._serve_datagrams, datagrams, nursery)
            for listener in await trio.open_tcp_listeners(PORT, host=address):
                nursery.start_soon(self._serve_streams, listener, nursery)

    async def answer(self, message: bytes, source: str, bytes_max: int) -> bytes | None:
        """Return the answer to a query; None for what is no query, or comes from nobody, or is too much."""
        asker, question = self._asker(source), dns_wire.parse(message)
        if asker is None or question is None:
            return None
        if self._asking[source] >= AT_ONCE_EACH_MAX or self._asking.total() >= AT_ONCE_MAX:
            return None
        self._asking[source] += 1
        try:
            if is_ours(question.name):
                return await self._own(question, asker, bytes_max)
            return await self._forward(question, message, bytes_max)
        finally:
            self._asking[source] -= 1
            if not self._asking[source]:
                del self._asking[source]

    async def _own(self, question: Question, asker: Asker, bytes_max: int) -> bytes:
        wanted = parse(question.name)
        if wanted is None:
            return dns_wire.answer(question, dns_wire.NO_NAME)
        if found := await self._found(wanted, asker):
            return dns_wire.answer(question, dns_wire.NO_ERROR, found, bytes_max)
        return dns_wire.answer(question, dns_wire.SERVER_FAILED if asker.is_mate(wanted) else dns_wire.NO_NAME)

    async def _found(self, wanted: Wanted, asker: Asker) -> list[str]:
        deadline = trio.current_time() + (WAIT_S if asker.may_come(wanted) else 0.0)
        while True:
            found = find(wanted, asker.owner, self._residents())
            if found or trio.current_time() >= deadline:
                return found
            await trio.sleep(POLL_S)

    async def _forward(self, question: Question, message: bytes, bytes_max: int) -> bytes:
        for server in self._upstream:
            with trio.move_on_after(FORWARD_TIMEOUT_S), suppress(OSError):
                if bytes_max > dns_wire.DATAGRAM_BYTES_MAX:
                    return await _ask_stream(server, message)
                return await _ask_datagram(server, message)
        code = dns_wire.SERVER_FAILED if self._upstream else dns_wire.REFUSED
        return dns_wire.answer(question, code)

    async def _serve_datagrams(self, socket: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        async def reply(message: bytes, source: tuple[str, int]) -> None:
            answer = await self.answer(message, source[0], dns_wire.DATAGRAM_BYTES_MAX)
            if answer is not None:
                with suppress(OSError):
                    await socket.sendto(answer, source)

        with socket:
            while True:
                try:
                    message, source = await socket.recvfrom(4096)
                except OSError:
                    continue  # an answer that could not be delivered
                if self._asking.total() < AT_ONCE_MAX:
                    nursery.start_soon(reply, message, source)

    async def _serve_streams(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        async def talk(stream: trio.SocketStream) -> None:
            source = stream.socket.getpeername()[0]
            with trio.move_on_after(STREAM_TIMEOUT_S):
                async with stream:
                    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        message = await _read_framed(stream)
                        answer = await self.answer(message, source, STREAM_BYTES_MAX)
                        if answer is not None:
                            await stream.send_all(len(answer).to_bytes(2, "big") + answer)

        at_once = trio.Semaphore(AT_ONCE_EACH_MAX)

        async def bounded(stream: trio.SocketStream) -> None:
            async with at_once:
                await talk(stream)

        await trio.serve_listeners(bounded, [listener], handler_nursery=nursery)


async def _read_framed(stream: trio.SocketStream) -> bytes:
    data = b""
    while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
        piece = await stream.receive_some(4096)
        if not piece:
            return b""
        data += piece
    return data[2:]


async def _ask_datagram(server: str, message: bytes) -> bytes:
    family = trio.socket.AF_INET6 if ":" in server else trio.socket.AF_INET
    with trio.socket.socket(family, trio.socket.SOCK_DGRAM) as socket:
        await socket.connect((server, PORT))
        await socket.send(message)
        while True:
            answer = await socket.recv(4096)
            if answer[:2] == message[:2]:
                return answer


async def _ask_stream(server: str, message: bytes) -> bytes:
    async with await trio.open_tcp_stream(server, PORT) as stream:
        await stream.send_all(len(message).to_bytes(2, "big") + message)
        return await _read_framed(stream)


def upstream_of(text: str, own: Iterable[str]) -> list[str]:
    """Return the servers that a resolv.conf names; never this resolver itself."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1 and words[1] not in own:
            with suppress(ValueError):
                found.append(str(ip_address(words[1])))
    return found[:3]
