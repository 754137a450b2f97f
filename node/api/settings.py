"""The cluster's settings: anyone may read them, operators change them, on any node."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from node.api.exchange import Exchange, json_response
from node.api.schemas import decode
from node.api.syntax import format_constraint, parse_constraint
from node.errors import InvalidValue, NotFound
from scheduler.settings import KINDS, AnySetting, Partition

BODY_BYTES_MAX = 64 << 10

_decode_any = msgspec.json.Decoder(dict[str, Any]).decode


async def show(exchange: Exchange) -> Response:
    """GET /v1/settings: all of them."""
    return json_response([document(name, value) for name, value in exchange.services.jobs.settings()])


async def put(exchange: Exchange) -> Response:
    """PUT /v1/settings/KIND/NAME: set one as a whole."""
    exchange.require_operator("change the cluster's settings")
    kind, name = exchange.path("kind"), exchange.path("name")
    if kind not in KINDS:
        raise InvalidValue("kind", kind, f"expected one of {', '.join(KINDS)}")
    body = decode(_decode_any, await exchange.body(BODY_BYTES_MAX))
    value = setting(kind, body)
    await exchange.services.jobs.set_setting(f"{kind}/{name}", value)
    return json_response(document(f"{kind}/{name}", value))


async def remove(exchange: Exchange) -> Response:
    """DELETE /v1/settings/KIND/NAME."""
    exchange.require_operator("change the cluster's settings")
    name = f"{exchange.path('kind')}/{exchange.path('name')}"
    if name not in dict(exchange.services.jobs.settings()):
        raise NotFound(f"{name} is not set")
    await exchange.services.jobs.set_setting(name, None)
    return json_response({"kind": exchange.path("kind"), "name": exchange.path("name")}, 202)


def setting(kind: str, body: dict[str, Any]) -> AnySetting:
    """Return a setting from its fields; InvalidValue names the one that is wrong."""
    known = KINDS[kind].__struct_fields__
    unknown = next((field for field in body if field not in known), None)
    if unknown is not None:
        raise InvalidValue(unknown, body[unknown], f"known: {', '.join(known)}")
    if "constraints" in body:
        body = body | {"constraints": [parse_constraint(str(each)) for each in body["constraints"]]}
    try:
        value: AnySetting = msgspec.convert(body | {"type": kind}, KINDS[kind])  # type: ignore[assignment]
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$.")
        field = path.rstrip("`") or text.partition("field `")[2].rstrip("`") or kind
        raise InvalidValue(field, body.get(field), text[:1].lower() + text[1:]) from None
    return value


def document(name: str, value: AnySetting) -> dict[str, Any]:
    """Return a setting as users see it: all its fields, constraints as they are written."""
    kind, _, own = name.partition("/")
    fields = {field: getattr(value, field) for field in value.__struct_fields__}
    if isinstance(value, Partition):
        fields["constraints"] = [format_constraint(each) for each in value.constraints]
    return {"kind": kind, "name": own, **fields}
