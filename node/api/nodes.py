"""Nodes: the version of this one, the cluster's nodes and members, and whether this one takes tasks."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from node.api import render
from node.api.exchange import Exchange, json_response
from node.api.forward import JOB_ID_MAX, at_node
from node.api.schemas import decode
from node.errors import InvalidValue
from node.tokens import check_user_name
from scheduler.ended import TASKS_PER_PAGE_MAX, EndedPage
from scheduler.snapshot import JOBS_PER_PAGE_MAX

DEADLINE_MAX_S = 366 * 86_400.0


class AcceptingBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/node/accepting."""

    accepting: bool


_decode_accepting = msgspec.json.Decoder(AcceptingBody).decode


async def version(exchange: Exchange) -> Response:
    """GET /v1/version: which node answers, and whom it takes the caller for."""
    services, principal = exchange.services, exchange.principal
    return json_response(
        {
            "version": services.version,
            "node": services.node,
            "cluster": services.cluster,
            "user": principal.name,
            "role": principal.role,
        }
    )


async def list_nodes(exchange: Exchange) -> Response:
    """GET /v1/nodes: every node this one has heard of, with its resources by its newest report."""
    return json_response(render.nodes(exchange.services))


async def members(exchange: Exchange) -> Response:
    """GET /v1/members: gossip's own view."""
    return json_response(exchange.services.members())


async def cordon(exchange: Exchange) -> Response:
    """POST /v1/nodes/NAME/cordon: have it take nothing new."""
    return await _accept(exchange, False)


async def uncordon(exchange: Exchange) -> Response:
    """POST /v1/nodes/NAME/uncordon: have it take tasks again; ends a drain too."""
    return await _accept(exchange, True)


async def drain(exchange: Exchange) -> Response:
    """POST /v1/nodes/NAME/drain: have it take nothing new, and send away what it has."""
    exchange.require_operator("drain a node")
    deadline_s = exchange.seconds("deadline_s", DEADLINE_MAX_S)

    async def answer() -> Response:
        await exchange.services.jobs.drain(deadline_s)
        return json_response({"node": exchange.services.node, "accepting": False, "draining": True}, 202)

    return await at_node(exchange, answer)


async def snapshot(exchange: Exchange) -> Response:
    """GET /v1/nodes/NAME/snapshot: a page of its unfinished jobs and of what it holds, for those who plan."""
    exchange.require_operator("copy what a node knows")
    after = exchange.integer("after", 0, 0, JOB_ID_MAX)
    count = exchange.integer("count", JOBS_PER_PAGE_MAX, 1, JOBS_PER_PAGE_MAX)

    async def answer() -> Response:
        return json_response(exchange.services.jobs.snapshot(after, count))

    return await at_node(exchange, answer)


async def history(exchange: Exchange) -> Response:
    """GET /v1/nodes/NAME/history: a page of its ended tasks; users get their own."""
    after = _position(exchange.text("after", "0.0"))
    count = exchange.integer("count", TASKS_PER_PAGE_MAX, 1, TASKS_PER_PAGE_MAX)
    owner = exchange.request.query_params.get("owner")
    if owner is not None:
        check_user_name(owner)
    mine = None if exchange.principal.operator else exchange.principal.name

    async def answer() -> Response:
        if mine is not None and owner not in (None, mine):
            return json_response(EndedPage(exchange.services.node, (), None))
        return json_response(exchange.services.jobs.ended_tasks(mine or owner, after, count))

    return await at_node(exchange, answer)


def _position(text: str) -> tuple[int, int]:
    job, _, index = text.partition(".")
    if not (text.isascii() and job.isdigit() and index.isdigit() and len(text) <= 32):
        raise InvalidValue("after", text, "expected JOB.INDEX, such as 12001.0")
    return int(job), int(index)


async def _accept(exchange: Exchange, accepting: bool) -> Response:
    exchange.require_operator("cordon a node")

    async def answer() -> Response:
        await exchange.services.jobs.set_accepting(accepting)
        return json_response({"node": exchange.services.node, "accepting": accepting, "draining": False}, 202)

    return await at_node(exchange, answer)


async def accepting(exchange: Exchange) -> Response:
    """POST /v1/node/accepting: let this node take new tasks, or not."""
    exchange.require_operator("cordon a node")
    body: AcceptingBody = decode(_decode_accepting, await exchange.body(1_024))
    await exchange.services.jobs.set_accepting(body.accepting)
    return json_response({"node": exchange.services.node, "accepting": body.accepting})
