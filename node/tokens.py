"""Who calls: tokens signed under the cluster's key, so that any node can check one without asking anybody.

A token is `fof1.PAYLOAD.MAC`: the payload is msgpack [name, role, issued, expires] (unix seconds), the MAC is
HMAC-SHA256 under a key derived from the cluster's for this purpose alone; both as url-safe base64 without padding.
There is no revocation list: a token ends when it expires, or when its key is removed from the cluster's ring.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from cluster.seal import derive_key
from node.errors import ExpiredToken, ForgedToken, InvalidValue, MalformedToken

PREFIX = "fof1"
TOKEN_LENGTH_MAX = 512
LIFETIME_S_DEFAULT = 365 * 86_400
LIFETIME_S_MAX = 10 * 365 * 86_400
CLOCK_SKEW_S_MAX = 300
USER_NAME = re.compile(r"[a-z0-9_][a-z0-9._-]{0,31}", re.ASCII)


class Role(StrEnum):
    """What a caller may do: a user with their own jobs, an operator with all jobs, nodes and the cluster's settings, an
    admin with everything, the door with the door.
    """

    USER = "user"
    OPERATOR = "operator"
    ADMIN = "admin"
    DOOR = "door"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request."""

    name: str
    role: Role

    @property
    def admin(self) -> bool:
        """Whether everything is theirs to see and touch."""
        return self.role is Role.ADMIN

    @property
    def operator(self) -> bool:
        """Whether everybody's jobs, all nodes and the cluster's settings are theirs to see and touch."""
        return self.role in (Role.OPERATOR, Role.ADMIN)


class _Payload(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    name: str
    role: Role
    issued_unix_s: int
    expires_unix_s: int


_decode_payload = msgspec.msgpack.Decoder(_Payload).decode


class Tokens:
    """Makes and checks the tokens of one cluster: signed under the first of its keys, good under every one."""

    def __init__(self, *cluster_keys: bytes) -> None:
        self._keys = [derive_key(each, "tokens") for each in cluster_keys]

    def create(self, name: str, role: str, now_unix_s: float, lifetime_s: float = LIFETIME_S_DEFAULT) -> str:
        """Return a token; InvalidValue names what is wrong with name, role or lifetime."""
        if not 1 <= lifetime_s <= LIFETIME_S_MAX:
            raise InvalidValue("lifetime", lifetime_s, "expected a second to ten years")
        issued = int(now_unix_s)
        payload = msgspec.msgpack.encode(
            _Payload(check_user_name(name), check_role(role), issued, issued + int(lifetime_s))
        )
        return f"{PREFIX}.{_text(payload)}.{_text(_mac(self._keys[0], payload))}"

    def verify(self, token: str, now_unix_s: float) -> Principal:
        """Return whom a token speaks for; MalformedToken, ForgedToken or ExpiredToken."""
        payload, mac = _split(token)
        if not any(hmac.compare_digest(mac, _mac(key, payload)) for key in self._keys):
            raise ForgedToken("the token was not signed under this cluster's key; ask an administrator for one")
        try:
            claims = _decode_payload(payload)
        except msgspec.DecodeError:
            raise MalformedToken("the token is of a version this node does not know") from None
        if claims.expires_unix_s <= now_unix_s:
            raise ExpiredToken("the token has expired; ask an administrator for a new one")
        if claims.issued_unix_s > now_unix_s + CLOCK_SKEW_S_MAX:
            raise ExpiredToken("the token is from the future; this node's clock or its issuer's is wrong")
        return Principal(claims.name, claims.role)


def check_user_name(name: str) -> str:
    """Return the name if it may be a user's: it also names directories and ranges of ids."""
    if not isinstance(name, str) or USER_NAME.fullmatch(name) is None:
        raise InvalidValue("user", name, "expected 1 to 32 small letters, digits and . _ -, not starting with . or -")
    return name


def check_role(role: str) -> Role:
    """Return the role of this name."""
    try:
        return Role(role)
    except ValueError:
        raise InvalidValue("role", role, f"expected one of {', '.join(Role)}") from None


def _mac(key: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, payload, hashlib.sha256)


def _split(token: str) -> tuple[bytes, bytes]:
    parts = token.split(".") if len(token) <= TOKEN_LENGTH_MAX else []
    if len(parts) != 3 or parts[0] != PREFIX:
        raise MalformedToken(f"expected a token that begins with {PREFIX}. (`fofoca token create` makes them)")
    try:
        return _bytes(parts[1]), _bytes(parts[2])
    except (binascii.Error, UnicodeEncodeError):
        raise MalformedToken("the token is damaged; copy it again, whole") from None


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
