"""Jobs: submit, list, show, cancel, explain. The receiving node is a new job's home; an old job's home is asked.

A foreign user's job looks like one that does not exist: its number tells nobody anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import msgspec
from starlette.responses import Response

from node.api import queue, render
from node.api.documents import JobSummaryDocument
from node.api.exchange import Exchange, json_response
from node.api.forward import at_home, to_all
from node.api.schemas import body_field, read_submission
from node.errors import InvalidValue
from node.tokens import check_user_name
from scheduler.errors import InvalidSpec, UnknownJob
from scheduler.model import MAX_TASKS_PER_JOB, JobSpec
from scheduler.views import JobView

MISSING_HEADER = "x-fofoca-missing"
REACHABLE_STATES = ("alive", "suspect")
TASKS_SHOWN_MAX = 10_000
KEY_LENGTH_MAX = 200

_decode_summaries = msgspec.json.Decoder(list[JobSummaryDocument]).decode


async def submit(exchange: Exchange) -> Response:
    """POST /v1/jobs: one job or a list of them; all of a list are taken, or none."""
    work = read_submission(await exchange.body(exchange.services.bounds.body_bytes_max))
    services, owner, key = exchange.services, exchange.principal.name, idempotency_key(exchange)
    if exchange.text("test_only", "0", ("0", "1")) == "1":
        return await queue.forecast(exchange, work)
    try:
        if isinstance(work, JobSpec):
            return json_response({"id": await services.jobs.submit(owner, work, key), "home": services.node}, 201)
        return json_response({"ids": await services.jobs.submit_all(owner, work, key), "home": services.node}, 201)
    except InvalidSpec as error:
        raise InvalidValue(body_field(error.field), error.value, error.expected) from None


def idempotency_key(exchange: Exchange) -> str:
    """Return the client's own name for its submission, "" if it gave none."""
    key = exchange.request.headers.get("idempotency-key", "")
    if len(key) > KEY_LENGTH_MAX or not (key.isascii() and key.isprintable()):
        raise InvalidValue("Idempotency-Key", key, f"expected at most {KEY_LENGTH_MAX} printable characters")
    return key


async def list_jobs(exchange: Exchange) -> Response:
    """GET /v1/jobs: of all homes that answer in time; the others are named in a header."""
    owner = exchange.request.query_params.get("owner")
    if owner is not None:
        check_user_name(owner)
    if not exchange.principal.operator:
        if owner not in (None, exchange.principal.name):
            return json_response([])
        owner = exchange.principal.name
    services = exchange.services
    own = [render.summary(job) for job in services.jobs.jobs(owner)]
    if exchange.forwarded:
        return json_response(own)
    others = {name: state for name, state in render.states(services).items() if name != services.node}
    reachable = [name for name, state in others.items() if state in REACHABLE_STATES]
    answers, missing = await to_all(exchange, reachable)
    for answer in answers.values():
        own += _decode_summaries(answer.body)
    missing += [name for name, state in others.items() if state in ("down", "failed")]
    response = json_response(sorted(own, key=lambda job: (job.submitted_unix_s, job.id)))
    if missing:
        response.headers[MISSING_HEADER] = ",".join(sorted(missing))
    return response


async def show(exchange: Exchange) -> Response:
    """GET /v1/jobs/ID: a job with its tasks; with wait_s, once it is final or the time is over."""
    wait_s = exchange.wait_s()
    first = exchange.integer("first", 0, 0, MAX_TASKS_PER_JOB)
    count = exchange.integer("count", TASKS_SHOWN_MAX, 0, TASKS_SHOWN_MAX)

    async def answer(job_id: int) -> Response:
        jobs = exchange.services.jobs
        require_visible(exchange, job_id)
        if wait_s:
            with exchange.services.long_polls.by(exchange.principal.name):
                await jobs.wait(job_id, wait_s)
        return json_response(render.job(jobs.job(job_id, first, count)))

    return await at_home(exchange, answer, wait_s)


async def cancel(exchange: Exchange) -> Response:
    """DELETE /v1/jobs/ID: end what runs and what waits of a job."""

    async def answer(job_id: int) -> Response:
        require_visible(exchange, job_id)
        await exchange.services.jobs.cancel(job_id)
        return json_response({"id": job_id, "state": exchange.services.jobs.job(job_id, 0, 0).state}, 202)

    return await at_home(exchange, answer)


async def hold(exchange: Exchange) -> Response:
    """POST /v1/jobs/ID/hold: start nothing more of it."""
    return await _steer(exchange, lambda job_id, operator: exchange.services.jobs.hold(job_id, operator=operator))


async def release(exchange: Exchange) -> Response:
    """POST /v1/jobs/ID/release: undo a hold; an operator's is for operators to undo."""
    return await _steer(exchange, lambda job_id, operator: exchange.services.jobs.release(job_id, operator=operator))


async def requeue(exchange: Exchange) -> Response:
    """POST /v1/jobs/ID/requeue: stop what runs of it, and line it up again."""
    return await _steer(exchange, lambda job_id, _: exchange.services.jobs.requeue(job_id))


async def _steer(exchange: Exchange, act: Callable[[int, bool], Awaitable[None]]) -> Response:
    async def answer(job_id: int) -> Response:
        job = require_visible(exchange, job_id)
        await act(job_id, exchange.principal.operator and job.owner != exchange.principal.name)
        return json_response({"id": job_id, "state": exchange.services.jobs.job(job_id, 0, 0).state}, 202)

    return await at_home(exchange, answer)


async def explain(exchange: Exchange) -> Response:
    """GET /v1/jobs/ID/explain: why it waits, or where it runs and why there."""

    async def answer(job_id: int) -> Response:
        require_visible(exchange, job_id)
        return json_response(render.explanation(exchange.services.jobs.explain(job_id)))

    return await at_home(exchange, answer)


def require_visible(exchange: Exchange, job_id: int) -> JobView:
    """Return the job, without its tasks; UnknownJob unless it is here and the caller's to see."""
    with contextlib.suppress(UnknownJob):
        job = exchange.services.jobs.job(job_id, 0, 0)
        if job.owner == exchange.principal.name or exchange.principal.operator:
            return job
    # One text for both: a foreign job must look like none.
    raise UnknownJob(f"no job {job_id}")
