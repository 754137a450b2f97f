"""The scheduler's errors, drawn in one place: the caller's fault, the peer's fault, our bug.

A machine that raises one of these has changed nothing.
"""

from __future__ import annotations


class SchedulerError(Exception):
    """The root of the scheduler's errors; its text is fit for a user's eyes."""


class InvalidSpec(SchedulerError):
    """The caller's fault: names the field, the value and what would be right."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(f"{field}: {value!r} is not valid; {expected}")
        self.field = field
        self.value = value
        self.expected = expected


class Overloaded(SchedulerError):
    """The caller's fault, for now: a bound is reached; names it and what would help."""


class UnknownJob(SchedulerError):
    """The caller's fault: no such job at this home."""


class UnknownSite(SchedulerError):
    """The caller's fault: no such site at this node."""


class NotPossible(SchedulerError):
    """The caller's fault: what is asked for can't be done to this thing in its state, or not by this caller."""


class ForeignJob(SchedulerError):
    """The caller's fault: the job's home is another node."""


class IllegalTransition(SchedulerError):
    """Our bug or a stale actor: the lifecycle table has no such step."""


class BadMessage(SchedulerError):
    """The peer's fault: bytes that are no message of this protocol."""
