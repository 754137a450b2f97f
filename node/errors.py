"""The node's errors, drawn in one place. Every text is one line fit for a user's eyes: what, why, what to do next.

    NodeError
    ├── CallerError              the caller's fault; nothing was changed
    │   ├── InvalidValue         names the field, the value and what would be right
    │   │   ├── InvalidConfig    the same, of a configuration file
    │   │   └── UnknownImage     the field is always `image`
    │   ├── NotFound             no such thing, or not one this caller may know of
    │   │   └── UnknownSite      no node keeps a site of this key
    │   ├── NotNow               can't be done to this thing in its state, or to another's
    │   ├── NotPermitted         known caller, but not theirs to do
    │   ├── BadToken             MalformedToken, ForgedToken, ExpiredToken
    │   └── TooLarge             over a documented bound
    ├── PeerError                another node's fault, or the network's
    │   ├── PeerUnreachable      no answer: the call may or may not have been carried out
    │   └── PeerRefused          answered, and said no
    ├── Busy                     a bound of this node is reached for now; trying later is right
    ├── DiskFull                 no room on this node's disk; another node may have some
    ├── LedgerAway               this node's ledger is out of reach; another node's may not be
    └── ClientError              seen from a client of a node: AgentUnreachable, ApiProblem

The scheduler has a tree of its own (`scheduler.errors`); node/api/problems.py maps both to HTTP.
"""

from __future__ import annotations

from typing import Any


class NodeError(Exception):
    """The root of the node's errors."""


class CallerError(NodeError):
    """The caller's fault; nothing was changed."""


class InvalidValue(CallerError):
    """A value that can't be taken: names the field, the value and what would be right."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(f"{field}: {shorten(value)} is not valid; {expected}")
        self.field = field
        self.value = value
        self.expected = expected


class InvalidConfig(InvalidValue):
    """A configuration that can't be taken."""


class UnknownImage(InvalidValue):
    """A job or a request names an image that no node of the cluster has."""

    def __init__(self, image: str, expected: str = "expected an image that `fofoca image ls` shows") -> None:
        super().__init__("image", image, expected)


class NotFound(CallerError):
    """No such thing, or not one this caller may know of."""


class UnknownSite(NotFound):
    """No node keeps a site of this key."""


class NotNow(CallerError):
    """It can't be done to this thing in its state, or it is somebody else's."""


class MissingImage(NotNow):
    """What would run has no image in this cluster; that is its operators' to mend."""


class NotPermitted(CallerError):
    """The caller is known, but this is not theirs to do."""


class KeysNotSettled(CallerError):
    """Nodes don't hold the same keys, or can't: the order has to wait."""


class BadToken(CallerError):
    """A token that opens nothing."""


class MalformedToken(BadToken):
    """Not a token at all."""


class ForgedToken(BadToken):
    """Not signed under this cluster's key."""


class ExpiredToken(BadToken):
    """Was good once."""


class TooLarge(CallerError):
    """Over a documented bound."""


class PeerError(NodeError):
    """Another node's fault, or the network's."""

    def __init__(self, node: str, why: str) -> None:
        super().__init__(f"node {node}: {why}")
        self.node = node
        self.why = why


class PeerUnreachable(PeerError):
    """No answer: the call may or may not have been carried out."""


class PeerRefused(PeerError):
    """The node answered, and said no."""


class Busy(NodeError):
    """A bound of this node is reached for now; trying again later is right."""


class LedgerAway(NodeError):
    """This node's ledger is out of reach: nothing was changed, unless the text says otherwise."""


class DiskFull(NodeError):
    """No room on this node's disk: nothing was changed, unless the text says otherwise."""


class ClientError(NodeError):
    """What a client of a node sees."""


class AgentUnreachable(ClientError):
    """No agent answers at this address."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"no agent answers at {url}: {why}")
        self.url = url


class ApiProblem(ClientError):
    """A node answered with a problem document (RFC 9457)."""

    def __init__(self, status: int, document: dict[str, Any]) -> None:
        super().__init__(str(document.get("detail") or document.get("title") or f"HTTP status {status}"))
        self.status = status
        self.document = document

    @property
    def type(self) -> str:
        """The problem's type, such as `urn:fofoca:problem:invalid-value`."""
        return str(self.document.get("type", "about:blank"))


def shorten(value: object, length_max: int = 80) -> str:
    """Return the value as in Python's repr, cut in the middle to a length that fits a line: a path's end tells most."""
    text = repr(value)
    if len(text) <= length_max:
        return text
    head = (length_max - 3) // 2
    return f"{text[:head]}...{text[head + 3 - length_max :]}"
