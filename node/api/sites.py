"""Sites: what the request door keeps awake, as documents; and the applications they may run.

Any node answers for all of them. A foreign user's site looks like one that does not exist. Tokens of role door may make
and see sites of every user, for that is what front ends are for, and touch nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from msgspec import structs
from starlette.responses import Response

from node.api.documents import ApplicationDocument, SiteDocument
from node.api.exchange import Exchange, json_response
from node.api.schemas import decode
from node.api.services import SiteService
from node.door.building import build
from node.door.wish import Busy, Wish, busy_s, check
from node.errors import NotFound, NotPermitted, UnknownSite
from node.tokens import Role, check_user_name
from scheduler.sites.site import SiteView

BODY_BYTES_MAX = 64 << 10
KEY_LENGTH_MAX = 64
MISSING_HEADER = "x-fofoca-missing"


_decode_wish = msgspec.json.Decoder(Wish).decode
_decode_busy = msgspec.json.Decoder(Busy).decode


async def want(exchange: Exchange) -> Response:
    """POST /v1/sites: make a site or change it, and wake it; with wait_s, once it is awake or the time is over."""
    wait_s, sites = exchange.wait_s(), _sites(exchange)
    wish = decode(_decode_wish, await exchange.body(BODY_BYTES_MAX), Wish)
    check(wish)
    if not _for_all(exchange) and wish.user != exchange.principal.name:
        raise NotPermitted(
            f"only operators and front ends make sites of others; yours are those of user {_me(exchange)}"
        )
    site = build(wish, exchange.services.applications)
    known = await _known(sites, wish.backend)
    with exchange.services.long_polls.by(_me(exchange)):
        return json_response(document(await sites.want(site, wait_s)), 200 if known else 201)


async def list_sites(exchange: Exchange) -> Response:
    """GET /v1/sites: of all keepers that answer in time; the others are named in a header."""
    owner = exchange.text("owner", "")
    if owner:
        check_user_name(owner)
    if not _for_all(exchange):
        if owner not in ("", _me(exchange)):
            return json_response([])
        owner = _me(exchange)
    views, missing = await _sites(exchange).all_of(owner)
    response = json_response([document(view) for view in views])
    if missing:
        response.headers[MISSING_HEADER] = ",".join(missing)
    return response


async def show(exchange: Exchange) -> Response:
    """GET /v1/sites/KEY."""
    return json_response(document(await _visible(exchange)))


async def remove(exchange: Exchange) -> Response:
    """DELETE /v1/sites/KEY: end its container and forget it."""
    return await _steer(exchange, lambda sites, key: sites.drop(key))


async def sleep(exchange: Exchange) -> Response:
    """POST /v1/sites/KEY/sleep: end its container now; the next request starts it again."""
    return await _steer(exchange, lambda sites, key: sites.sleep(key))


async def wake(exchange: Exchange) -> Response:
    """POST /v1/sites/KEY/wake: start or thaw its container; with wait_s, once it is awake or the time is over."""
    wait_s = exchange.wait_s()
    view = await _visible(exchange)
    with exchange.services.long_polls.by(_me(exchange)):
        return json_response(document(await _sites(exchange).wake(view.key, wait_s)))


async def busy(exchange: Exchange) -> Response:
    """POST /v1/sites/KEY/busy: count it as used for a while."""
    for_s = busy_s(decode(_decode_busy, await exchange.body(BODY_BYTES_MAX), Busy))
    return await _steer(exchange, lambda sites, key: sites.busy(key, for_s))


async def applications(exchange: Exchange) -> Response:
    """GET /v1/applications: what this node's catalogue has."""
    catalogue = exchange.services.applications
    return json_response(
        [
            ApplicationDocument(name=name, **{**structs.asdict(app), "port": str(app.port)})
            for name, app in ((name, catalogue.get(name)) for name in catalogue.names())
        ]
    )


def document(view: SiteView) -> SiteDocument:
    """Return a site as users see it."""
    return SiteDocument(
        key=view.key,
        owner=view.owner,
        phase=view.phase.value,
        hosts=list(view.hosts),
        application=view.application,
        keeper=view.keeper,
        job=view.job or None,
        node=view.node,
        address=view.address,
        port=view.port,
        weight=view.weight,
        reason=view.reason,
        retry_s=round(view.retry_s, 3),
        idle_for_s=round(view.idle_for_s, 3),
        open=view.open,
    )


async def _steer(exchange: Exchange, act: Callable[[SiteService, str], Awaitable[SiteView]]) -> Response:
    if exchange.principal.role is Role.DOOR:
        raise NotPermitted("tokens of role door make, see and wake sites, and no more")
    view = await _visible(exchange)
    return json_response(document(await act(_sites(exchange), view.key)))


async def _visible(exchange: Exchange) -> SiteView:
    """Return the site in the path; UnknownSite unless it is there and the caller's to see."""
    key = exchange.path("key")
    if len(key) <= KEY_LENGTH_MAX:
        view = await _known(_sites(exchange), key)
        if view is not None and (view.owner == _me(exchange) or _for_all(exchange)):
            return view
    # One text for both: a foreign site must look like none.
    raise UnknownSite(f"no site {key[:KEY_LENGTH_MAX]}")


async def _known(sites: SiteService, key: str) -> SiteView | None:
    try:
        return await sites.show(key)
    except UnknownSite:
        return None


def _sites(exchange: Exchange) -> SiteService:
    if exchange.services.sites is None:
        raise NotFound("this node has no sites")
    return exchange.services.sites


def _me(exchange: Exchange) -> str:
    return exchange.principal.name


def _for_all(exchange: Exchange) -> bool:
    return exchange.principal.operator or exchange.principal.role is Role.DOOR
