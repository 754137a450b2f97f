"""The section [ledger] of the configuration: where this node's record is kept, and whose homes it may take over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from node.errors import InvalidConfig
from node.settings import Section, setting

PASSWORD_BYTES_MAX = 4_096


@dataclass(frozen=True, kw_only=True)
class LedgerSettings(
    Section, name="ledger", about="Where the record of this home's jobs is kept; [ledger.md](ledger.md) tells more."
):
    """The backend, and how etcd is reached."""

    kind: str = setting(
        "sqlite",
        "A file in the data directory (sqlite), or an etcd cluster (etcd): then jobs survive the loss of their home "
        "for good.",
        trade_off="sqlite needs nothing else and is faster; etcd has to be looked after, and without it nothing new is "
        "taken.",
        choices=("sqlite", "etcd"),
    )
    etcd_urls: tuple[str, ...] = setting(
        (),
        'Client URLs of etcd\'s members, such as ["https://10.0.0.5:2379"]; asked one after the other.',
        pattern=r"https?://[^\s/]+/?",
        expected="URLs such as https://10.0.0.5:2379",
    )
    etcd_prefix: str = setting(
        "/fofoca",
        "What the names of all keys begin with.",
        pattern=r"(/[A-Za-z0-9._-]+)+",
        expected="a path such as /fofoca",
    )
    etcd_ca_file: str | None = setting(
        None,
        "File with the certificates (PEM) that etcd's are signed by.",
        unset="those that the host trusts",
        pattern=r"/.*",
        expected="an absolute path",
    )
    etcd_cert_file: str | None = setting(
        None,
        "File with this node's certificate (PEM), for etcds that ask for one.",
        unset="no certificate",
        pattern=r"/.*",
        expected="an absolute path",
    )
    etcd_key_file: str | None = setting(
        None, "File with the key of etcd_cert_file.", unset="no key", pattern=r"/.*", expected="an absolute path"
    )
    etcd_user: str | None = setting(None, "User of etcd.", unset="etcd asks for none")
    etcd_password_file: str | None = setting(
        None, "File with the user's password.", unset="no password", pattern=r"/.*", expected="an absolute path"
    )
    etcd_lease_s: float = setting(
        20.0,
        "How long a home that is silent still holds its record.",
        trade_off="Shorter lets another node stand in sooner; longer forgives etcd's own pauses.",
        low=2,
        high=3_600,
    )
    stand_in: bool = setting(
        True,
        "Whether this node stands in for failed homes whose ledger is etcd, too.",
        trade_off="Each costs about 6 MB of memory for as long as it lasts.",
    )
    stand_in_after_s: float = setting(
        60.0,
        "How long a home must have failed before another node stands in for it.",
        trade_off="Shorter serves its jobs sooner; longer forgives hosts that are only being restarted.",
        low=1,
        high=86_400,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "etcd" and not self.etcd_urls:
            raise InvalidConfig("ledger.etcd_urls", "[]", "expected at least one URL where ledger.kind is etcd")
        if self.etcd_key_file is not None and self.etcd_cert_file is None:
            raise InvalidConfig("ledger.etcd_key_file", self.etcd_key_file, "expected ledger.etcd_cert_file beside it")
        if self.etcd_password_file is not None and self.etcd_user is None:
            path = self.etcd_password_file
            raise InvalidConfig("ledger.etcd_password_file", path, "expected ledger.etcd_user beside it")

    def etcd_password(self) -> str:
        """Return the password; InvalidConfig if its file can't be read."""
        if self.etcd_password_file is None:
            return ""
        try:
            with Path(self.etcd_password_file).open(encoding="utf-8") as file:
                return file.read(PASSWORD_BYTES_MAX).strip()
        except (OSError, UnicodeDecodeError) as error:
            path = self.etcd_password_file
            raise InvalidConfig("ledger.etcd_password_file", path, f"expected a readable file ({error})") from None
