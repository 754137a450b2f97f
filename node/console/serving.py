"""Serves the console's files: those of the folder `page`, read once, and nothing else.

Needs no token: the files are the same everywhere and say nothing of the cluster. What a page may do is said by its
Content-Security-Policy: load what this node serves, talk to this node, and nothing more; text can't become script
(W3C Trusted Types), which the page's code never needs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

PREFIX = "/console/"
INDEX = "index.html"
PAGE = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}
HEADERS = {
    "content-security-policy": "; ".join(f"{name} {value}" for name, value in POLICY.items()),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Asked anew each time, so that an upgraded node's page is never half old; a match costs no bytes.
    "cache-control": "no-cache",
}


@dataclass(frozen=True)
class _File:
    """One file as it is sent."""

    content: bytes
    media_type: str
    etag: str


def routes() -> list[Route]:
    """Return the routes of the console: `/` and `/console` lead to it."""
    files = _read(PAGE)

    def serve(request: Request) -> Response:
        # A name is looked up, never joined to a folder: there is no path that could lead elsewhere.
        found = files.get(request.path_params["name"] or INDEX)
        return Response("nothing here\n", 404, HEADERS, "text/plain") if found is None else _answer(request, found)

    return [
        Route("/", _to_console),
        Route(PREFIX.rstrip("/"), _to_console),
        Route(PREFIX + "{name:path}", serve),
    ]


def _read(folder: Path) -> dict[str, _File]:
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in TYPES:
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            files[path.relative_to(folder).as_posix()] = _File(content, TYPES[path.suffix], etag)
    return files


def _to_console(_request: Request) -> Response:
    return RedirectResponse(PREFIX, 307, HEADERS)


def _answer(request: Request, file: _File) -> Response:
    headers = {**HEADERS, "etag": file.etag}
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if known & {file.etag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(file.content, 200, {**headers, "content-type": file.media_type})
