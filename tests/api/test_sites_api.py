"""/v1/sites: users have their own, front ends make those of all, and nobody sees a stranger's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest

from node.api import build
from node.door.wish import Wish
from node.errors import Busy, NotNow, UnknownSite
from scheduler.sites.site import Site, SitePhase, SiteView

WISH = {"backend": "b:u:ana:1", "user": "ana", "application": "demo;port=8080", "domains": ["ana.br"]}
AWAKE = {"address": "10.77.1.5", "port": 8080, "node": "n2"}


class FakeSites:
    """Sites in a dictionary; they are awake at once."""

    def __init__(self) -> None:
        self.sites: dict[str, SiteView] = {}
        self.did: list[tuple[str, str, float]] = []
        self.fail_with: Exception | None = None

    async def want(self, site: Site, wait_s: float) -> SiteView:
        if self.fail_with is not None:
            raise self.fail_with
        self.did.append(("want", site.key, wait_s))
        view = SiteView(site.key, site.owner, SitePhase.AWAKE, "n1", site.hosts, site.application, **AWAKE)  # type: ignore[arg-type]
        self.sites[site.key] = view
        return view

    async def all_of(self, owner: str) -> tuple[list[SiteView], list[str]]:
        return [view for view in self.sites.values() if owner in ("", view.owner)], ["n9"]

    async def show(self, key: str) -> SiteView:
        if key not in self.sites:
            raise UnknownSite(f"no site {key}")
        return self.sites[key]

    async def wake(self, key: str, wait_s: float) -> SiteView:
        return await self._did("wake", key, wait_s)

    async def sleep(self, key: str) -> SiteView:
        return await self._did("sleep", key, 0.0)

    async def drop(self, key: str) -> SiteView:
        view = await self._did("drop", key, 0.0)
        del self.sites[key]
        return view

    async def busy(self, key: str, for_s: float) -> SiteView:
        return await self._did("busy", key, for_s)

    async def _did(self, what: str, key: str, value: float) -> SiteView:
        if self.fail_with is not None:
            raise self.fail_with
        self.did.append((what, key, value))
        return self.sites[key]


@pytest.fixture
def sites(cluster: Any) -> FakeSites:
    node, fake = cluster["n1"], FakeSites()
    node.app = build(replace(node.services, peers=_Deaf(), sites=fake))
    return fake


class _Deaf:
    """Peers that are asked nothing: the application is built a second time over the same node."""

    def register(self, method: str, handler: object) -> None:
        pass


async def test_a_wish_makes_a_site_and_the_same_again_is_the_same(cluster: Any, sites: FakeSites) -> None:
    async with cluster["n1"].client("ana") as client:
        first = await client.post("/v1/sites", json=WISH, params={"wait_s": 5})
        second = await client.post("/v1/sites", json=WISH)
        assert (first.status_code, second.status_code) == (201, 200)
        assert first.json() == second.json()
        assert first.json() | AWAKE == first.json()
        assert first.json()["hosts"] == ["ana.br"]
        assert sites.did == [("want", "b:u:ana:1", 5.0), ("want", "b:u:ana:1", 0.0)]
        listed = await client.get("/v1/sites")
        assert [each["key"] for each in listed.json()] == ["b:u:ana:1"]
        assert listed.headers["x-fofoca-missing"] == "n9"


async def test_nobody_makes_or_sees_a_strangers_site_but_operators_and_front_ends(
    cluster: Any, sites: FakeSites
) -> None:
    async with cluster["n1"].client("ana") as ana, cluster["n1"].client("bo") as bo:
        await ana.post("/v1/sites", json=WISH)
        assert (await bo.post("/v1/sites", json=WISH)).status_code == 403
        assert (await bo.get("/v1/sites")).json() == []
        assert (await bo.get("/v1/sites", params={"owner": "ana"})).json() == []
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/wake"), ("POST", "/sleep")):
            answer = await bo.request(method, f"/v1/sites/b:u:ana:1{path}")
            nothing = await bo.request(method, f"/v1/sites/b:u:nobody:1{path}")
            assert (answer.status_code, nothing.status_code) == (404, 404)
            assert answer.json()["detail"].replace("ana", "nobody") == nothing.json()["detail"]
    async with cluster["n1"].client("web", "door") as door, cluster["n1"].client("op", "operator") as operator:
        assert (await door.post("/v1/sites", json=WISH)).status_code == 200
        assert (await door.get("/v1/sites/b:u:ana:1")).status_code == 200
        assert (await door.delete("/v1/sites/b:u:ana:1")).status_code == 403
        assert (await door.get("/v1/jobs")).status_code == 403
        assert (await operator.post("/v1/sites/b:u:ana:1/sleep")).status_code == 200


async def test_an_owner_steers_a_site(cluster: Any, sites: FakeSites) -> None:
    async with cluster["n1"].client("ana") as client:
        await client.post("/v1/sites", json=WISH)
        await client.post("/v1/sites/b:u:ana:1/wake?wait_s=3")
        await client.post("/v1/sites/b:u:ana:1/sleep")
        await client.post("/v1/sites/b:u:ana:1/busy", json={"for_s": 600})
        await client.delete("/v1/sites/b:u:ana:1")
        assert [did[0::2] for did in sites.did[1:]] == [("wake", 3.0), ("sleep", 0.0), ("busy", 600.0), ("drop", 0.0)]
        assert (await client.get("/v1/sites/b:u:ana:1")).status_code == 404


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"backend": "b:u:bo:1"}, "backend"),
        ({"memory_mib": 1}, "memory_mib"),
        ({"domains": ["a b"]}, "domains"),
        ({"home": "../../etc"}, "home"),
        ({"frozen_minutes": -1}, "frozen_minutes"),
        ({"application": "demo;port=x"}, "application"),
        ({"wheels": 4}, "wheels"),
    ],
)
async def test_what_is_wrong_with_a_wish_is_named(cluster: Any, sites: FakeSites, change: Any, field: str) -> None:
    async with cluster["n1"].client("ana") as client:
        answer = await client.post("/v1/sites", json={**WISH, **change})
        assert (answer.status_code, answer.json()["field"]) == (400, field)
        assert field != "wheels" or set(Wish.__struct_fields__) <= set(answer.json()["expected"][7:].split(", "))
        for bad in ({"for_s": 0}, {"for_s": "x"}, {}, {"for_s": 1e9}):
            assert (await client.post("/v1/sites/b:u:ana:1/busy", json=bad)).status_code in (400, 404)
        assert not sites.did


async def test_refusals_have_their_status(cluster: Any, sites: FakeSites) -> None:
    async with cluster["n1"].client("ana") as client:
        await client.post("/v1/sites", json=WISH)
        sites.fail_with = Busy("ana has 100 sites")
        answer = await client.post("/v1/sites", json=WISH)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        sites.fail_with = NotNow("it is always on")
        assert (await client.post("/v1/sites/b:u:ana:1/sleep")).json()["type"] == "urn:fofoca:problem:not-possible"
        assert (await client.get("/v1/applications")).json()[0]["name"] == "demo"


async def test_a_node_without_sites_says_so(cluster: Any) -> None:
    async with cluster["n1"].client("ana") as client:
        answer: httpx.Response = await client.get("/v1/sites")
        assert answer.status_code == 404
