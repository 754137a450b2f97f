"""The project's only HTTP client: homes, lab, console and command line talk to nodes through it, and nodes to nodes.

Built on httpx, which no other module may import, so that an API-compatible client can replace it here. httpx is
imported when the first connection is made: `fofoca --help` does not pay for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from node.errors import AgentUnreachable, ApiProblem, InvalidValue

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 5.0
WAIT_S_MAX = 30.0
CONNECTIONS_MAX = 1_000
PROBLEM_BYTES_MAX = 1 << 20
RPC_PATH = "/internal/v1/rpc"
TICKET_HEADER = "x-fofoca-ticket"

Json = Any
Document = dict[str, Json]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LogPart:
    """A piece of a task's output; `ended`: nothing will follow."""

    data: bytes
    next_offset: int
    ended: bool


@dataclass(frozen=True, slots=True)
class JobList:
    """The jobs of the homes that answered, and the names of the homes that did not."""

    jobs: list[Document]
    missing: list[str]


class ApiClient:
    """A user's view of one node, at `http://host:port` or `unix:///path`. Answers are the API's JSON, decoded.

    Raises AgentUnreachable when nobody answers, ApiProblem when the node answers with a problem document.
    """

    def __init__(self, url: str, token: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url
        self._token = token
        self._timeout_s = timeout_s
        self._client, self._base = _connect(url, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()

    async def version(self) -> Document:
        """Return {"version", "node", "cluster"}."""
        return await self._json(Document, "GET", "/v1/version")

    async def nodes(self) -> list[Document]:
        """Return every node this one knows, with its resources."""
        return await self._json(list[Document], "GET", "/v1/nodes")

    async def members(self) -> Json:
        """Return gossip's own view."""
        return await self._json(object, "GET", "/v1/members")

    async def submit(self, body: Mapping[str, Json]) -> int:
        """Submit one job; return its id once it is durable."""
        return int((await self._json(Document, "POST", "/v1/jobs", body=body))["id"])

    async def submit_many(self, bodies: list[Mapping[str, Json]]) -> list[int]:
        """Submit several jobs with one request; return their ids in the same order."""
        return list((await self._json(Document, "POST", "/v1/jobs", body=bodies))["ids"])

    async def jobs(self, owner: str | None = None) -> JobList:
        """Return the jobs of the whole cluster that the caller may see."""
        response = await self._request("GET", "/v1/jobs", params={"owner": owner} if owner else {})
        missing = response.headers.get("x-fofoca-missing", "")
        return JobList(
            msgspec.json.decode(response.content, type=list[Document]), [name for name in missing.split(",") if name]
        )

    async def job(self, job_id: int, wait_s: float = 0) -> Document:
        """Return a job; with `wait_s`, once it is final or the time is over."""
        params = {"wait_s": f"{wait_s:g}"} if wait_s else {}
        return await self._json(Document, "GET", f"/v1/jobs/{job_id}", params=params, extra_s=wait_s)

    async def wait(self, job_id: int, timeout_s: float | None = None) -> Document:
        """Return a job once it is final, or as it is after `timeout_s` seconds."""
        import trio

        deadline = trio.current_time() + (timeout_s if timeout_s is not None else float("inf"))
        while True:
            left_s = max(0.0, deadline - trio.current_time())
            job = await self.job(job_id, wait_s=min(WAIT_S_MAX, left_s))
            if job["state"] not in ("pending", "running") or trio.current_time() >= deadline:
                return job

    async def cancel(self, job_id: int) -> Document:
        """Ask for the end of a job."""
        return await self._json(Document, "DELETE", f"/v1/jobs/{job_id}")

    async def explain(self, job_id: int) -> Document:
        """Return why a job waits, or why its tasks are where they are."""
        return await self._json(Document, "GET", f"/v1/jobs/{job_id}/explain")

    async def log(
        self, job_id: int, task: int = 0, stream: str = "both", offset: int = 0, limit: int = 1 << 20, wait_s: float = 0
    ) -> LogPart:
        """Return what a task wrote, from a byte offset on; with `wait_s`, wait that long for more."""
        params = {"task": task, "stream": stream, "offset": offset, "limit": limit}
        if wait_s:
            params["wait_s"] = f"{wait_s:g}"
        response = await self._request("GET", f"/v1/jobs/{job_id}/logs", params=params, extra_s=wait_s)
        headers = response.headers
        return LogPart(response.content, int(headers.get("x-next-offset", 0)), headers.get("x-ended") == "1")

    async def follow_log(self, job_id: int, task: int = 0, stream: str = "both") -> AsyncIterator[bytes]:
        """Yield what a task writes until it has ended."""
        offset, ended = 0, False
        while not ended:
            part = await self.log(job_id, task, stream, offset, wait_s=10)
            offset, ended = part.next_offset, part.ended
            if part.data:
                yield part.data

    async def images(self) -> list[Document]:
        """Return the images of the cluster, and who has them."""
        return await self._json(list[Document], "GET", "/v1/images")

    async def put_image(self, reference: str, tar: AsyncIterable[bytes] | bytes) -> Document:
        """Store a root file system (tar) under NAME[:TAG]; streamed, so its size does not matter here."""
        response = await self._request("PUT", f"/v1/images/{quote(reference, safe=':')}", content=tar, extra_s=3_600)
        return dict(msgspec.json.decode(response.content))

    async def delete_image(self, reference: str) -> None:
        """Remove an image."""
        await self._request("DELETE", f"/v1/images/{quote(reference, safe=':')}")

    @contextlib.asynccontextmanager
    async def export_image(self, reference: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open an image as a tar stream: `async with client.export_image(r) as chunks`."""
        url = f"{self._base}/v1/images/{quote(reference, safe=':')}/export"
        with _translated(self.url):
            async with self._client.stream("GET", url, headers=self._headers()) as response:
                if response.status_code >= 400:
                    await response.aread()
                yield _checked(response).aiter_bytes()

    async def set_accepting(self, accepting: bool) -> Document:
        """Let the node take new tasks, or not (cordon)."""
        return await self._json(Document, "POST", "/v1/node/accepting", body={"accepting": accepting})

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token}"} if self._token else {}

    async def _json(
        self,
        kind: type[T],
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        body: Json = None,
        extra_s: float = 0,
    ) -> T:
        content = None if body is None else msgspec.json.encode(body)
        response = await self._request(method, path, params=params, content=content, extra_s=extra_s)
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.DecodeError:
            raise AgentUnreachable(self.url, "what answers there is no fofoca agent") from None

    async def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        content: AsyncIterable[bytes] | bytes | None = None,
        extra_s: float = 0,
    ) -> httpx.Response:
        headers = self._headers()
        if isinstance(content, bytes):
            headers["content-type"] = "application/json"
        with _translated(self.url):
            response = await self._client.request(
                method,
                self._base + path,
                params=params,
                content=content,
                headers=headers,
                timeout=_timeout(self._timeout_s + extra_s),
            )
        return _checked(response)


class PeerClient:
    """Carries sealed bodies between nodes over connections that are kept open."""

    def __init__(self, connections_max: int = CONNECTIONS_MAX) -> None:
        self._connections_max = connections_max
        self._client: httpx.AsyncClient | None = None

    async def post(
        self, address: str, body: bytes, timeout_s: float, answer_bytes_max: int, ticket: str | None = None
    ) -> tuple[int, bytes]:
        """Send a body to `host:port` or `unix:///path`; return status and answer. AgentUnreachable if there is none.

        `ticket` goes into a header: it opens the other node for a large body (node/peers.py).
        """
        headers = {TICKET_HEADER: ticket} if ticket else None
        client, base = self._client_for(address)
        try:
            with _translated(address):
                async with client.stream(
                    "POST", base + RPC_PATH, content=body, headers=headers, timeout=_timeout(timeout_s)
                ) as response:
                    return response.status_code, await _bounded_body(response, address, answer_bytes_max)
        finally:
            if client is not self._client:
                await client.aclose()

    async def close(self) -> None:
        """Give the connections back."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _client_for(self, address: str) -> tuple[httpx.AsyncClient, str]:
        if address.startswith("unix:"):
            return _connect(address, TIMEOUT_S)
        if self._client is None:
            self._client = _new_client(TIMEOUT_S, connections_max=self._connections_max)
        return self._client, f"http://{address}"


async def _bounded_body(response: httpx.Response, address: str, bytes_max: int) -> bytes:
    parts, size = [], 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > bytes_max:
            raise AgentUnreachable(address, f"the answer passes {bytes_max:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _connect(url: str, timeout_s: float) -> tuple[httpx.AsyncClient, str]:
    parts = urlsplit(url)
    if parts.scheme == "unix" and parts.path.startswith("/"):
        return _new_client(timeout_s, unix_path=parts.path), "http://localhost"
    # A port that is no number shows only when it is asked for.
    with contextlib.suppress(ValueError):
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return _new_client(timeout_s), url.rstrip("/")
    raise InvalidValue("url", url, "expected http://host:port or unix:///path/to/api.sock")


def _new_client(
    timeout_s: float, unix_path: str | None = None, connections_max: int = CONNECTIONS_MAX
) -> httpx.AsyncClient:
    import httpx

    limits = httpx.Limits(
        max_connections=connections_max, max_keepalive_connections=connections_max, keepalive_expiry=10
    )
    # trust_env=False: a proxy for the web must never see what goes to a node.
    transport = httpx.AsyncHTTPTransport(uds=unix_path, limits=limits, trust_env=False, verify=False)
    return httpx.AsyncClient(transport=transport, timeout=_timeout(timeout_s), trust_env=False)


def _timeout(timeout_s: float) -> httpx.Timeout:
    import httpx

    return httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))


@contextlib.contextmanager
def _translated(url: str) -> Any:
    import httpx

    try:
        yield
    except httpx.TimeoutException as error:
        raise AgentUnreachable(url, "no answer in time") from error
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise AgentUnreachable(url, str(error) or type(error).__name__) from error


def _checked(response: httpx.Response) -> httpx.Response:
    if response.status_code < 400:
        return response
    try:
        document = msgspec.json.decode(response.content[:PROBLEM_BYTES_MAX], type=dict[str, Any])
    except msgspec.DecodeError:
        document = {"title": f"HTTP status {response.status_code}"}
    raise ApiProblem(response.status_code, document)
