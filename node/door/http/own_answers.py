"""What the door says by itself: problems (RFC 9457), the waiting page for browsers, addresses for front ends."""

from __future__ import annotations

import html
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple

import msgspec

from node.door.http.fields import connection_line
from node.door.http.head import Request
from node.door.http.refusals import Refused
from scheduler.sites.site import SiteView

TYPE_PREFIX = "urn:fofoca:problem:"
REFRESH_S_MAX = 30
WAITING_KINDS = ("starting", "failing", "broken", "no-room")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="{refresh}">
<meta name="viewport" content="width=device-width"><meta name="robots" content="noindex"><title>{title}</title>
<style>
body {{ font: 1.1em/1.5 system-ui, sans-serif; color: #333; background: #fafafa; margin: 20vh auto; max-width: 32em;
  padding: 0 1em; text-align: center }}
i {{ display: inline-block; width: 2em; height: 2em; border: .2em solid #ccc; border-top-color: #393;
  border-radius: 50%; animation: turn 1s linear infinite }}
small {{ color: #777; overflow-wrap: anywhere }}
@keyframes turn {{ to {{ transform: rotate(1turn) }} }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ddd; background: #222 }} }}
</style></head>
<body>{sign}<h1>{title}</h1><p>{line}</p><p><small>{reason}</small></p></body></html>
"""


class OwnAnswer(NamedTuple):
    """An answer with a whole body."""

    status: int
    lines: list[str]
    body: bytes

    def encode(self, request: Request | None, keep: bool) -> bytes:
        """Return head and body as they are sent."""
        head = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            f"Date: {formatdate(usegmt=True)}",
            *self.lines,
            f"Content-Length: {len(self.body)}",
            "Cache-Control: no-store",
            connection_line(request, keep),
        ]
        bodiless = request is not None and request.method == "HEAD"
        return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + (b"" if bodiless else self.body)


def of_refusal(refusal: Refused, request: Request | None) -> OwnAnswer:
    """Return the answer for a refusal: a page where a browser waits for its site, else a problem document."""
    retry = [f"Retry-After: {refusal.retry_after}"] if refusal.retry_after else []
    if request is not None and refusal.kind in WAITING_KINDS and from_browser(request):
        return _page(refusal, request, retry)
    document = {
        "type": TYPE_PREFIX + refusal.kind,
        "title": refusal.title,
        "status": refusal.status,
        "detail": refusal.detail,
    }
    if refusal.field:
        document |= {"field": refusal.field, "expected": refusal.expected}
    return OwnAnswer(refusal.status, ["Content-Type: application/problem+json", *retry], msgspec.json.encode(document))


def of_address(view: SiteView, cold_ms: float | None) -> OwnAnswer:
    """Return where a front end that proxies by itself finds the site."""
    document = {
        "site": view.key,
        "application": view.application,
        "address": view.address,
        "port": view.port,
        "node": view.node,
        "cold_start": cold_ms is not None,
        "start_ms": round(cold_ms or 0.0),
    }
    lines = ["Content-Type: application/json", f"X-Backend-Address: {host_and_port(view)}", *marks(cold_ms)]
    return OwnAnswer(200, lines, msgspec.json.encode(document))


def host_and_port(view: SiteView) -> str:
    """Return a site's address as URLs have it."""
    return f"[{view.address}]:{view.port}" if ":" in view.address else f"{view.address}:{view.port}"


def marks(cold_ms: float | None) -> list[str]:
    """Return the fields that tell of a cold start, and how long the request waited for it (None: it was none)."""
    return [] if cold_ms is None else ["X-Fofoca-Cold-Start: 1", f"X-Fofoca-Start-Ms: {round(cold_ms)}"]


def from_browser(request: Request) -> bool:
    """Whether a person looks at the answer, to whom a page says more than a problem document."""
    return request.method == "GET" and "text/html" in request.fields.get("accept").lower()


def _page(refusal: Refused, request: Request, retry: list[str]) -> OwnAnswer:
    starting = refusal.kind == "starting"
    refresh = min(REFRESH_S_MAX, int(refusal.retry_after or 5))
    text = _PAGE.format(
        refresh=refresh,
        sign="<i></i>" if starting else "",
        title="Starting" if starting else "Not available now",
        line=f"{html.escape(request.host)} {'is being started' if starting else 'does not start'}. "
        f"This page asks again in {refresh} s.",
        reason=html.escape(refusal.detail),
    )
    lines = [
        "Content-Type: text/html; charset=utf-8",
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'",
        *retry,
    ]
    return OwnAnswer(refusal.status, lines, text.encode())
