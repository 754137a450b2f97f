"""The small languages inside a submission: task arrays and constraints.

array        0-9   0-99999%200 (at most 200 at once)   1-10:2 (1, 3, 5, 7, 9)   3
constraint   disk=ssd   disk!=ssd   rack in (a, b)   rack not in (a, b)   gpu (has the label)   !gpu (has it not)
"""

from __future__ import annotations

import re

from node.errors import InvalidValue
from scheduler.model import MAX_TASKS_PER_JOB, ArrayRange, Constraint, Operator

ARRAY_INDEX_MAX = 2**31 - 1
ARRAY_EXPECTED = "expected FIRST-LAST[:STEP][%AT_ONCE], such as 0-9, 1-10:2 or 0-99999%200"
CONSTRAINT_EXPECTED = "expected LABEL=VALUE, LABEL!=VALUE, LABEL in (A,B), LABEL not in (A,B), LABEL or !LABEL"
CONSTRAINT_LENGTH_MAX = 1_024

_ARRAY = re.compile(r"(\d{1,10})(?:-(\d{1,10})(?::(\d{1,10}))?)?(?:%(\d{1,10}))?", re.ASCII)
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?"
_EQUALS = re.compile(rf"({_WORD})\s*(!?=)\s*({_WORD})", re.ASCII)
_IN = re.compile(rf"({_WORD})\s+(not\s+)?in\s*\(\s*({_WORD}(?:\s*,\s*{_WORD})*)\s*\)", re.ASCII)
_EXISTS = re.compile(rf"(!?)\s*({_WORD})", re.ASCII)


def parse_array(text: str, field: str = "array") -> ArrayRange:
    """Return the tasks of an array; InvalidValue says what is wrong with it."""
    match = _ARRAY.fullmatch(text.strip()) if len(text) < 64 else None
    if match is None:
        raise InvalidValue(field, text, ARRAY_EXPECTED)
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    step = int(match[3]) if match[3] else 1
    if last < first or step < 1 or last > ARRAY_INDEX_MAX or match[4] == "0":
        raise InvalidValue(field, text, ARRAY_EXPECTED)
    array = ArrayRange(first, last, step, int(match[4] or 0))
    if len(array) > MAX_TASKS_PER_JOB:
        raise InvalidValue(field, text, f"expected at most {MAX_TASKS_PER_JOB:,} tasks")
    return array


def parse_constraint(text: str, field: str = "constraints") -> Constraint:
    """Return a condition on a node's labels; InvalidValue says what is wrong with it."""
    trimmed = text.strip() if len(text) <= CONSTRAINT_LENGTH_MAX else ""
    if match := _EQUALS.fullmatch(trimmed):
        return Constraint(match[1], Operator.IN if match[2] == "=" else Operator.NOT_IN, (match[3],))
    if match := _IN.fullmatch(trimmed):
        values = tuple(value.strip() for value in match[3].split(","))
        return Constraint(match[1], Operator.NOT_IN if match[2] else Operator.IN, values)
    if match := _EXISTS.fullmatch(trimmed):
        return Constraint(match[2], Operator.ABSENT if match[1] else Operator.EXISTS)
    raise InvalidValue(field, text, CONSTRAINT_EXPECTED)


def format_constraint(constraint: Constraint) -> str:
    """Write a condition as it is read."""
    label, values = constraint.label, ", ".join(constraint.values)
    match constraint.operator:
        case Operator.IN:
            return f"{label}={values}" if len(constraint.values) == 1 else f"{label} in ({values})"
        case Operator.NOT_IN:
            return f"{label}!={values}" if len(constraint.values) == 1 else f"{label} not in ({values})"
        case Operator.ABSENT:
            return f"!{label}"
        case Operator.EXISTS:
            return label
        case _:  # only what a spec implies has others, and nobody writes those
            return f"{label} {constraint.operator.value} {values}"
