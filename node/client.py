"""The project's only asynchronous HTTP client: nodes talk to each other through it.

Built on httpx, which no other module may import, so that an API-compatible client can replace it here. httpx is
imported when the first connection is made. The command line has a caller of its own, `node.caller`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from node.errors import AgentUnreachable

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT_S = 5.0
CONNECTIONS_MAX = 1_000
KEEP_ALIVE_S = 10.0
RPC_PATH = "/internal/v1/rpc"
TICKET_HEADER = "x-fofoca-ticket"


class PeerClient:
    """Carries sealed bodies between nodes over connections that are kept open."""

    def __init__(self, connections_max: int = CONNECTIONS_MAX) -> None:
        self._connections_max = connections_max
        self._client: httpx.AsyncClient | None = None

    async def post(
        self, address: str, body: bytes, timeout_s: float, answer_bytes_max: int, ticket: str | None = None
    ) -> tuple[int, bytes]:
        """Send a body to the node at `host:port`; return status and answer. AgentUnreachable if there is none.

        `ticket` goes into a header: it opens the other node for a large body (node/peers.py).
        """
        if self._client is None:
            self._client = _new_client(self._connections_max)
        headers = {TICKET_HEADER: ticket} if ticket else None
        url = f"http://{address}{RPC_PATH}"
        with _translated(address):
            async with self._client.stream(
                "POST", url, content=body, headers=headers, timeout=_timeout(timeout_s)
            ) as response:
                return response.status_code, await _bounded_body(response, address, answer_bytes_max)

    async def close(self) -> None:
        """Give the connections back."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None


async def _bounded_body(response: httpx.Response, address: str, bytes_max: int) -> bytes:
    parts, size = [], 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > bytes_max:
            raise AgentUnreachable(address, f"the answer passes {bytes_max:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _new_client(connections_max: int) -> httpx.AsyncClient:
    import httpx

    limits = httpx.Limits(
        max_connections=connections_max, max_keepalive_connections=connections_max, keepalive_expiry=KEEP_ALIVE_S
    )
    # trust_env=False: a proxy for the web must never see what goes to a node.
    transport = httpx.AsyncHTTPTransport(limits=limits, trust_env=False, verify=False)
    return httpx.AsyncClient(transport=transport, trust_env=False)


def _timeout(timeout_s: float) -> httpx.Timeout:
    import httpx

    return httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))


@contextlib.contextmanager
def _translated(address: str) -> Iterator[None]:
    import httpx

    try:
        yield
    except httpx.TimeoutException as error:
        raise AgentUnreachable(address, "no answer in time") from error
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise AgentUnreachable(address, str(error) or type(error).__name__) from error
