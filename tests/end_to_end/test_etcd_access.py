"""An etcd that asks for certificates, names and passwords, and one of several members that is gone."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from node.config import from_tables
from node.ledger import EtcdLedger, LedgerError
from node.ledger.etcd_gateway import EtcdAccess, EtcdError, EtcdGateway
from node.ledger.opening import gateway
from scheduler.events import Put
from tests.ledger.etcd_stores import ETCD, RealEtcd

pytestmark = pytest.mark.skipif(ETCD is None, reason="no etcd (on Debian: apt-get install etcd-server)")
PREFIX = "/fofoca/test/homes/n1/"


def make_certificates(folder: Path) -> None:
    """A certificate that signs itself and serves for all: authority, server and client."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fofoca-test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


async def test_certificates_of_both_sides_are_asked_for_and_checked(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    options = ("--cert-file", cert, "--key-file", key, "--trusted-ca-file", cert, "--client-cert-auth")
    etcd = RealEtcd(tmp_path, options)
    try:
        etcd.start()
        files = {"etcd_ca_file": cert, "etcd_cert_file": cert, "etcd_key_file": key}
        settings = {"kind": "etcd", "etcd_urls": [etcd.url], **files}
        good = gateway(from_tables({"ledger": settings}).ledger)
        ledger = await EtcdLedger.open(good, PREFIX, "n1", tmp_path / "lock")
        await ledger.commit([Put("t", "1", b"sealed")])
        assert await ledger.load() == {"t": {"1": b"sealed"}}
        await ledger.close()
        for lacking in ({"etcd_ca_file"}, {"etcd_cert_file", "etcd_key_file"}):
            less = {name: value for name, value in settings.items() if name not in lacking}
            refused = gateway(from_tables({"ledger": less}).ledger)
            with pytest.raises(EtcdError):
                await refused.call("/v3/maintenance/status", {})
            await refused.close()
    finally:
        etcd.stop()


async def test_names_and_passwords_are_asked_for_and_sessions_renewed(tmp_path: Path) -> None:
    etcd = RealEtcd(tmp_path)
    try:
        etcd.start()
        await protect(EtcdGateway(EtcdAccess(urls=(etcd.url,))))
        anybody = EtcdGateway(EtcdAccess(urls=(etcd.url,)))
        with pytest.raises(LedgerError, match="user name is empty"):
            await EtcdLedger.open(anybody, PREFIX, "n1", tmp_path / "lock", patience_s=0)
        (tmp_path / "password").write_text("wrong\n")
        known = {"kind": "etcd", "etcd_urls": [etcd.url], "etcd_user": "fofoca"}
        settings = from_tables({"ledger": {**known, "etcd_password_file": str(tmp_path / "password")}}).ledger
        with pytest.raises(LedgerError, match="invalid user ID or password"):
            await EtcdLedger.open(gateway(settings), PREFIX, "n1", tmp_path / "lock", patience_s=5)
        (tmp_path / "password").write_text("secret\n")
        known_gateway = gateway(settings)
        ledger = await EtcdLedger.open(known_gateway, PREFIX, "n1", tmp_path / "lock")
        await ledger.commit([Put("t", "1", b"a")])
        known_gateway._token = "of a session that has ended"
        await ledger.commit([Put("t", "1", b"b")])
        assert await ledger.load() == {"t": {"1": b"b"}}
        await ledger.close()
    finally:
        etcd.stop()


async def protect(etcd: EtcdGateway) -> None:
    """Let users in alone: fofoca, who may use /fofoca."""
    for name, password in (("root", "root"), ("fofoca", "secret")):
        await etcd.call("/v3/auth/user/add", {"name": name, "password": password})
        await etcd.call("/v3/auth/role/add", {"name": name})
        await etcd.call("/v3/auth/user/grant", {"user": name, "role": name})
    below = {"key": "L2ZvZm9jYS8=", "range_end": "L2ZvZm9jYTA="}  # /fofoca/ to /fofoca0
    await etcd.call("/v3/auth/role/grant", {"name": "fofoca", "perm": {"permType": "READWRITE", **below}})
    await etcd.call("/v3/auth/enable", {})
    await etcd.close()


async def test_a_member_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    etcd = RealEtcd(tmp_path)
    try:
        etcd.start()
        gateway = EtcdGateway(EtcdAccess(urls=("http://127.0.0.1:1", etcd.url + "/")))
        ledger = await EtcdLedger.open(gateway, PREFIX, "n1", tmp_path / "lock", patience_s=0)
        await ledger.commit([Put("t", "1", b"")])
        await ledger.close()
    finally:
        etcd.stop()
