"""The section [api] of the configuration: where the HTTP API listens, its certificate, its bounds."""

from __future__ import annotations

from dataclasses import dataclass

from node.errors import InvalidConfig
from node.settings import Section, setting


@dataclass(frozen=True, kw_only=True)
class Api(Section, name="api", about="The HTTP API, for users and for other nodes."):
    """Sockets and bounds of the HTTP API."""

    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8642, "TCP port.", low=1, high=65_535)
    unix_socket: str | None = setting(
        None,
        "Path of the local socket (mode 0600).",
        unset="run/api.sock in node.data_dir",
        pattern=r"/.{1,100}",
        expected="an absolute path of 101 characters at most (a limit of the kernel)",
    )
    tls_cert: str | None = setting(
        None,
        "File of the certificate that users are shown, and of those that sign it (PEM). Users then speak HTTPS on "
        "api.port, and HTTPS alone; other nodes go on with their own sealed calls there.",
        unset="plain HTTP: tokens can be read on the way, unless it is on this host or behind a front end with TLS",
        pattern=r"/.*",
        expected="an absolute path",
    )
    tls_key: str | None = setting(
        None,
        "File of its private key (PEM, without a passphrase); both are read when the agent starts.",
        unset="none; needed with api.tls_cert",
        pattern=r"/.*",
        expected="an absolute path",
    )
    body_bytes_max: int = setting(
        8 << 20,
        "Largest body of a request; uploads of images are bounded by api.image_bytes_max.",
        trade_off="What a caller may make the node keep in memory at once.",
        low=64 << 10,
        high=256 << 20,
    )
    image_bytes_max: int = setting(16 << 30, "Largest image that may be uploaded.", low=1 << 20, high=1 << 40)
    connections_max: int = setting(
        1_000,
        "How many connections are served at once; more wait in the kernel's queue.",
        trade_off="Each costs a file descriptor and about 50 KB.",
        low=8,
        high=100_000,
    )
    stall_timeout_s: float = setting(
        30.0,
        "How long a client may take for the next piece of a request it sends or of an answer it reads.",
        trade_off="Shorter frees what slow or hostile clients hold; longer serves bad lines.",
        low=1,
        high=3_600,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.tls_cert is None) != (self.tls_key is None):
            missing, other = ("tls_key", "tls_cert") if self.tls_key is None else ("tls_cert", "tls_key")
            raise InvalidConfig(f"api.{missing}", "", f"expected a path, as api.{other} is set: TLS needs both")
