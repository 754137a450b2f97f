"""Images: list those of the cluster, store, build, remove, prune, export. Bytes are streamed to and from the receiving
node's store.

An image's name serves everybody, so only administrators give and take names.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence

import msgspec
from starlette.responses import Response, StreamingResponse

from node.api import render
from node.api.documents import ImageCopyDocument, ImageDocument, PrunedDocument, PruneDocument
from node.api.exchange import Exchange, json_response
from node.api.forward import to_all
from node.api.jobs import MISSING_HEADER, REACHABLE_STATES
from node.api.problems import from_error
from node.errors import NotFound
from node.host.image_build import BuildOrder, read_order
from node.host.image_name import is_digest, parse_image_name
from node.host.images import Image

PATH = "/v1/images"
PRUNE_TIMEOUT_S = 20.0
USERS_SHOWN_MAX = 100
KEEP_LAST_MAX = 10_000
UNUSED_FOR_S_MAX = 10 * 366 * 86_400

_decode_images = msgspec.json.Decoder(list[ImageDocument]).decode
_decode_pruned = msgspec.json.Decoder(PruneDocument).decode


async def list_images(exchange: Exchange) -> Response:
    """GET /v1/images: every image with the nodes that have it."""
    images, missing = await _everywhere(exchange)
    return _with_missing(json_response(images), missing)


async def show(exchange: Exchange) -> Response:
    """GET /v1/images/NAME[:TAG]: one image, by name or digest; a digest with several names is shown under each."""
    reference = exchange.path("reference")
    images, missing = await _everywhere(exchange)
    wanted = reference if is_digest(reference) else str(parse_image_name(reference))
    found = [each for each in images if wanted in (each.digest, f"{each.name}:{each.tag}")]
    if not found:
        raise NotFound(f"image {wanted}: no node that answers has it")
    return _with_missing(json_response(found), missing)


async def _everywhere(exchange: Exchange) -> tuple[list[ImageDocument], list[str]]:
    own = [_document(exchange, image) for image in exchange.services.images.list()]
    if exchange.forwarded:
        return own, []
    answers, missing = await to_all(exchange, _others(exchange), get=PATH)
    for answer in answers.values():
        own += _decode_images(answer.body)
    return _merged(own), missing


async def put(exchange: Exchange) -> Response:
    """PUT /v1/images/NAME[:TAG]: the body is an archive, streamed into this node's store."""
    exchange.require_admin("store images")
    name, tag = _reference(exchange)
    archive = exchange.stream(exchange.services.bounds.image_bytes_max)
    image = await exchange.services.images.put(name, tag, archive)
    return json_response(_document(exchange, image), 201)


async def build(exchange: Exchange) -> Response:
    """POST /v1/images/NAME[:TAG]/build: a line of JSON a step; the last is the image, or why there is none."""
    exchange.require_admin("build images")
    name, tag = _reference(exchange)
    order = read_order(await exchange.body(exchange.services.bounds.body_bytes_max))
    return StreamingResponse(_built(exchange, name, tag, order), media_type="application/x-ndjson")


async def _built(exchange: Exchange, name: str, tag: str, order: BuildOrder) -> AsyncIterator[bytes]:
    try:
        async for step in exchange.services.images.build(name, tag, order):
            line: object = {"image": _document(exchange, step)} if isinstance(step, Image) else {"progress": step}
            yield msgspec.json.encode(line) + b"\n"
    except Exception as error:  # noqa: BLE001 (from_error logs what it can't name; the status line is long gone)
        yield b'{"problem": ' + bytes(from_error(error).body) + b"}\n"


async def remove(exchange: Exchange) -> Response:
    """DELETE /v1/images/NAME[:TAG]: the name everywhere, the content where no task uses it."""
    exchange.require_admin("remove images")
    name, tag = _reference(exchange)
    await exchange.services.images.remove(name, tag)
    return json_response({"name": name, "tag": tag})


