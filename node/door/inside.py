"""What a container may say of its own site, without a token: that it is busy, though nobody asks for it.

    POST http://GATEWAY:8651/v1/sites/KEY/busy      {"for_s": 600}

Listens on the gateways of this node's bridges alone. Who speaks is told by the source address: a container can't send
with another's (the rules of its bridge), and its address leads to its allocation, which must be the site's own. So a
container reaches nothing here but its own site. Small bounds on everything, since any container may connect.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec
import trio

from node import logs
from node.door.http.own_answers import of_refusal
from node.door.http.refusals import Refused, from_error
from node.door.wish import Busy, busy_s
from node.errors import InvalidValue, NodeError, NotFound, TooLarge, UnknownSite
from node.plain_http import Head, Malformed, Reader
from scheduler.model import AllocationId
from scheduler.sites.site import SiteView

CONNECTIONS_MAX = 64
REQUEST_TIMEOUT_S = 10.0
BODY_BYTES_MAX = 1_024
PREFIX, SUFFIX = "/v1/sites/", "/busy"

log = logs.get("door")
_decode = msgspec.json.Decoder(Busy).decode


class BusySites(Protocol):
    """What is used of node.door.cluster_sites."""

    async def show(self, key: str) -> SiteView:
        """Return a site; UnknownSite."""

    async def busy(self, key: str, for_s: float) -> SiteView:
        """Count a site as used for so long; UnknownSite."""


class Inside:
    """Answers this node's containers. `owner_of` tells the allocation that has an address, None if there is none."""

    def __init__(self, sites: BusySites, owner_of: Callable[[str], AllocationId | None]) -> None:
        self._sites = sites
        self._owner_of = owner_of
        self._room = trio.Semaphore(CONNECTIONS_MAX)

    async def listen(self, hosts: Iterable[str], port: int, nursery: trio.Nursery) -> None:
        """Listen from now on; OSError where an address can't be had."""
        listeners = []
        for host in hosts:
            listeners += await trio.open_tcp_listeners(port, host=host)
        nursery.start_soon(trio.serve_listeners, self._serve, listeners)

    async def _serve(self, stream: trio.SocketStream) -> None:
        """Answer one request; a connection beyond the bound ends without an answer."""
        try:
            self._room.acquire_nowait()
        except trio.WouldBlock:
            await stream.aclose()
            return
        try:
            async with stream:
                with trio.move_on_after(REQUEST_TIMEOUT_S):
                    await stream.send_all(await self._answer(stream))
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            log.debug("a container went away", why=str(error))
        finally:
            self._room.release()

    async def _answer(self, stream: trio.SocketStream) -> bytes:
        address = stream.socket.getpeername()[0]
        try:
            head, body = await _request(Reader(stream))
            await self._busy(address, _key(head), busy_s(_read(body)))
        except Malformed as error:
            return _written(Refused(400, "malformed", str(error)))
        except Refused as refusal:
            return _written(refusal)
        except NodeError as error:
            return _written(from_error(error))
        return b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"

    async def _busy(self, address: str, key: str, for_s: float) -> None:
        allocation = self._owner_of(address.removeprefix("::ffff:"))
        if allocation is None:
            raise NotFound("this address is no container's")
        view = await self._sites.show(key)
        if view.job != allocation.job:
            raise UnknownSite(f"no site {key} of this container")
        await self._sites.busy(key, for_s)


async def _request(reader: Reader) -> tuple[Head, bytes]:
    head = await reader.head()
    if head is None:
        raise Malformed("the connection ended")
    length = head.length()
    if length > BODY_BYTES_MAX:
        raise TooLarge(f"the body may have {BODY_BYTES_MAX:,} bytes")
    return head, await reader.body(length)


def _key(head: Head) -> str:
    method, _, rest = head.line.partition(" ")
    path = rest.partition(" ")[0]
    if not (path.startswith(PREFIX) and path.endswith(SUFFIX) and "/" not in path[len(PREFIX) : -len(SUFFIX)]):
        raise NotFound("containers may ask for /v1/sites/KEY/busy alone")
    if method != "POST":
        raise Refused(405, "method-not-allowed", f"{method[:20]} is not possible here; possible: POST")
    return path[len(PREFIX) : -len(SUFFIX)]


def _read(body: bytes) -> Busy:
    try:
        return _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidValue("body", "(not shown)", f'expected {{"for_s": 600}}: {error}') from None


def _written(refusal: Refused) -> bytes:
    return of_refusal(refusal, None).encode(None, keep=False)


async def open_inside(inside: Inside, hosts: Iterable[str], port: int, nursery: trio.Nursery) -> None:
    """Listen if the port can be had; a node goes on without it, for nothing but this depends on it."""
    try:
        await inside.listen(hosts, port, nursery)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise
        log.error("containers can't say that they are busy", port=port, why=error.strerror)
