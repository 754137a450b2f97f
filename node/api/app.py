"""The routes of a node's HTTP API, as one ASGI application, and the calls it answers for other nodes."""

from __future__ import annotations

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from node import console
from node.api import (
    amend,
    forward,
    images,
    inside,
    jobs,
    keys,
    nodes,
    problems,
    queue,
    rpc,
    settings,
    sites,
    task_logs,
    usage,
)
from node.api.exchange import Handler, Resource
from node.api.services import Services

RPC_PATH = "/internal/v1/rpc"

ROUTES: dict[str, dict[str, Handler]] = {
    "/v1/jobs": {"GET": jobs.list_jobs, "POST": jobs.submit},
    "/v1/jobs/{id}": {"GET": jobs.show, "PATCH": amend.amend, "DELETE": jobs.cancel},
    "/v1/jobs/{id}/logs": {"GET": task_logs.show},
    "/v1/jobs/{id}/hold": {"POST": jobs.hold},
    "/v1/jobs/{id}/release": {"POST": jobs.release},
    "/v1/jobs/{id}/requeue": {"POST": jobs.requeue},
    "/v1/jobs/{id}/explain": {"GET": jobs.explain},
    "/v1/jobs/{id}/exec": {"POST": inside.execute},
    "/v1/jobs/{id}/freeze": {"POST": inside.freeze},
    "/v1/jobs/{id}/thaw": {"POST": inside.thaw},
    "/v1/sessions/{session}": {"POST": inside.control, "DELETE": inside.close},
    "/v1/sessions/{session}/input": {"POST": inside.write},
    "/v1/sessions/{session}/output": {"GET": inside.read},
    "/v1/nodes": {"GET": nodes.list_nodes},
    "/v1/nodes/{name}/cordon": {"POST": nodes.cordon},
    "/v1/nodes/{name}/uncordon": {"POST": nodes.uncordon},
    "/v1/nodes/{name}/drain": {"POST": nodes.drain},
    "/v1/nodes/{name}/history": {"GET": nodes.history},
    "/v1/nodes/{name}/snapshot": {"GET": nodes.snapshot},
    "/v1/queue": {"GET": queue.show},
    "/v1/usage": {"GET": usage.show},
    "/v1/settings": {"GET": settings.show},
    "/v1/settings/{kind}/{name}": {"PUT": settings.put, "DELETE": settings.remove},
    "/v1/members": {"GET": nodes.members},
    "/v1/node/accepting": {"POST": nodes.accepting},
    "/v1/images": {"GET": images.list_images, "DELETE": images.prune},
    "/v1/images/{reference:path}/export": {"GET": images.export},
    "/v1/images/{reference:path}/build": {"POST": images.build},
    "/v1/images/{reference:path}": {"GET": images.show, "PUT": images.put, "DELETE": images.remove},
    "/v1/sites": {"GET": sites.list_sites, "POST": sites.want},
    "/v1/sites/{key}": {"GET": sites.show, "DELETE": sites.remove},
    "/v1/sites/{key}/wake": {"POST": sites.wake},
    "/v1/sites/{key}/sleep": {"POST": sites.sleep},
    "/v1/sites/{key}/busy": {"POST": sites.busy},
    "/v1/applications": {"GET": sites.applications},
    "/v1/keys": {"GET": keys.show, "POST": keys.change},
    "/v1/version": {"GET": nodes.version},
}


DOORS = frozenset({"/v1/sites", "/v1/sites/{key}", "/v1/sites/{key}/wake", "/v1/applications"})
"""What tokens of role door open."""


def build(services: Services) -> ASGIApp:
    """Return the application, and register its calls (`http`, `http.wait`, `log.read`) with the peers."""
    routes = [Route(RPC_PATH, rpc.RpcDoor(services))]
    routes += [Route(path, Resource(services, handlers, door=path in DOORS)) for path, handlers in ROUTES.items()]
    routes += console.routes()
    app = Router(routes, redirect_slashes=False, default=_nothing_here)
    for method in (forward.METHOD, forward.WAITING_METHOD):
        services.peers.register(method, forward.receiver(app))
    services.peers.register(task_logs.METHOD, task_logs.receiver(services.logs))
    if services.inside is not None:
        inside.register(services, services.inside)
    return app


async def _nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    answer = WebSocketClose() if scope["type"] == "websocket" else problems.not_found(scope["path"])
    await answer(scope, receive, send)
