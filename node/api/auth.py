"""Who makes a request: the bearer of a token, or, on a node without a cluster's key, the local administrator.

Without a key the node listens on loopback and its local socket only. Even there a web page in the user's browser could
send requests, so what a browser adds (a foreign `Origin`, a rebound `Host`) is refused.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict

from starlette.datastructures import Headers

from cluster import KeyRing
from node.errors import MalformedToken, NotPermitted
from node.tokens import Principal, Role, Tokens

LOCAL_ADMIN = Principal("admin", Role.ADMIN)
CACHE_ENTRIES_MAX = 1_024
CACHE_S = 10.0


class Gate:
    """Tells the principal of a request's headers; BadToken or NotPermitted."""

    def __init__(self, key_ring: KeyRing | None) -> None:
        self._ring = key_ring
        self._keys: tuple[bytes, ...] = ()
        self._tokens = Tokens()
        # A token's check is remembered for a moment: front ends send the same one thousands of times.
        self._known: OrderedDict[str, tuple[float, Principal]] = OrderedDict()

    def principal(self, headers: Headers) -> Principal:
        """Return who calls."""
        if self._ring is None:
            check_local(headers)
            return LOCAL_ADMIN
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise MalformedToken("expected a header `Authorization: Bearer TOKEN` (`fofoca token create` makes tokens)")
        return self.verify(token.strip())

    def verify(self, token: str) -> Principal:
        """Return whom a token speaks for; BadToken, for any on a node without keys."""
        if self._ring is None:
            raise MalformedToken("this node has no cluster key, so no token is any good here")
        self._follow(self._ring)
        return self._verify(token)

    def check_node(self, headers: Headers) -> None:
        """Check what can be checked before a call's seal is opened; without a key there is no seal."""
        if self._ring is None:
            check_local(headers)

    def _follow(self, ring: KeyRing) -> None:
        """Keep in step with the ring: a token ends with its key, remembered or not."""
        if ring.keys != self._keys:
            self._keys = ring.keys
            self._tokens = Tokens(*ring.keys)
            self._known.clear()

    def _verify(self, token: str) -> Principal:
        now = time.time()
        known = self._known.get(token)
        if known is not None and 0 <= now - known[0] < CACHE_S:
            return known[1]
        self._known.pop(token, None)
        principal = self._tokens.verify(token, now)
        self._known[token] = (now, principal)
        if len(self._known) > CACHE_ENTRIES_MAX:
            self._known.popitem(last=False)
        return principal


def check_local(headers: Headers) -> None:
    """Refuse what a browser sends on behalf of a foreign page."""
    host = headers.get("host", "")
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        raise NotPermitted("requests of foreign web pages are not taken")
    if not _is_local_name(host):
        raise NotPermitted("a node without a cluster key answers only to localhost and addresses")


def _is_local_name(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.removeprefix("[").removesuffix("]").lower()
    if "." not in name or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