async def prune(exchange: Exchange) -> Response:
    """DELETE /v1/images: on every node what nobody uses and the cluster can do without."""
    exchange.require_admin("remove images")
    unused_for_s = exchange.integer("unused_for_s", 0, 0, UNUSED_FOR_S_MAX)
    keep_last = exchange.integer("keep_last", 0, 0, KEEP_LAST_MAX)
    dry_run = exchange.text("dry_run", "no", ("yes", "no")) == "yes"
    names = await _prune_names(exchange, keep_last, unused_for_s, dry_run) if keep_last else []
    images = exchange.services.images
    copies = [_pruned(exchange, idle.digest, idle.size_bytes) for idle in await images.prune(unused_for_s, dry_run)]
    if exchange.forwarded:
        return json_response(PruneDocument(names=[], copies=copies))
    answers, missing = await to_all(exchange, _others(exchange), timeout_s=PRUNE_TIMEOUT_S)
    for answer in answers.values():
        copies += _decode_pruned(answer.body).copies
    return _with_missing(json_response(PruneDocument(names=names, copies=copies)), missing)


async def _prune_names(exchange: Exchange, keep_last: int, unused_for_s: float, dry_run: bool) -> list[str]:
    """Remove the names of older tags that no node uses; return them."""
    if exchange.forwarded:
        return []
    images, missing = await _everywhere(exchange)
    if missing:  # What can't be asked may use it.
        return []
    now_s = time.time()
    busy = {
        each.digest
        for each in images
        for copy in each.copies
        if copy.uses or copy.percent < 100 or copy.last_used_unix_s > now_s - unused_for_s
    }
    digests = {f"{each.name}:{each.tag}": each.digest for each in images}
    outdated = exchange.services.images.outdated_names(keep_last)
    going = [name for name in outdated if name in digests and digests[name] not in busy]
    for name in () if dry_run else going:
        parsed = parse_image_name(name)
        await exchange.services.images.remove(parsed.name, parsed.tag)
    return going


async def export(exchange: Exchange) -> Response:
    """GET /v1/images/NAME[:TAG]/export: the root file system as a tar."""
    name, tag = _reference(exchange)
    chunks = await exchange.services.images.export(name, tag)
    return StreamingResponse(chunks, media_type="application/x-tar")


def _reference(exchange: Exchange) -> tuple[str, str]:
    image = parse_image_name(exchange.path("reference"))
    return image.name, image.tag


def _with_missing(response: Response, missing: Sequence[str]) -> Response:
    if missing:
        response.headers[MISSING_HEADER] = ",".join(missing)
    return response


def _pruned(exchange: Exchange, digest: str, size_bytes: int) -> PrunedDocument:
    return PrunedDocument(node=exchange.services.node, digest=digest, size_bytes=size_bytes)


def _document(exchange: Exchange, image: Image) -> ImageDocument:
    node = exchange.services.node
    copy = ImageCopyDocument(
        node=node,
        percent=image.percent,
        imported_unix_s=image.imported_unix_s,
        last_used_unix_s=image.last_used_unix_s,
        fetched=image.fetched,
        uses=len(image.users),
        used_by=list(image.users[:USERS_SHOWN_MAX]),
    )
    return ImageDocument(
        name=image.name,
        tag=image.tag,
        digest=image.digest,
        size_bytes=image.size_bytes,
        nodes=[node] if image.percent == 100 else [],
        copies=[copy],
        config=msgspec.to_builtins(image.config),
    )


def _others(exchange: Exchange) -> list[str]:
    states = render.states(exchange.services)
    return [name for name, state in states.items() if state in REACHABLE_STATES and name != exchange.services.node]


def _merged(images: list[ImageDocument]) -> list[ImageDocument]:
    """Join what several nodes say of one image; one that is only on its way somewhere knows little of it."""
    found: dict[tuple[str, str, str], ImageDocument] = {}
    for image in sorted(images, key=lambda each: (each.name, each.tag, each.digest, not each.nodes)):
        key = (image.name, image.tag, image.digest)
        known = found.setdefault(key, image)
        if known is not image:
            found[key] = msgspec.structs.replace(
                known,
                nodes=sorted({*known.nodes, *image.nodes}),
                copies=sorted([*known.copies, *image.copies], key=lambda copy: copy.node),
            )
    return list(found.values())
