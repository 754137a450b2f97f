"""Is a job's spec one that this cluster can be asked to run? One answer for submission, dry runs and admission.

Raises InvalidSpec, naming the field, its value and what would be right. Whether it fits anywhere is no question here:
more memory than any node has is accepted, waits, and is explained.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import msgspec

from scheduler.abilities import EXCLUSIVE_CORES
from scheduler.model import MAX_TASKS_PER_JOB, ArrayRange, Constraint, JobKind, JobSpec, OnLost, Operator, Resources
from scheduler.spec import files, gang, life, limits, networking, placement, queueing, security
from scheduler.spec.part import require as _require

MEMORY_BYTES_MIN = 1 << 20
AMOUNT_MAX = 1 << 60
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_PLAIN = JobSpec(name="plain", argv=("true",), request=Resources(1, MEMORY_BYTES_MIN))
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")


def validate(spec: JobSpec, spec_bytes_max: int = 65_536) -> None:
    """Raise InvalidSpec unless the spec can be taken."""
    _require(_NAME.fullmatch(spec.name), "name", spec.name, "use 1 to 63 letters, digits, '.', '_' or '-'")
    named = spec.argv[0] if spec.argv else spec.image
    _require(named, "argv", spec.argv, "name a command to run, or an image that has one")
    _require(not any("\0" in each for each in spec.argv), "argv", spec.argv, "no NUL bytes")
    _check_resources(spec.request, spec.limit)
    _check_env(spec.env)
    if spec.array is not None:
        _check_array(spec.array)
    _check_numbers(spec)
    _check_constraints(spec.constraints)
    _check_parts(spec)
    size = len(msgspec.msgpack.encode(spec))
    _require(size <= spec_bytes_max, "spec", f"{size} bytes", f"at most {spec_bytes_max} bytes in all")


def _check_parts(spec: JobSpec) -> None:
    """What was left as it is by default is not looked at: most of what most jobs have."""
    plain = _PLAIN
    if spec.limits != plain.limits:
        limits.check(spec.limits)
    if spec.networking != plain.networking:
        networking.check(spec.networking)
    if spec.files != plain.files:
        files.check(spec.files)
    if spec.security != plain.security:
        security.check(spec.security)
    if spec.life != plain.life:
        life.check(spec.life)
        _check_life(spec)
    if spec.queueing != plain.queueing:
        queueing.check(spec.queueing)
    if spec.placement != plain.placement:
        placement.check(spec.placement)
    _check_exclusive_cores(spec)
    shared = spec.network != networking.SHARED or spec.gang is not None
    _require(shared, "network", spec.network, "bridge or none: only a gang's tasks on one node can share a network")
    if spec.gang is not None:
        gang.check(spec.gang)
        _require(spec.array is None, "gang", "with array", "a job is an array or a gang, not both")
        _require(spec.on_lost is not OnLost.SINGLE, "gang", "with on_lost single", "a gang is requeued whole, or fails")
        _require(
            not spec.placement.hard and not spec.placement.prefer_spread,
            "placement",
            "of a gang",
            "labels, prefer_near and prefer_apart: a gang's nodes are different ones anyway",
        )
        one_by_one = spec.queueing.corresponding is not None
        _require(not one_by_one, "gang", "with aftercorr", "a gang starts whole, not task by task")
        _require(
            spec.kind is JobKind.BATCH, "gang", f"kind {spec.kind.value}", "a gang is of kind batch: it has an end"
        )


def _check_resources(request: Resources, limit: Resources) -> None:
    _require(1 <= request.cpu_milli <= AMOUNT_MAX, "cpu", request.cpu_milli, "ask for at least 1m (a thousandth)")
    _require(
        MEMORY_BYTES_MIN <= request.memory_bytes <= AMOUNT_MAX, "memory", request.memory_bytes, "ask for at least 1M"
    )
    _require(len(request.extra) <= 8, "extra", len(request.extra), "at most 8 extra resources")
    _require(request.extra == tuple(sorted(dict(request.extra).items())), "extra", request.extra, "sorted, each once")
    for name, count in request.extra:
        _require(_LABEL.fullmatch(name) and name not in ("cpu", "memory"), "extra", name, "a resource's name")
        _require(0 < count <= AMOUNT_MAX, f"extra {name}", count, "a count from 1")
    for dimension, amount in limit.items():
        low = request.get(dimension)
        _require(amount == 0 or low <= amount <= AMOUNT_MAX, f"limit of {dimension}", amount, f"0, or at least {low}")


def _check_life(spec: JobSpec) -> None:
    health = spec.life.health
    reached = health is None or not health.connects or spec.network != "none"
    _require(reached, "life.health", "tcp or http without a network", "a command, or the network bridge")
    warn_s, limit_s = spec.life.warn_s, spec.time_limit_s
    in_time = not warn_s or (limit_s is not None and warn_s < limit_s)
    _require(in_time, "life.warn_s", warn_s, "less than the job's own time_limit_s")


def _check_exclusive_cores(spec: JobSpec) -> None:
    count, cpu_milli = spec.limits.exclusive_cores, spec.request.cpu_milli
    _require(spec.request.get(EXCLUSIVE_CORES) == count, "extra", spec.request.extra, f"{EXCLUSIVE_CORES} as in limits")
    _require(cpu_milli >= 1000 * count, "cpu", cpu_milli, f"ask for at least {count} cores to own {count}")


def _check_env(env: Iterable[tuple[str, str]]) -> None:
    for name, value in env:
        _require(_VARIABLE.fullmatch(name), "env", name, "a name of letters, digits and _, no digit first")
        _require("\0" not in value, "env", f"{name}={value}", "a value without NUL bytes")


def _check_array(array: ArrayRange) -> None:
    text = f"{array.first}-{array.last}:{array.step}%{array.throttle}"
    _require(array.step >= 1, "array", text, "a step of at least 1")
    _require(0 <= array.first <= array.last, "array", text, "FIRST-LAST with 0 <= FIRST <= LAST")
    _require(len(array) <= MAX_TASKS_PER_JOB, "array", text, f"at most {MAX_TASKS_PER_JOB} tasks")
    _require(array.last < 1 << 31, "array", text, "indices below 2147483648")
    _require(array.throttle >= 0, "array", text, "a throttle of at least 1, or none")


def _check_numbers(spec: JobSpec) -> None:
    _require(abs(spec.priority) <= 1_000_000, "priority", spec.priority, "from -1000000 to 1000000")
    _require(1 <= spec.attempts_max <= 1000, "attempts_max", spec.attempts_max, "from 1 to 1000")
    _require(1 <= spec.pids_max <= 1 << 22, "pids_max", spec.pids_max, "from 1 to 4194304")
    _require(0 <= spec.stop_grace_s <= 3600, "stop_grace_s", spec.stop_grace_s, "from 0 to 3600 seconds")
    if spec.time_limit_s is not None:
        good = math.isfinite(spec.time_limit_s) and spec.time_limit_s > 0
        _require(good, "time_limit_s", spec.time_limit_s, "a positive number of seconds")


def _check_constraints(constraints: tuple[Constraint, ...]) -> None:
    _require(len(constraints) <= 32, "constraints", len(constraints), "at most 32")
    for each in constraints:
        _require(_LABEL.fullmatch(each.label), "constraint", each.label, "a label's name")
        if each.operator in (Operator.IN, Operator.NOT_IN):
            _require(each.values, f"constraint on {each.label}", each.values, "at least one value")
