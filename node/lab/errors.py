"""What a lab can't do, said in lines fit for people."""

from __future__ import annotations

from collections.abc import Sequence


class LabFailure(Exception):
    """The lab could not do it; the message says what and why, `details` are further lines such as the end of a log."""

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


class LabMisuse(LabFailure):
    """The caller asked for what can't be: no lab, no such node."""
