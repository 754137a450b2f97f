"""TLS towards users, on the port that other nodes call, too.

What a connection begins with tells which it is: a node's call (sealed by itself), a TLS handshake, or HTTP as it is,
which is refused once there is a certificate. Owns the context and the handshake.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import trio

from node.errors import InvalidConfig

HANDSHAKE = b"\x16\x03"
"""How every TLS connection begins: a record of type handshake, version 3.x."""
HANDSHAKE_TIMEOUT_S = 10.0
PLAIN_REFUSED = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nConnection: close\r\n\r\n"
    b'{"type":"urn:fofoca:problem:tls-needed","title":"Bad Request","status":400,'
    b'"detail":"this API speaks HTTPS (api.tls_cert): say https:// instead of http://"}'
)


def server_context(cert: str, key: str) -> ssl.SSLContext:
    """Return the context for a certificate (with those that sign it) and its key, PEM files; InvalidConfig."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for field, path in (("api.tls_cert", cert), ("api.tls_key", key)):
        try:
            text = Path(path).read_text(encoding="ascii")
        except OSError as error:
            raise InvalidConfig(field, path, f"cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise InvalidConfig(field, path, "expected a PEM file, this one is binary") from None
        kind = "CERTIFICATE" if field == "api.tls_cert" else "PRIVATE KEY"
        if f"{kind}-----" not in text:
            raise InvalidConfig(field, path, f"expected a PEM file with a {kind}")
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise InvalidConfig("api.tls_key", key, f"is not the key of the certificate in {cert}") from None
        why = error.reason or str(error)
        raise InvalidConfig("api.tls_cert", cert, f"this and api.tls_key ({key}) are not sound: {why}") from None
    return context


def _no_password() -> str:
    raise InvalidConfig("api.tls_key", "(not shown)", "expected a key without a passphrase")


class Begun(trio.abc.Stream):
    """A stream some bytes of which were read already."""

    def __init__(self, stream: trio.SocketStream, begun: bytes) -> None:
        self._stream = stream
        self._begun = begun

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Return what was read before, then what comes."""
        if not self._begun:
            return await self._stream.receive_some(max_bytes)
        taken = self._begun if max_bytes is None else self._begun[:max_bytes]
        self._begun = self._begun[len(taken) :]
        return taken

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the other side takes more."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close."""
        await self._stream.aclose()


async def opened(context: ssl.SSLContext, stream: trio.SocketStream, begun: bytes) -> trio.SSLStream[Begun]:
    """Shake hands; trio.BrokenResourceError, trio.TooSlowError."""
    secure = trio.SSLStream(Begun(stream, begun), context, server_side=True, https_compatible=True)
    with trio.fail_after(HANDSHAKE_TIMEOUT_S):
        await secure.do_handshake()
    return secure
