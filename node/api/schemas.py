"""A submission's JSON as a JobSpec. Every refusal names the field, the value and what would be right.

Owns the form of a submission: its fields, their types and small languages. Amounts, bounds and their relations are for
the scheduler to judge when it takes the job (InvalidSpec).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import msgspec.inspect

from node.api.syntax import parse_array, parse_constraint
from node.errors import InvalidValue
from node.host.errors import ImageError
from node.host.image_name import check_reference
from scheduler.abilities import packed
from scheduler.model import JobKind, JobSpec, OnLost, Resources
from scheduler.spec.files import Files
from scheduler.spec.gang import Gang
from scheduler.spec.life import Life
from scheduler.spec.limits import Limits
from scheduler.spec.networking import Networking
from scheduler.spec.placement import Placement
from scheduler.spec.queueing import Queueing
from scheduler.spec.security import Security

JOBS_PER_REQUEST_MAX = 1_000

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
NETWORKS = ("bridge", "shared", "none")

_BODY_FIELDS = {
    "cpu": "cpu_milli",
    "memory": "memory_bytes",
    "limit of cpu": "limit.cpu_milli",
    "limit of memory": "limit.memory_bytes",
    "constraint": "constraints",
}


class LimitBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the cgroup enforces; 0 means the request."""

    cpu_milli: int = 0
    memory_bytes: int = 0


class JobBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/jobs."""

    argv: list[str] = []
    name: str = "job"
    cpu_milli: int = 1_000
    memory_bytes: int = 256 << 20
    extra: dict[str, int] = {}
    image: str = ""
    env: dict[str, str] = {}
    array: str | None = None
    time_limit_s: float | None = None
    priority: int = 0
    constraints: list[str] = []
    kind: JobKind = JobKind.BATCH
    attempts_max: int = 3
    on_lost: OnLost = OnLost.REQUEUE
    pids_max: int = 512
    network: str = "bridge"
    limit: LimitBody = LimitBody()
    stop_grace_s: float = 5.0
    limits: Limits = Limits()
    networking: Networking = Networking()
    files: Files = Files()
    security: Security = Security()
    life: Life = Life()
    gang: Gang | None = None
    queueing: Queueing = Queueing()
    placement: Placement = Placement()


_decode_any = msgspec.json.Decoder(object).decode
_decode_one = msgspec.json.Decoder(JobBody).decode
_decode_many = msgspec.json.Decoder(list[JobBody]).decode


def read_submission(body: bytes) -> JobSpec | list[JobSpec]:
    """Return the job, or the list of jobs, of a request's body; InvalidValue."""
    # Text that JSON spells without an escape has neither a NUL nor half a surrogate pair in it.
    escaped = b"\\u" in body
    if not body.lstrip().startswith(b"["):
        return job_spec(decode(_decode_one, body), "", escaped)
    jobs = decode(_decode_many, body)
    if not 1 <= len(jobs) <= JOBS_PER_REQUEST_MAX:
        raise InvalidValue("body", f"{len(jobs)} jobs", f"expected 1 to {JOBS_PER_REQUEST_MAX:,} jobs")
    return [job_spec(job, f"[{index}].", escaped) for index, job in enumerate(jobs)]


def decode(decoder: Callable[[bytes], Any], body: bytes, kind: type[msgspec.Struct] = JobBody) -> Any:
    """Decode JSON; InvalidValue names the field that is wrong, by its path in the body."""
    try:
        return decoder(body)
    except msgspec.ValidationError as error:
        raise _named(str(error), _decode_plain(body), kind) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _no_json(body, error) from None


