"""/v1/keys: administrators alone, ids alone, and orders whose refusals repeat nothing that may be a key."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import httpx
import pytest

from cluster import KeyRing
from node.api import build
from node.errors import KeysNotSettled
from node.key_exchange import KeyTable, NodeKeys

NEW = bytes([7]) * 32
TEXT = base64.b64encode(NEW).decode()


class FakeKeys:
    """Takes orders down; a test says what comes of them."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, Any]] = []
        self.fail_with: Exception | None = None

    async def table(self) -> KeyTable:
        return KeyTable(3, (NodeKeys("n1", ("3fa9", "77c0")), NodeKeys("n2", (), "no answer")), ("n2",))

    async def add(self, key: bytes | None) -> tuple[str, KeyTable]:
        return "3fa9", await self._ordered("add", key)

    async def use(self, key_id: str) -> KeyTable:
        return await self._ordered("use", key_id)

    async def remove(self, key_id: str) -> KeyTable:
        return await self._ordered("remove", key_id)

    async def _ordered(self, order: str, value: Any) -> KeyTable:
        self.orders.append((order, value))
        if self.fail_with:
            raise self.fail_with
        return await self.table()


@pytest.fixture
def keys(cluster: Any) -> FakeKeys:
    """The fake keys of n1, whose API is built anew with them."""
    node, fake = cluster["n1"], FakeKeys()
    node.peers._methods.clear()
    node.services = replace(node.services, keys=fake)
    node.app = build(node.services)
    node.states |= {"n1": "alive", "n2": "alive", "n3": "down", "n4": "left"}
    return fake


async def ask(cluster: Any, method: str, body: str | None = None, role: str = "admin") -> httpx.Response:
    async with cluster["n1"].client("root", role) as client:
        answer: httpx.Response = await client.request(method, "/v1/keys", content=body)
        return answer


async def test_the_table_has_every_node_and_says_why_one_is_silent(cluster: Any, keys: FakeKeys) -> None:
    document = (await ask(cluster, "GET")).json()
    assert document["version"] == 3
    assert document["lacking"] == ["n2"]
    assert document["nodes"] == [
        {"name": "n1", "seals": "3fa9", "ids": ["3fa9", "77c0"], "why": ""},
        {"name": "n2", "seals": None, "ids": [], "why": "no answer"},
        {"name": "n3", "seals": None, "ids": [], "why": "not asked: it is down"},
    ]


async def test_each_order_is_carried_out(cluster: Any, keys: FakeKeys) -> None:
    for order in ('{"add": "new"}', f'{{"add": "{TEXT}"}}', '{"use": "3fa9"}', '{"remove": "3fa9"}'):
        assert (await ask(cluster, "POST", order)).json()["id"] == "3fa9"
    assert keys.orders == [("add", None), ("add", NEW), ("use", "3fa9"), ("remove", "3fa9")]


async def test_users_neither_see_nor_change_keys(cluster: Any, keys: FakeKeys) -> None:
    for method, body in (("GET", None), ("POST", '{"add": "new"}')):
        assert (await ask(cluster, method, body, role="user")).status_code == 403
    assert keys.orders == []


@pytest.mark.parametrize(
    "body",
    ["", "x", "[]", "{}", f'{{"ad": "{TEXT}"}}', f'{{"use": "{TEXT}"}}', f'{{"add": ["{TEXT}"]}}',
     f'{{"add": "{TEXT}x"}}', f'{{"add": "{TEXT}", "use": "3fa9"}}', f'"{TEXT}"', '{"use": "3FA9"}'],
)  # fmt: skip
async def test_what_is_no_order_is_refused_without_repeating_it(cluster: Any, keys: FakeKeys, body: str) -> None:
    answer = await ask(cluster, "POST", body)
    assert answer.status_code == 400
    assert TEXT not in answer.text
    assert keys.orders == []


async def test_a_key_itself_comes_from_near_only(cluster: Any, keys: FakeKeys) -> None:
    transport = httpx.ASGITransport(app=cluster["n1"].app, client=("192.0.2.1", 1))
    async with cluster["n1"].client("root", "admin") as near:
        headers = near.headers
    async with httpx.AsyncClient(transport=transport, base_url="http://n", headers=headers) as client:
        assert (await client.post("/v1/keys", content=f'{{"add": "{TEXT}"}}')).status_code == 403
        assert (await client.post("/v1/keys", content='{"add": "new"}')).status_code == 200


async def test_nodes_that_lack_the_key_make_a_conflict_that_names_them(cluster: Any, keys: FakeKeys) -> None:
    keys.fail_with = KeysNotSettled("key 3fa9 is not used yet, because these nodes may not have it: n2")
    answer = await ask(cluster, "POST", '{"use": "3fa9"}')
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("keys-not-settled")
    assert "n2" in answer.json()["detail"]


async def test_a_node_without_a_key_has_none_to_show(cluster: Any) -> None:
    assert (await ask(cluster, "GET")).status_code == 404


async def test_a_remembered_token_ends_at_once_with_its_key(cluster: Any) -> None:
    ring: KeyRing = cluster["n1"].services.gate._ring
    async with cluster["n1"].client() as client:
        assert (await client.get("/v1/version")).status_code == 200
        ring.replace(NEW, *ring.keys)
        assert (await client.get("/v1/version")).status_code == 200
        ring.replace(NEW)
        assert (await client.get("/v1/version")).status_code == 401
