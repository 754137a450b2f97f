"""PATCH of a job: other limits and checks for what runs, and for what comes of it.

Owns the form of the request: fields that are left out stay as they are, so a caller names only what is to change. What
can't be changed on a live container (devices, cores it owns, signals) is refused by name.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from starlette.responses import Response

from node.api.exchange import Exchange, json_response
from node.api.forward import at_home
from node.api.jobs import require_visible
from node.api.schemas import body_field, decode
from node.errors import InvalidValue
from scheduler.abilities import packed
from scheduler.errors import InvalidSpec, NotPossible
from scheduler.model import MAX_TASKS_PER_JOB, JobSpec, Resources
from scheduler.spec.health import Health
from scheduler.spec.life import Restart
from scheduler.spec.limits import Limits

WAIT_S = 20.0
"""How long the home may take: as long as nodes may be silent, twice."""
FIXED = ("devices", "exclusive_cores")


class LimitChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the cgroup enforces; 0 means the request."""

    cpu_milli: int | None = None
    memory_bytes: int | None = None


class LifeChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Restarts from now on, and another way to check what runs (null: none any more)."""

    restart: Restart | UnsetType = UNSET
    backoff_s: float | UnsetType = UNSET
    backoff_max_s: float | UnsetType = UNSET
    health: Health | UnsetType | None = UNSET


class AmendBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of PATCH /v1/jobs/ID. `limits`: fields of the part of that name."""

    cpu_milli: int | None = None
    memory_bytes: int | None = None
    pids_max: int | None = None
    limit: LimitChange = LimitChange()
    limits: dict[str, Any] = {}
    life: LifeChange = LifeChange()


_decode = msgspec.json.Decoder(AmendBody).decode


async def amend(exchange: Exchange) -> Response:
    """PATCH /v1/jobs/ID: change limits while it runs; with `task`, those of one task alone."""
    body = await exchange.body(exchange.services.bounds.body_bytes_max)
    change: AmendBody = decode(_decode, body, AmendBody)
    index = exchange.integer("task", 0, 0, MAX_TASKS_PER_JOB) if "task" in exchange.request.query_params else None

    async def answer(job_id: int) -> Response:
        spec = changed(require_visible(exchange, job_id).spec, change)
        try:
            outcome = await exchange.services.jobs.amend(job_id, spec, index)
        except InvalidSpec as error:
            raise InvalidValue(body_field(error.field), error.value, error.expected) from None
        if outcome.refusals:
            raise NotPossible(f"job {job_id} keeps its limits: {'; '.join(outcome.refusals)}")
        return json_response({"id": job_id, "tasks": outcome.tasks})

    return await at_home(exchange, answer, WAIT_S, body)


def changed(spec: JobSpec, change: AmendBody) -> JobSpec:
    """Return the spec with the changes; InvalidValue names a field that is wrong or fixed."""
    for name in FIXED:
        if name in change.limits and change.limits[name] != msgspec.to_builtins(getattr(spec.limits, name)):
            raise InvalidValue(f"limits.{name}", change.limits[name], "it can't be changed while the job lives")
    limits = _merged(spec.limits, change.limits)
    request = Resources(
        _or(change.cpu_milli, spec.request.cpu_milli),
        _or(change.memory_bytes, spec.request.memory_bytes),
        spec.request.extra,
    )
    return msgspec.structs.replace(
        spec,
        request=packed(request, limits),
        limit=Resources(
            _or(change.limit.cpu_milli, spec.limit.cpu_milli),
            _or(change.limit.memory_bytes, spec.limit.memory_bytes),
            spec.limit.extra,
        ),
        pids_max=_or(change.pids_max, spec.pids_max),
        limits=limits,
        life=msgspec.structs.replace(spec.life, **_given(change.life)),
    )


def _given(change: LifeChange) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(change).items() if value is not UNSET}


def _merged(limits: Limits, changes: dict[str, Any]) -> Limits:
    try:
        return msgspec.convert({**msgspec.to_builtins(limits), **changes}, Limits)
    except msgspec.ValidationError as error:
        raise InvalidValue("limits", changes, str(error)) from None


def _or(value: int | None, former: int) -> int:
    return former if value is None else value
