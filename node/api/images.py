"""Images: list those of the cluster, store, remove, export. Bytes are streamed to and from the receiving node's store.

An image's name serves everybody, so only administrators give and take names.
"""

from __future__ import annotations

import msgspec
from starlette.responses import Response, StreamingResponse

from node.api import render
from node.api.documents import ImageDocument
from node.api.exchange import Exchange, json_response
from node.api.forward import to_all
from node.api.jobs import MISSING_HEADER, REACHABLE_STATES
from node.host.image_name import parse_image_name
from node.host.images import Image

_decode_images = msgspec.json.Decoder(list[ImageDocument]).decode


async def list_images(exchange: Exchange) -> Response:
    """GET /v1/images: every image with the nodes that have it."""
    own = [_document(exchange, image) for image in exchange.services.images.list()]
    if exchange.forwarded:
        return json_response(own)
    answers, missing = await to_all(exchange, _others(exchange))
    for answer in answers.values():
        own += _decode_images(answer.body)
    response = json_response(_merged(own))
    if missing:
        response.headers[MISSING_HEADER] = ",".join(missing)
    return response


async def put(exchange: Exchange) -> Response:
    """PUT /v1/images/NAME[:TAG]: the body is the root file system as a tar, streamed into this node's store."""
    exchange.require_admin("store images")
    name, tag = _reference(exchange)
    tar = exchange.stream(exchange.services.bounds.image_bytes_max)
    image = await exchange.services.images.put(name, tag, tar)
    return json_response(_document(exchange, image), 201)


async def remove(exchange: Exchange) -> Response:
    """DELETE /v1/images/NAME[:TAG]: the name everywhere, the content where no task uses it."""
    exchange.require_admin("remove images")
    name, tag = _reference(exchange)
    await exchange.services.images.remove(name, tag)
    return json_response({"name": name, "tag": tag})


async def export(exchange: Exchange) -> Response:
    """GET /v1/images/NAME[:TAG]/export: the root file system as a tar."""
    name, tag = _reference(exchange)
    chunks = await exchange.services.images.export(name, tag)
    return StreamingResponse(chunks, media_type="application/x-tar")


def _reference(exchange: Exchange) -> tuple[str, str]:
    image = parse_image_name(exchange.path("reference"))
    return image.name, image.tag


def _document(exchange: Exchange, image: Image) -> ImageDocument:
    return ImageDocument(
        name=image.name,
        tag=image.tag,
        digest=image.digest,
        size_bytes=image.size_bytes,
        nodes=[exchange.services.node],
    )


def _others(exchange: Exchange) -> list[str]:
    states = render.states(exchange.services)
    return [name for name, state in states.items() if state in REACHABLE_STATES and name != exchange.services.node]


def _merged(images: list[ImageDocument]) -> list[ImageDocument]:
    """Join what several nodes say of one image."""
    found: dict[tuple[str, str, str], ImageDocument] = {}
    for image in sorted(images, key=lambda each: (each.name, each.tag, each.digest)):
        key = (image.name, image.tag, image.digest)
        nodes = {*image.nodes, *(found[key].nodes if key in found else ())}
        found[key] = msgspec.structs.replace(image, nodes=sorted(nodes))
    return list(found.values())
