"""What an attempt's result says, in a few words and figures."""

from __future__ import annotations

from scheduler.model import Result


def describe(result: Result) -> str:
    """Say in a few words how an attempt ended."""
    if result.error is not None:
        return result.error
    if result.unhealthy:
        return f"unhealthy: {result.unhealthy}"
    if result.timed_out:
        return "time limit"
    if result.oom_killed:
        return "out of memory"
    if result.signal is not None:
        return f"signal {result.signal}"
    return f"exit code {result.exit_code}"


def ran_s(result: Result) -> float:
    """Return how long an attempt ran, 0 when it did not."""
    return max(0.0, result.ended_unix_s - result.started_unix_s) if result.started_unix_s else 0.0
