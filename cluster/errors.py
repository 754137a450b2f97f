"""The gossip layer's errors, drawn in one place: the caller's fault, the peer's fault, our bug.

Whatever raises one of these has changed nothing.
"""

from __future__ import annotations


class ClusterError(Exception):
    """The root of the gossip layer's errors; its text is fit for a user's eyes."""


class InvalidConfig(ClusterError):
    """The caller's fault: names the field, the value and what would be right."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(f"{field}: {value!r} is not valid; {expected}")
        self.field = field
        self.value = value
        self.expected = expected


class InvalidState(ClusterError):
    """The caller's fault: a state key or value that can't be gossiped, or too much of it."""


class InvalidKey(ClusterError):
    """The caller's fault: no such key on the ring, or bytes that can't be one."""


class NotRunning(ClusterError):
    """The caller's fault: the machine was not started, was started twice, or has left."""


class IllegalTransition(ClusterError):
    """Our bug: the table of member states has no such step."""


class BadPacket(ClusterError):
    """The peer's fault: bytes that are no packet of this cluster.

    `reason` is one of: "short", "version", "key", "forged", "replayed", "expired", "malformed", "too-long".
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
