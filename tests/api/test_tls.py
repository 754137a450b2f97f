"""Users speak HTTPS where the API has a certificate, other nodes go on with their sealed calls, on one port."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.types import Receive, Scope, Send

from node.api.server import CALLS, BoundedStream, Listening, serve
from node.api.tls import server_context
from node.api_config import Api
from node.caller import Agents, parse_address
from node.errors import AgentUnreachable, ApiProblem, InvalidConfig, InvalidValue

BIG = b"x" * 5_000_000
NO_ENCRYPTION = serialization.NoEncryption()


def certificate(folder: Path, name: str, encryption: serialization.KeySerializationEncryption = NO_ENCRYPTION) -> None:
    """Write NAME.pem, which signs itself and is good for 127.0.0.1, and NAME.key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(here, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / f"{name}.key").write_bytes(key.private_bytes(pem, form, encryption))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    certificate(folder, "api")
    certificate(folder, "other")
    certificate(folder, "locked", serialization.BestAvailableEncryption(b"secret"))
    return folder


async def counting(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the number of bytes that came, then many more."""
    if scope["type"] != "http":
        return
    count, more = 0, True
    while more:
        message = await receive()
        count, more = count + len(message.get("body", b"")), message.get("more_body", False)
    body = str(count).encode() + (BIG if scope["path"] == "/big" else b"")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def calls(stream: BoundedStream, begun: bytes, _: Callable[[], AbstractContextManager[object]]) -> None:
    await stream.send_all(b"called with " + begun)


@asynccontextmanager
async def api(files: Path, socket_path: Path, secure: bool = True) -> AsyncIterator[int]:
    tls = server_context(str(files / "api.pem"), str(files / "api.key")) if secure else None
    async with trio.open_nursery() as nursery:
        where = Listening(host="127.0.0.1", port=0, socket_path=socket_path, tls=tls)
        yield await nursery.start(serve, counting, calls, where)
        nursery.cancel_scope.cancel()


def agents(address: str, ca_file: Path | None = None) -> Agents:
    return Agents([parse_address(address)], "token", str(ca_file) if ca_file else None)


async def told(ask: Callable[[], object], problem: type[Exception]) -> str:
    with pytest.raises(problem) as raised:
        await trio.to_thread.run_sync(ask)
    return str(raised.value)


async def test_who_trusts_the_certificate_speaks_https_with_bodies_of_any_size(files: Path, tmp_path: Path) -> None:
    async with api(files, tmp_path / "s") as port:
        here = agents(f"https://127.0.0.1:{port}", files / "api.pem")
        assert (await trio.to_thread.run_sync(here.get, "/")).body == b"0"
        answer = await trio.to_thread.run_sync(lambda: here.put_stream("/big", iter([BIG] * 2), 30.0))
        assert answer.body == str(2 * len(BIG)).encode() + BIG
        local = agents(f"unix://{tmp_path}/s")
        assert (await trio.to_thread.run_sync(local.get, "/")).body == b"0"


async def test_others_are_told_why_not_and_what_to_do(files: Path, tmp_path: Path) -> None:
    async with api(files, tmp_path / "s") as port:
        secure, plain = f"https://127.0.0.1:{port}", f"http://127.0.0.1:{port}"
        for ca_file in (None, files / "other.pem"):
            why = await told(lambda: agents(secure, ca_file).get("/"), AgentUnreachable)  # noqa: B023
            assert "not trusted" in why
            assert "FOFOCA_CA_FILE" in why
        assert "https://" in await told(lambda: agents(plain).get("/"), ApiProblem)
        assert "ca-file" in await told(lambda: agents(secure, files / "none.pem").get("/"), InvalidValue)
        assert "ca-file" in await told(lambda: agents(secure, files / "api.key").get("/"), InvalidValue)
    async with api(files, tmp_path / "s", secure=False) as port:
        why = await told(lambda: agents(f"https://127.0.0.1:{port}", files / "api.pem").get("/"), AgentUnreachable)
        assert "http://" in why


async def test_other_nodes_call_on_the_same_port_as_before(files: Path, tmp_path: Path) -> None:
    async with api(files, tmp_path / "s") as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(CALLS)
            assert bytes(await stream.receive_some()).startswith(b"called with " + CALLS[:10])


async def test_who_begins_to_shake_hands_and_stops_holds_nobody_up(files: Path, tmp_path: Path) -> None:
    async with api(files, tmp_path / "s") as port:
        for nonsense in (b"\x16", b"\x16\x03\x01", b"\x16\x03\x01\x00\x05hello", b"\x16\x02oops"):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(nonsense)
        here = agents(f"https://127.0.0.1:{port}", files / "api.pem")
        assert (await trio.to_thread.run_sync(here.get, "/")).body == b"0"


@pytest.mark.parametrize(
    ("cert", "key", "field", "why"),
    [
        ("none.pem", "api.key", "api.tls_cert", "No such file"),
        ("api.pem", "none.key", "api.tls_key", "No such file"),
        ("api.key", "api.key", "api.tls_cert", "CERTIFICATE"),
        ("api.pem", "api.pem", "api.tls_key", "PRIVATE KEY"),
        ("api.pem", "other.key", "api.tls_key", "is not the key of the certificate"),
        ("locked.pem", "locked.key", "api.tls_key", "passphrase"),
        ("binary", "api.key", "api.tls_cert", "binary"),
        ("broken", "api.key", "api.tls_cert", "not sound"),
    ],
)
def test_a_bad_file_is_named(files: Path, cert: str, key: str, field: str, why: str) -> None:
    (files / "binary").write_bytes(bytes(range(256)))
    (files / "broken").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(InvalidConfig, match=why) as raised:
        server_context(str(files / cert), str(files / key))
    assert raised.value.field == field


@pytest.mark.parametrize("given", ["tls_cert", "tls_key"])
def test_a_certificate_and_its_key_come_together(given: str) -> None:
    with pytest.raises(InvalidConfig, match="TLS needs both"):
        Api(**{given: "/etc/fofoca/api.pem"})  # type: ignore[arg-type]
