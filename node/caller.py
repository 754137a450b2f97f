"""
The small synchronous caller behind the command line and the lab: one HTTP request to an agent, over TCP or a unix
socket.

It is built on the standard library alone, because importing an asynchronous client costs more time (about 300 ms)
than submitting a job does. Agents talk to each other through `node.client`, which keeps connections open and batches.
This module knows URLs, tokens and problem documents (RFC 9457); it knows nothing of jobs or nodes.

An `Agents` holds the places where the cluster may be reached, in order. A request goes to the first one that accepts
a connection: any node serves any request. Nothing is sent twice: another place is tried only while nothing has been
sent yet.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from node.errors import AgentUnreachable, ApiProblem, InvalidValue

CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 60.0
ANSWER_BYTES_MAX = 256 * 1024 * 1024
CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Place:
    """Where an agent listens. Exactly one of `socket_path` and `host` is set; `label` is what people wrote.

    `tls`: it speaks HTTPS there.
    """

    label: str
    host: str = ""
    port: int = 0
    socket_path: str = ""
    tls: bool = False


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def parse_address(text: str) -> Place:
    """`http://HOST:PORT`, `https://HOST:PORT` or `unix:///PATH`. Raises InvalidValue."""
    parts = urlsplit(text)
    if parts.scheme == "unix" and parts.path and not parts.netloc:
        return Place(label=text, socket_path=parts.path)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme not in ("http", "https") or not host or parts.path not in ("", "/"):
        raise InvalidValue("node-api", text, "expected an agent's address: http[s]://HOST:PORT or unix:///PATH")
    return Place(label=text, host=host, port=port or 8642, tls=parts.scheme == "https")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("agent", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connect(place: Place, ca_file: str | None) -> http.client.HTTPConnection:
    connection: http.client.HTTPConnection
    if place.socket_path:
        connection = _UnixConnection(place.socket_path, CONNECT_TIMEOUT_S)
    elif place.tls:
        trusted = _trusted(ca_file)
        connection = http.client.HTTPSConnection(place.host, place.port, timeout=CONNECT_TIMEOUT_S, context=trusted)
    else:
        connection = http.client.HTTPConnection(place.host, place.port, timeout=CONNECT_TIMEOUT_S)
    connection.connect()
    return connection


def _trusted(ca_file: str | None) -> ssl.SSLContext:
    """Return the context that believes the authorities in a file, else those this host believes; InvalidValue."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        why = "it has none" if isinstance(error, ssl.SSLError) else f"it cannot be read: {error.strerror}"
        raise InvalidValue("ca-file", ca_file, f"expected a file with certificates to trust (PEM); {why}") from None


