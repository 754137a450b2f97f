"""Who is a front end: by the network it sends from, or by a token of role door. All others are the public."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

from node.door.http.fields import TOKEN, Sender
from node.door.http.head import Fields
from node.errors import BadToken, NotPermitted
from node.tokens import PREFIX, Principal, Role

Verify = Callable[[str], Principal]
"""Tells whom a token speaks for; BadToken."""

_ROLES = (Role.DOOR, Role.ADMIN)


class FrontEnds:
    """Knows the front ends. `verify` is None on nodes without a cluster's key, where no token is any good."""

    def __init__(self, networks: Iterable[str], verify: Verify | None) -> None:
        self._networks = [ipaddress.ip_network(text) for text in networks]
        self._verify = verify

    def has(self, address: str) -> bool:
        """Whether a front end's network has this address."""
        if not self._networks:
            return False
        parsed = ipaddress.ip_address(address)
        return any(parsed in network for network in self._networks)

    def sender(self, address: str, listed: bool, fields: Fields) -> Sender:
        """Return who sent these fields from an address that is listed or not; BadToken, NotPermitted."""
        token = fields.get(TOKEN)
        if token:
            if self._verify is None:
                raise NotPermitted("X-Fofoca-Token: this node has no cluster key, so no token is good here")
            principal = self._verify(token)
            if principal.role not in _ROLES:
                raise NotPermitted(f"X-Fofoca-Token: {principal.name} has the role {principal.role}; door is needed")
            return Sender(address, front_end=True)
        by_authorization = self._authorized(fields.values("authorization"))
        return Sender(address, listed or by_authorization, by_authorization)

    def _authorized(self, values: list[str]) -> bool:
        """Whether Authorization is a front end's. Anything else in it is for the application, good or not."""
        if self._verify is None or len(values) != 1:
            return False
        scheme, _, token = values[0].partition(" ")
        if scheme.lower() != "bearer" or not token.startswith(PREFIX + "."):
            return False
        try:
            return self._verify(token.strip()).role in _ROLES
        except BadToken:
            return False


def plain_address(address: str) -> str:
    """Return an address as people write it: no zone, and IPv4 as such even on a socket for both."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


def client_of(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or the network of 64 bits that an IPv6 user has."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address, 64), strict=False))
