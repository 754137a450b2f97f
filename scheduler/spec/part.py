"""What the parts of a spec have in common: their base, and the one way to refuse a value.

A part is at once the JSON that users send, the row in the ledger and the words on the wire, so a field exists in one
place. Unknown fields are refused at decode everywhere: a limit that a node does not know must never be lost in silence.
"""

from __future__ import annotations

import msgspec

from scheduler.errors import InvalidSpec


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The base of every part: immutable; fields at their defaults are not sent."""


def require(condition: object, field: str, value: object, expected: str) -> None:
    """Raise InvalidSpec, naming field, value and what would be right, unless the condition holds."""
    if not condition:
        raise InvalidSpec(field, value, expected)
