"""Limits as people write them, in options and in the configuration: rates of a disk, and rlimits."""

from __future__ import annotations

from node.errors import InvalidValue
from node.quantities import parse_size

RATES = {"read": "read_bytes", "write": "write_bytes", "read-ops": "read_ops", "write-ops": "write_ops"}
UNLIMITED = -1
_IN_BYTES = ("as", "core", "data", "fsize", "memlock", "msgqueue", "rss", "stack")
_EXPECTED_RATES = "expected rates such as read=10M,write-ops=100"
_EXPECTED_AMOUNT = "expected a number, or unlimited"


def parse_rates(text: str, field: str) -> dict[str, int]:
    """Return what `read=10M,write=5M,read-ops=100,write-ops=100` says, by the names of the spec; InvalidValue."""
    found = {}
    for rate in text.split(","):
        key, equals, value = rate.partition("=")
        if not equals or key not in RATES:
            raise InvalidValue(field, text, _EXPECTED_RATES)
        found[RATES[key]] = parse_size(value, f"{field} {key}")
    return found


def parse_bounds(name: str, text: str, field: str) -> tuple[int, int]:
    """Return the soft and the hard limit of `SOFT[:HARD]` for an rlimit of this name; -1 is unlimited. InvalidValue."""
    soft, _, hard = text.partition(":")
    return parse_amount(name, soft, field), parse_amount(name, hard or soft, field)


def parse_amount(name: str, text: str, field: str) -> int:
    """Return one limit: bytes with K, M, G where it is in bytes, else a number; -1 for "unlimited". InvalidValue."""
    if text == "unlimited":
        return UNLIMITED
    if text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    if name in _IN_BYTES:
        return parse_size(text, field)
    raise InvalidValue(field, text, _EXPECTED_AMOUNT)
