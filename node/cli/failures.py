"""Exit codes, and the error that carries one. Scripts rely on these numbers: docs/cli.md lists them."""

from __future__ import annotations

from collections.abc import Sequence

DONE = 0
TASK_FAILED = 1  # a task did not succeed, or what was asked for could not be done
BAD_INPUT = 2  # unknown id, image or option, a value without sense, no agent reachable, not permitted
BUG = 70
TIMED_OUT = 124  # as timeout(1) has it
INTERRUPTED = 130
PIPE_CLOSED = 141


class Failure(Exception):
    """Ends the command with one line on stderr (and `details` below it) and an exit code."""

    def __init__(self, message: str, code: int = BAD_INPUT, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.details = tuple(details)
