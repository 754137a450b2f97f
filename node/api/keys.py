"""The cluster's keys: which there are, by their ids, and orders to change them. No key ever leaves a node here."""

from __future__ import annotations

import ipaddress
import re

import msgspec
from starlette.responses import Response

from node.api.documents import KeysDocument, NodeKeysDocument
from node.api.exchange import Exchange, json_response
from node.api.services import KeyService
from node.errors import InvalidValue, NotFound, NotPermitted
from node.key_exchange import KeyTable
from node.keys import parse_key

NEW = "new"
KEY_ID = re.compile(r"[0-9a-f]{4}", re.ASCII)
BODY_BYTES_MAX = 1_024
ORDERS = '{"add": "new"}, {"add": BASE64}, {"use": ID} or {"remove": ID}'

_decode = msgspec.json.Decoder(dict[str, str]).decode


async def show(exchange: Exchange) -> Response:
    """GET /v1/keys."""
    return _answer(exchange, await _keys(exchange).table())


async def change(exchange: Exchange) -> Response:
    """POST /v1/keys: one order, carried out on all live nodes."""
    keys = _keys(exchange)
    order, value = _order(await exchange.body(BODY_BYTES_MAX))
    if order == "add":
        key_id, table = await keys.add(None if value == NEW else _key(exchange, value))
        return _answer(exchange, table, key_id)
    if KEY_ID.fullmatch(value) is None:
        raise InvalidValue(order, "(not shown)", "expected a key's id, four hex digits such as 3fa9")
    return _answer(exchange, await (keys.use if order == "use" else keys.remove)(value), value)


def _keys(exchange: Exchange) -> KeyService:
    exchange.require_admin("see and change the cluster's keys")
    if exchange.services.keys is None:
        raise NotFound("this node has no cluster key (cluster.key_file), so there is nothing to change")
    return exchange.services.keys


def _order(body: bytes) -> tuple[str, str]:
    """Return what is ordered, and of what. A refusal never repeats the body: it may hold a key."""
    try:
        orders = list(_decode(body).items())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        orders = []
    if len(orders) != 1 or orders[0][0] not in ("add", "use", "remove"):
        raise InvalidValue("body", "(not shown)", f"expected {ORDERS}")
    return orders[0]


def _key(exchange: Exchange, text: str) -> bytes:
    client = exchange.request.client
    if client is not None and client.host and not _is_loopback(client.host):
        raise NotPermitted('a key may come by the local socket or loopback alone; order {"add": "new"} from afar')
    try:
        return parse_key(text)
    except ValueError:
        raise InvalidValue("add", "(not shown)", f'expected "{NEW}" or 32 random bytes as base64') from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _answer(exchange: Exchange, table: KeyTable, key_id: str = "") -> Response:
    rows = [NodeKeysDocument(row.node, row.ids[0] if row.ids else None, row.ids, row.why) for row in table.nodes]
    named = {row.node for row in table.nodes}
    for member in exchange.services.members():
        name, state = str(member["name"]), str(member["state"])
        if name not in named and state != "left":
            rows.append(NodeKeysDocument(name, None, (), f"not asked: it is {state}"))
    return json_response(KeysDocument(key_id, table.version, sorted(rows, key=lambda row: row.name), table.lacking))
