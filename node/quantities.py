"""Amounts as people write them: `250m` and `1.5` cores, `64M` bytes, `60s`, `1h30m`.

Sizes count in powers of 1024, with or without the `i` (`64M` = `64Mi` = 67,108,864 bytes). All parsing is exact
(fractions, no floats), so that what a user wrote and what admission reserves never differ by rounding.
"""

from __future__ import annotations

import re
from fractions import Fraction

from node.errors import InvalidValue

CPU_MILLI_MAX = 1_000_000_000
SIZE_BYTES_MAX = 2**62
DURATION_S_MAX = 10 * 365 * 86_400
TEXT_LENGTH_MAX = 40

EXPECTED_CPU = "expected cores such as 2, 1.5 or 250m (thousandths of a core)"
EXPECTED_SIZE = "expected bytes with K, M, G or T (powers of 1024), such as 64M or 1.5G"
EXPECTED_DURATION = "expected a time such as 500ms, 60s, 5m, 1h30m or 2d; a bare number is seconds"

_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
_CPU = re.compile(rf"{_NUMBER}(m?)", re.ASCII)
_SIZE = re.compile(rf"{_NUMBER}([kmgtp]?)(?:i?b?)", re.ASCII | re.IGNORECASE)
_DURATION = re.compile(rf"{_NUMBER}(ms|s|m|h|d)", re.ASCII)
_BARE = re.compile(_NUMBER, re.ASCII)

_SIZE_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SECONDS = {"ms": Fraction(1, 1000), "s": Fraction(1), "m": Fraction(60), "h": Fraction(3600), "d": Fraction(86_400)}


def parse_cpu(text: str, field: str = "cpu") -> int:
    """Return millicores; InvalidValue for anything finer than a millicore, zero or without sense."""
    match = _CPU.fullmatch(_bounded(text))
    if match is None:
        raise InvalidValue(field, text, EXPECTED_CPU)
    milli = Fraction(match[1]) * (1 if match[2] else 1000)
    if milli.denominator != 1 or not 0 < milli <= CPU_MILLI_MAX:
        raise InvalidValue(field, text, EXPECTED_CPU)
    return int(milli)


def parse_size(text: str, field: str = "memory") -> int:
    """Return whole bytes, at least one."""
    match = _SIZE.fullmatch(_bounded(text))
    if match is None:
        raise InvalidValue(field, text, EXPECTED_SIZE)
    size_bytes = int(Fraction(match[1]) * 1024 ** _SIZE_UNITS[match[2].lower()])
    if not 0 < size_bytes <= SIZE_BYTES_MAX:
        raise InvalidValue(field, text, EXPECTED_SIZE)
    return size_bytes


def parse_duration(text: str, field: str = "time") -> float:
    """Return seconds; several units may follow each other, as in `1h30m`."""
    trimmed = _bounded(text)
    if _BARE.fullmatch(trimmed):
        seconds = Fraction(trimmed)
    elif re.fullmatch(rf"(?:{_DURATION.pattern})+", trimmed, re.ASCII):
        seconds = sum((Fraction(number) * _SECONDS[unit] for number, unit in _DURATION.findall(trimmed)), Fraction(0))
    else:
        raise InvalidValue(field, text, EXPECTED_DURATION)
    if seconds > DURATION_S_MAX:
        raise InvalidValue(field, text, EXPECTED_DURATION + ", ten years at most")
    return float(seconds)


def format_cpu(cpu_milli: int) -> str:
    """Return cores the short way: `250m`, `1`, `1.5`."""
    if 0 < abs(cpu_milli) < 1000:
        return f"{cpu_milli}m"
    return f"{cpu_milli / 1000:.3f}".rstrip("0").rstrip(".")


def format_size(size_bytes: int) -> str:
    """Return a size with one decimal at most: `64M`, `1.5G`; for reading, not for parsing back."""
    size = float(size_bytes)
    for unit in ("", "K", "M", "G", "T"):
        if abs(size) < 1024:
            return f"{size:.1f}".removesuffix(".0") + unit
        size /= 1024
    return f"{size:.1f}".removesuffix(".0") + "P"


def format_duration(seconds: float) -> str:
    """Return a time in its two largest units: `500ms`, `12.3s`, `5m`, `1h30m`, `2d4h`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    for unit, length, small_unit, small_length in (("d", 86_400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= length:
            large, small = divmod(int(seconds) // small_length, length // small_length)
            return f"{large}{unit}" + (f"{small}{small_unit}" if small else "")
    raise AssertionError(seconds)


def _bounded(text: str) -> str:
    # A user's million digits must not become a million-digit fraction.
    return text.strip() if len(text) <= TEXT_LENGTH_MAX else "?"
