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
    "queueing.begin_unix_s": "begin",
    "queueing.licences": "licence",
    "life.backoff_s": "restart-backoff",
    "life.backoff_max_s": "restart-backoff-max",
    "life.health.interval_s": "health-interval",
    "life.health.timeout_s": "health-timeout",
    "life.health.start_period_s": "health-start",
    "life.health.failures_max": "health-failures",
    "life.health.successes_min": "health-successes",
    "life.health.command": "health-command",
    "life.health.tcp": "health-tcp",
    "files.root_bytes": "root-size",
    "limits.cpu_period_us": "cpu-period",
    "limits.swap_bytes": "swap",
    "limits.memory_soft_bytes": "memory-soft",
    "limits.memory_high_bytes": "memory-high",
    "security.masked_paths": "mask",
    "security.capabilities_add": "cap-add",
    "security.capabilities_drop": "cap-drop",
}
"""Fields whose option has another name than their last word."""
WHOLE = {
    "files.volumes": "volume",
    "files.tmpfs": "tmpfs",
    "files.scratch": "scratch",
    "files.secrets": "secret",
    "limits.rlimits": "rlimit",
    "limits.disks": "disk-limit",
    "limits.devices": "device",
    "limits.huge_pages": "huge-pages",
    "life.health.http": "health-http",
    "networking.publish": "publish",
    "networking.networks": "join-network",
    "queueing.after": "dependency",
}
"""Fields that one option says with all that is in them."""


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
    whole = next((name for each, name in WHOLE.items() if field == each or field.startswith(f"{each}.")), None)
    option = whole or OPTIONS.get(field, field.rpartition(".")[2].replace("_", "-"))
    return f"--{option}" + text.removeprefix(field) if option in known and text.startswith(field) else text