def _decode_plain(body: bytes) -> object:
    try:
        return _decode_any(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _no_json(body, error) from None


def _no_json(body: bytes, error: Exception) -> InvalidValue:
    return InvalidValue("body", body[:60].decode("utf-8", "replace"), f"expected JSON: {error}")


def job_spec(job: JobBody, prefix: str, escaped: bool = True) -> JobSpec:
    """Return the spec of a decoded body; `prefix` goes before the names of fields in errors.

    Texts are looked at only if they may have been `escaped`.
    """
    try:
        _check(job)
        if escaped:
            _check_all_texts(job)
        return JobSpec(
            name=job.name,
            argv=tuple(job.argv),
            request=packed(Resources(job.cpu_milli, job.memory_bytes, tuple(sorted(job.extra.items()))), job.limits),
            limit=Resources(job.limit.cpu_milli, job.limit.memory_bytes),
            image=job.image,
            env=tuple(sorted(job.env.items())),
            array=parse_array(job.array) if job.array is not None else None,
            kind=job.kind,
            priority=job.priority,
            time_limit_s=job.time_limit_s,
            stop_grace_s=job.stop_grace_s,
            attempts_max=job.attempts_max,
            on_lost=job.on_lost,
            constraints=tuple(parse_constraint(text) for text in job.constraints),
            pids_max=job.pids_max,
            network=job.network,
            limits=job.limits,
            networking=job.networking,
            files=job.files,
            security=job.security,
            life=job.life,
            gang=job.gang,
            queueing=job.queueing,
            placement=job.placement,
        )
    except InvalidValue as error:
        if not prefix:
            raise
        raise InvalidValue(prefix + error.field, error.value, error.expected) from None


def body_field(spec_field: str) -> str:
    """Return the body's name for a field of the spec, as the scheduler names it in a refusal, perhaps of a list."""
    place, end, field = spec_field.rpartition("].") if spec_field.startswith("[") else ("", "", spec_field)
    return place + end + _BODY_FIELDS.get(field, field)


def _check(job: JobBody) -> None:
    if job.image:
        try:
            check_reference(job.image)
        except ImageError as error:
            raise InvalidValue("image", job.image, f"expected NAME[:TAG], a digest or a stack ({error})") from None
    if job.network not in NETWORKS:
        raise InvalidValue("network", job.network, f"expected one of {', '.join(NETWORKS)}")
    for name in job.env:
        if ENV_NAME.fullmatch(name) is None:
            raise InvalidValue("env", name, "expected names of letters, digits and _, not starting with a digit")


def _check_all_texts(job: JobBody) -> None:
    for field, value in msgspec.to_builtins(job).items():
        _check_texts(field, value)


def _check_texts(field: str, value: object) -> None:
    """JSON can carry a NUL or half a surrogate pair; the arguments of a process, a path or a name can't."""
    if isinstance(value, str):
        if "\0" in value or not _encodable(value):
            raise InvalidValue(field, value, "expected texts without NUL characters")
    elif isinstance(value, dict):
        for key, each in value.items():
            _check_texts(field, key)
            _check_texts(field if field == "env" else f"{field}.{key}", each)
    elif isinstance(value, list):
        for each in value:
            _check_texts(field, each)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_PATH = re.compile(r"^(.*?)(?: - at `(?:key in )?\$(.*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")


def _named(message: str, body: object, kind: type[msgspec.Struct] = JobBody) -> InvalidValue:
    """Turn a decoder's message into field, value and what would be right."""
    match = _PATH.match(message)
    assert match is not None
    text, path = match[1], (match[2] or "").removeprefix(".")
    if unknown := _UNKNOWN.match(text):
        known = ", ".join(_fields_at(path, kind))
        return InvalidValue(_joined(path, unknown[1]), _value_at(body, _joined(path, unknown[1])), f"known: {known}")
    if missing := _MISSING.match(text):
        return InvalidValue(_joined(path, missing[1]), None, "expected this field, it has no default")
    return InvalidValue(path or "body", _value_at(body, path), text[:1].lower() + text[1:])


def _fields_at(path: str, body: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the fields known at a path such as `[3].networking.ports[0]`."""
    kind: Any = msgspec.inspect.type_info(body)
    for step in re.findall(r"[^.\[\]]+", path):
        if isinstance(kind, msgspec.inspect.StructType) and not step.isdigit():
            kind = next(each.type for each in kind.fields if each.encode_name == step)
        elif isinstance(kind, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
            kind = kind.item_type
        if isinstance(kind, msgspec.inspect.UnionType):
            kind = next(each for each in kind.types if not isinstance(each, msgspec.inspect.NoneType))
    return tuple(each.encode_name for each in kind.fields) if isinstance(kind, msgspec.inspect.StructType) else ()


def _joined(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field


def _value_at(body: object, path: str) -> Any:
    """Return what stands at a path such as `[3].limit.cpu_milli`; the path's [...] stands for any item of a table.
    What stands in a secret is not shown: refusals end on screens and in logs."""
    value = body
    if "files.secrets" in path:
        return "(not shown)"
    for step in re.findall(r"[^.\[\]]+", path):
        if isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            break
    return value