class Agents:
    """The places of one cluster and the token to show there. `ca_file`: whose certificates are believed, by HTTPS."""

    def __init__(self, places: Iterable[Place], token: str | None, ca_file: str | None = None) -> None:
        self.places = tuple(places)
        self._ca_file = ca_file
        self._token = token

    def get(self, path: str, *, read_timeout_s: float = READ_TIMEOUT_S, **query: str | int | float | None) -> Answer:
        return self._request("GET", _target(path, query), None, read_timeout_s, {})

    def post(self, path: str, body: Any) -> Answer:
        return self._request(
            "POST", path, json.dumps(body).encode(), READ_TIMEOUT_S, {"Content-Type": "application/json"}
        )

    def patch(self, path: str, body: Any, **query: str | int | float | None) -> Answer:
        """Change something; the answer may take as long as nodes may be silent."""
        headers = {"Content-Type": "application/json"}
        return self._request("PATCH", _target(path, query), json.dumps(body).encode(), READ_TIMEOUT_S, headers)

    def post_bytes(self, path: str, body: bytes, **query: str | int | float | None) -> Answer:
        headers = {"Content-Type": "application/octet-stream"}
        return self._request("POST", _target(path, query), body, READ_TIMEOUT_S, headers)

    def put(self, path: str, body: Any) -> Answer:
        headers = {"Content-Type": "application/json"}
        return self._request("PUT", path, json.dumps(body).encode(), READ_TIMEOUT_S, headers)

    def delete(self, path: str) -> Answer:
        return self._request("DELETE", path, None, READ_TIMEOUT_S, {})

    def put_stream(self, path: str, chunks: Iterable[bytes], read_timeout_s: float) -> Answer:
        """Send a body of unknown length as it comes (chunked)."""
        headers = {"Content-Type": "application/octet-stream", "Transfer-Encoding": "chunked"}
        return self._request("PUT", path, chunks, read_timeout_s, headers)

    def get_stream(self, path: str, read_timeout_s: float) -> Iterator[bytes]:
        """The body in pieces of at most CHUNK_BYTES. Raises ApiProblem before the first piece."""
        yield from self._stream("GET", path, None, read_timeout_s, {})

    def post_stream(self, path: str, body: Any, read_timeout_s: float) -> Iterator[bytes]:
        """The answer to a JSON body, in pieces as they come. Raises ApiProblem before the first piece."""
        headers = {"Content-Type": "application/json"}
        yield from self._stream("POST", path, json.dumps(body).encode(), read_timeout_s, headers)

    def _stream(
        self, method: str, path: str, body: Any, read_timeout_s: float, headers: dict[str, str]
    ) -> Iterator[bytes]:
        connection, response, label = self._send(method, path, body, read_timeout_s, headers)
        try:
            if response.status >= 400:
                raise _refusal(response.status, response.read(ANSWER_BYTES_MAX))
            while chunk := response.read1(CHUNK_BYTES):
                yield chunk
        except (OSError, http.client.HTTPException) as error:
            raise AgentUnreachable(label, f"the connection broke ({_reason(error)})") from error
        finally:
            connection.close()

    def _request(self, method: str, target: str, body: Any, read_timeout_s: float, headers: dict[str, str]) -> Answer:
        connection, response, label = self._send(method, target, body, read_timeout_s, headers)
        try:
            data = response.read(ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            raise AgentUnreachable(label, f"the connection broke ({_reason(error)})") from error
        finally:
            connection.close()
        if response.status >= 400:
            raise _refusal(response.status, data)
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, data)

    def _send(
        self, method: str, target: str, body: Any, read_timeout_s: float, headers: dict[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse, str]:
        connection, place = self._open()
        connection.sock.settimeout(read_timeout_s)
        if self._token:
            headers = {**headers, "Authorization": f"Bearer {self._token}"}
        try:
            # An agent that refuses a large body answers early and closes; its answer says more than the broken pipe.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                chunked = "Transfer-Encoding" in headers
                connection.request(method, target, body=body, headers=headers, encode_chunked=chunked)
            return connection, connection.getresponse(), place.label
        except TimeoutError as error:
            connection.close()
            raise AgentUnreachable(place.label, f"no answer within {read_timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise AgentUnreachable(place.label, f"the connection broke ({_reason(error)})") from error

    def _open(self) -> tuple[http.client.HTTPConnection, Place]:
        failure: OSError | None = None
        for place in self.places:
            try:
                return _connect(place, self._ca_file), place
            except OSError as error:
                failure = error
        labels = [place.label for place in self.places]
        tried = ", ".join(labels[:3]) + (", ..." if len(labels) > 3 else "")
        raise AgentUnreachable(tried, _reason(failure) if failure else "no address is known")


def _target(path: str, query: Mapping[str, str | int | float | None]) -> str:
    pairs = [f"{name}={quote(str(value), safe='')}" for name, value in query.items() if value is not None]
    return path + ("?" + "&".join(pairs) if pairs else "")


def _refusal(status: int, body: bytes) -> ApiProblem:
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {"title": http.client.responses.get(status, f"HTTP status {status}")}
    return ApiProblem(status, document)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such socket"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}; --ca-file or FOFOCA_CA_FILE name whom to trust"
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return "it does not speak TLS; say http://"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
