"""What people type: a job's id, and the option of `fofoca submit` that a field of the API stands for."""

from __future__ import annotations

from typing import Any

import click

from node.errors import ApiProblem

JOB_ID_MAX = 2**63 - 1
OPTIONS = {
    "cpu_milli": "cpu",
    "memory_bytes": "memory",
    "limit.cpu_milli": "limit-cpu",
    "limit.memory_bytes": "limit-memory",
    "time_limit_s": "time",
    "stop_grace_s": "stop-grace",
    "constraints": "constraint",
    "attempts_max": "attempts",
    "on_lost": "on-lost",
    "life.warn_signal": "signal",
    "life.warn_s": "signal",
    "pids_max": "pids",
    "queueing.after": "dependency",
    "queueing.after.job": "dependency",
    "queueing.after.delay_s": "dependency",
    "queueing.begin_unix_s": "begin",
    "queueing.licences": "licence",
}
"""Fields whose option has another name than their last word."""


class JobId(click.ParamType[int]):
    """A whole number, such as 12001."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) <= JOB_ID_MAX):
            raise click.UsageError(f"{text!r} is not a job's id, a whole number such as 12001", ctx)
        return int(text)


JOB_ID = JobId()


def in_options(problem: ApiProblem, known: set[str]) -> str:
    """Return a problem's text with the option instead of the field, as far as there is one among `known`."""
    text, field = str(problem), problem.document.get("field")
    if not isinstance(field, str):
        return text
    option = OPTIONS.get(field, field.rpartition(".")[2].replace("_", "-"))
    return f"--{option}" + text.removeprefix(field) if option in known and text.startswith(field) else text
