"""How nodes reach each other: sealed bodies, one after another, over connections that are kept open.

Owns the connections to other nodes. Speaks the part of HTTP/1.1 that node/plain_http.py reads: a general client cost
more than the call it carried. The command line has a caller of its own, `node.caller`.
"""

from __future__ import annotations

import select
from collections import defaultdict, deque

import trio

from node.errors import AgentUnreachable
from node.plain_http import Malformed, Reader

CONNECT_TIMEOUT_S = 5.0
CONNECTIONS_MAX = 1_000
KEEP_ALIVE_S = 10.0
"""Shorter than the other side keeps an idle connection (node/api/server.py)."""
RPC_PATH = "/internal/v1/rpc"
TICKET_HEADER = "x-fofoca-ticket"


class _Connection:
    """One connection to a node; carries one call at a time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._reader = Reader(stream)
        self.idle_since_s = 0.0

    async def exchange(self, request: bytes, answer_bytes_max: int) -> tuple[int, bytes]:
        await self._stream.send_all(request)
        head = await self._reader.head()
        if head is None:
            raise Malformed("it ended the connection without an answer")
        status = head.line.split(" ")[1:2]
        if not head.line.startswith("HTTP/1.1 ") or not (status and status[0].isdigit()):
            raise Malformed("its answer is no HTTP")
        if head.length() > answer_bytes_max:
            raise Malformed(f"the answer passes {answer_bytes_max:,} bytes")
        return int(status[0]), await self._reader.body(head.length())

    def quiet(self) -> bool:
        """Whether it can be used again: nothing unread, and not ended by the other side."""
        poll = select.poll()
        poll.register(self._stream.socket.fileno(), select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        self._stream.socket.close()


class PeerClient:
    """Carries sealed bodies between nodes over connections that are kept open."""

    def __init__(self, connections_max: int = CONNECTIONS_MAX) -> None:
        self._slots = trio.Semaphore(connections_max)
        self._idle: defaultdict[str, deque[_Connection]] = defaultdict(deque)
        self._look_again_s = 0.0

    async def post(
        self, address: str, body: bytes, timeout_s: float, answer_bytes_max: int, ticket: str | None = None
    ) -> tuple[int, bytes]:
        """Send a body to the node at `host:port`; return status and answer. AgentUnreachable if there is none.

        `ticket` goes into a header: it opens the other node for a large body (node/peers.py).
        """
        fields = f"{TICKET_HEADER}: {ticket}\r\n" if ticket else ""
        head = f"POST {RPC_PATH} HTTP/1.1\r\nhost: {address}\r\n{fields}content-length: {len(body)}\r\n\r\n"
        try:
            with trio.fail_after(timeout_s):
                async with self._slots:
                    return await self._exchange(address, head.encode("ascii") + body, answer_bytes_max)
        except trio.TooSlowError:
            raise AgentUnreachable(address, "no answer in time") from None
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, Malformed, ValueError) as error:
            raise AgentUnreachable(address, str(error) or type(error).__name__) from error

    async def _exchange(self, address: str, request: bytes, answer_bytes_max: int) -> tuple[int, bytes]:
        self._close_old()
        connection = self._take(address) or await _connect(address)
        try:
            status, answer = await connection.exchange(request, answer_bytes_max)
        except BaseException:  # Also when cancelled: an answer that still comes must not be taken for the next one's.
            connection.close()
            raise
        if status == 200:
            connection.idle_since_s = trio.current_time()
            self._idle[address].append(connection)
        else:  # The other side ends a connection whose call it refused.
            connection.close()
        return status, answer

    def _take(self, address: str) -> _Connection | None:
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()  # the newest, so that those not needed get old
            if connection.quiet():
                return connection
            connection.close()
        return None

    def _close_old(self) -> None:
        now = trio.current_time()
        if now < self._look_again_s:
            return
        self._look_again_s = now + 1.0
        for address, idle in list(self._idle.items()):
            while idle and now - idle[0].idle_since_s > KEEP_ALIVE_S:
                idle.popleft().close()
            if not idle:
                del self._idle[address]

    async def close(self) -> None:
        """Give the connections back."""
        for idle in self._idle.values():
            while idle:
                idle.pop().close()
        self._idle.clear()


async def _connect(address: str) -> _Connection:
    host, _, port = address.rpartition(":")
    with trio.move_on_after(CONNECT_TIMEOUT_S):
        return _Connection(await trio.open_tcp_stream(host.removeprefix("[").removesuffix("]"), int(port)))
    raise OSError(f"no connection within {CONNECT_TIMEOUT_S:g} s")
