"""The line of waiting jobs, as the queue leader keeps it, and what would become of a job that is not submitted."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from node.api import render
from node.api.exchange import Exchange, json_response
from node.api.forward import at_leader
from node.api.schemas import body_field
from node.errors import InvalidValue
from scheduler.errors import InvalidSpec
from scheduler.model import JobSpec
from scheduler.views import WaitingView

SHOWN_MAX = 10_000


async def show(exchange: Exchange) -> Response:
    """GET /v1/queue: the line, or the caller's jobs in it, from whichever node leads."""
    count = exchange.integer("count", 1_000, 0, SHOWN_MAX)

    def answer() -> Response:
        principal = exchange.principal
        line = exchange.services.jobs.queue()
        mine = [each for each in line if principal.operator or each.owner == principal.name]
        shown = [_row(each) for each in mine[:count]]
        return json_response({"leader": exchange.services.node, "waiting": len(line), "jobs": shown})

    return await at_leader(exchange, answer)


def _row(each: WaitingView) -> dict[str, object]:
    position = each.position + 1 if each.position >= 0 else None
    start_in_s = None if each.start_in_s is None else round(each.start_in_s, 3)
    told = {"position": position, "waiting_s": round(each.waiting_s, 3), "start_in_s": start_in_s}
    return {**msgspec.structs.asdict(each), **told}


async def forecast(exchange: Exchange, work: JobSpec | list[JobSpec]) -> Response:
    """POST /v1/jobs?test_only=1: nothing is submitted."""
    if not isinstance(work, JobSpec):
        raise InvalidValue("test_only", "a list", "expected one job")
    try:
        found = await exchange.services.jobs.forecast(exchange.principal.name, work)
    except InvalidSpec as error:
        raise InvalidValue(body_field(error.field), error.value, error.expected) from None
    return json_response(
        {
            "places": found.places,
            "start_in_s": found.start_in_s,
            "waiting": found.waiting,
            "summary": found.why.summary,
            "reasons": render.reasons(found.why),
        }
    )
