"""Accounting: who used what, by day, added up over all homes that answer."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import msgspec
from starlette.responses import Response

from node.api import render
from node.api.exchange import Exchange, json_response
from node.api.forward import to_all
from node.errors import InvalidValue
from scheduler.usage import Used

DAYS_DEFAULT = 30
EPOCH = date(1970, 1, 1)
MISSING_HEADER = "x-fofoca-missing"
GROUPS = ("day", "account", "user", "job")


class UsageDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What attempts used that ended: by day, account and user, or by job. Sums of whole numbers, so they add up."""

    day: str = ""
    account: str = ""
    user: str = ""
    job: int | None = None
    name: str = ""
    attempts: int = 0
    succeeded: int = 0
    run_ms: int = 0
    core_ms: int = 0
    memory_mib_s: int = 0
    charged_ms: int = 0
    cpu_ms: int = 0


_decode = msgspec.json.Decoder(list[UsageDocument]).decode
_COUNTERS = Used.__struct_fields__


async def show(exchange: Exchange) -> Response:
    """GET /v1/usage: by day, account and user; `by=job` by job. Users get their own."""
    by = exchange.text("by", "day", ("day", "job"))
    first, last = _day(exchange, "first", DAYS_DEFAULT), _day(exchange, "last", 0)
    own = [*_of_jobs(exchange)] if by == "job" else [*_of_days(exchange, first, last)]
    if exchange.forwarded:
        return json_response(own)
    states = render.states(exchange.services)
    others = [name for name in states if name != exchange.services.node]
    answers, missing = await to_all(exchange, [name for name in others if states[name] in ("alive", "suspect")])
    for answer in answers.values():
        own += _decode(answer.body)
    missing += [name for name in others if states[name] in ("down", "failed")]
    response = json_response(added_up(own))
    if missing:
        response.headers[MISSING_HEADER] = ",".join(sorted(missing))
    return response


def added_up(rows: list[UsageDocument]) -> list[UsageDocument]:
    """Add up the rows of the same day, account, user and job."""
    sums: dict[tuple[str, str, str, int], UsageDocument] = {}
    for row in rows:
        key = (row.day, row.account, row.user, row.job or 0)
        old = sums.get(key)
        if old is None:
            sums[key] = row
        else:
            counts = {field: getattr(old, field) + getattr(row, field) for field in _COUNTERS}
            sums[key] = msgspec.structs.replace(old, **counts)
    return [sums[key] for key in sorted(sums)]


def _of_days(exchange: Exchange, first: int, last: int) -> list[UsageDocument]:
    return [
        UsageDocument(
            day=(EPOCH + timedelta(days=row.day)).isoformat(),
            account=row.account,
            user=row.user,
            **msgspec.structs.asdict(row.used),
        )
        for row in exchange.services.jobs.usage()
        if first <= row.day <= last and _may_see(exchange, row.user)
    ]


def _of_jobs(exchange: Exchange) -> list[UsageDocument]:
    return [
        UsageDocument(
            account=row.account, user=row.user, job=row.job, name=row.name, **msgspec.structs.asdict(row.used)
        )
        for row in exchange.services.jobs.usage_of_jobs()
        if _may_see(exchange, row.user)
    ]


def _may_see(exchange: Exchange, user: str) -> bool:
    return exchange.principal.operator or exchange.principal.name == user


def _day(exchange: Exchange, name: str, days_ago: int) -> int:
    text = exchange.request.query_params.get(name)
    if text is None:
        return (datetime.now(UTC).date() - EPOCH).days - days_ago
    try:
        return (date.fromisoformat(text) - EPOCH).days
    except ValueError:
        raise InvalidValue(name, text, "expected a day such as 2027-01-31") from None
