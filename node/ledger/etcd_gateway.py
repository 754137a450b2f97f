"""etcd's JSON gateway (3.4 and newer), as the ledger needs it: a call, an answer, or why there is none.

Owns the connections, which of several members is asked, TLS and the user's session; knows nothing of ledgers. Values
travel as base64 (etcd.io/docs/v3.4/dev-guide/api_grpc_gateway). The one user of httpx among the agent's modules.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from node.ledger.protocol import LedgerError

REQUEST_TIMEOUT_S = 5.0
BAD_REQUEST = 3  # gRPC's INVALID_ARGUMENT; all codes: grpc.io/docs/guides/status-codes
UNAUTHENTICATED = 16
UNREACHED = 14

Body = Mapping[str, Any]


class EtcdError(LedgerError):
    """etcd's answer is an error, or there was none: then the call may or may not have been carried out."""

    def __init__(self, text: str, code: int = UNREACHED) -> None:
        super().__init__(text, code)
        self.text = text
        self.code = code

    def __str__(self) -> str:
        return self.text


class Etcd(Protocol):
    """What the ledger needs of etcd."""

    async def call(self, path: str, body: Body) -> dict[str, Any]:
        """Carry out a call of the gateway; EtcdError."""
        ...

    async def close(self) -> None:
        """Give the connections back."""
        ...


@dataclass(frozen=True, kw_only=True)
class EtcdAccess:
    """Where etcd is, and who we are to it. Paths of PEM files; "" where none."""

    urls: tuple[str, ...]
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    user: str = ""
    password: str = ""


class EtcdGateway:
    """A client of one etcd cluster: asks the member that answered last, and the others when it does not."""

    def __init__(self, access: EtcdAccess) -> None:
        self._access = access
        self._urls = [url.rstrip("/") for url in access.urls]
        self._token = ""
        # What a proxy of the environment would see is the record of all jobs.
        self._client = httpx.AsyncClient(verify=_tls(access), timeout=REQUEST_TIMEOUT_S, trust_env=False)

    async def call(self, path: str, body: Body) -> dict[str, Any]:
        """Carry out a call of the gateway; EtcdError when no member did, as far as is known."""
        if self._access.user and not self._token:
            await self._log_in()
        try:
            return await self._anywhere(path, body)
        except EtcdError as error:
            if not (self._access.user and _wants_log_in(error)):
                raise
        await self._log_in()
        return await self._anywhere(path, body)

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()

    async def _log_in(self) -> None:
        self._token = ""
        access = self._access
        answer = await self._anywhere("/v3/auth/authenticate", {"name": access.user, "password": access.password})
        self._token = str(answer.get("token", ""))

    async def _anywhere(self, path: str, body: Body) -> dict[str, Any]:
        """Ask one member after the other until one is reached. Callers see to it that a call may happen twice."""
        last = EtcdError("no etcd is configured")
        for _ in range(len(self._urls)):
            try:
                return await self._ask(self._urls[0], path, body)
            except EtcdError as error:
                if error.code != UNREACHED:
                    raise
                last = error
            self._urls.append(self._urls.pop(0))
        raise last

    async def _ask(self, url: str, path: str, body: Body) -> dict[str, Any]:
        headers = {"authorization": self._token} if self._token else {}
        try:
            answer = await self._client.post(url + path, json=body, headers=headers)
            document = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise EtcdError(f"etcd at {url}: {error or type(error).__name__}") from error
        if answer.status_code != 200 or not isinstance(document, dict) or "error" in document:
            raise _error_of(url, answer.status_code, document)
        return document


def _error_of(url: str, status: int, document: Any) -> EtcdError:
    told = document if isinstance(document, dict) else {}
    # A stream's error, such as a keep-alive's, is one level deeper.
    inner = told["error"] if isinstance(told.get("error"), dict) else told
    text = inner.get("message") or inner.get("error") or f"status {status}"
    code = inner.get("code", inner.get("grpc_code", UNREACHED))
    return EtcdError(f"etcd at {url}: {text}", code if isinstance(code, int) else UNREACHED)


def _wants_log_in(error: EtcdError) -> bool:
    return error.code == UNAUTHENTICATED or "invalid auth token" in error.text or "user name is empty" in error.text


def _tls(access: EtcdAccess) -> ssl.SSLContext | bool:
    if not any(url.startswith("https:") for url in access.urls):
        return True
    context = ssl.create_default_context(cafile=access.ca_file or None)
    if access.cert_file:
        context.load_cert_chain(access.cert_file, access.key_file or None)
    return context


# --- parts of requests and answers


def text(data: bytes) -> str:
    """Write bytes as the gateway does."""
    return base64.b64encode(data).decode("ascii")


def data(answer: Body, name: str) -> bytes:
    """Read a field of bytes; an empty one is left out of answers."""
    return base64.b64decode(answer.get(name, ""))


def put(key: bytes, value: bytes, lease: str = "") -> Body:
    """Return an operation: set a key, for as long as a lease lasts if one is given."""
    return {"requestPut": {"key": text(key), "value": text(value), **({"lease": lease} if lease else {})}}


def delete(key: bytes, end: bytes = b"") -> Body:
    """Return an operation: remove a key, or all from it to before `end`."""
    return {"requestDeleteRange": {"key": text(key), **({"range_end": text(end)} if end else {})}}


def get(key: bytes) -> Body:
    """Return an operation: read a key."""
    return {"requestRange": {"key": text(key)}}


def is_value(key: bytes, value: bytes | None) -> Body:
    """Return a condition: the key has this value, or (None) is not there."""
    if value is None:
        return {"key": text(key), "result": "EQUAL", "target": "CREATE", "create_revision": "0"}
    return {"key": text(key), "result": "EQUAL", "target": "VALUE", "value": text(value)}


async def transact(
    etcd: Etcd, conditions: Sequence[Body], then: Sequence[Body], otherwise: Sequence[Body] = ()
) -> tuple[bool, list[bytes | None]]:
    """Carry out one transaction; return whether the conditions held, and what its reads found (None: nothing)."""
    answer = await etcd.call(
        "/v3/kv/txn", {"compare": list(conditions), "success": list(then), "failure": list(otherwise)}
    )
    found: list[bytes | None] = []
    for each in answer.get("responses", ()):
        if "response_range" in each:
            rows = each["response_range"].get("kvs", ())
            found.append(data(rows[0], "value") if rows else None)
    return bool(answer.get("succeeded", False)), found
