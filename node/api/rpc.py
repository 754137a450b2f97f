"""The door between nodes: one path that takes sealed calls. The seal says who calls, so there are no tokens here."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from node.api import problems
from node.api.exchange import FORWARDED, read_body
from node.api.services import Services
from node.client import TICKET_HEADER
from node.errors import NotFound

MEDIA_TYPE = "application/octet-stream"


class RpcDoor:
    """The ASGI application of POST /internal/v1/rpc."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a call."""
        try:
            response = await self._answer(Request(scope, receive))
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 (from_error logs what it can't name)
            response = problems.from_error(error)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method != "POST":
            raise problems.MethodNotAllowed(request.method[:20], ["POST"])
        if FORWARDED in request.scope:
            raise NotFound("calls are not forwarded")
        self._services.gate.check_node(request.headers)
        bytes_max = self._services.peers.body_bytes_max(request.headers.get(TICKET_HEADER))
        body = await read_body(request, bytes_max, self._services.bounds.stall_timeout_s)
        status, answer = await self._services.peers.handle(body)
        if status != 200:
            return problems.problem(status, "bad-seal", "Not of this cluster", "the call's seal was refused")
        return Response(answer, media_type=MEDIA_TYPE)
