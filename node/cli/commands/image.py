"""`fofoca image`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from node.cli import find, show
from node.cli.failures import Failure

IMPORT_TIMEOUT_S = 600.0  # unpacking and syncing a large image takes the node a while
PROGRESS_STEP_BYTES = 4 << 20
DIGEST_SHOWN = len("sha256:") + 12


@click.group(short_help="Import, list, export and remove images.")
def image() -> None:
    """Images are root file systems, named NAME or NAME:TAG; every node gets one from a node that has it."""


@image.command("import", short_help="Import a directory or a tar as an image.")
@click.argument("name", metavar="NAME[:TAG]")
@click.argument("path", metavar="PATH", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def import_image(name: str, path: Path, as_json: bool, node_api: str | None) -> None:
    """Import a root file system: a directory, or a tar (plain, gz, bz2 or xz) as `docker export` writes it."""
    from node import rootfs

    chunks = rootfs.read(path)
    target = f"/v1/images/{quote(name, safe=':')}"
    answer = find.agents(node_api).put_stream(target, _with_progress(chunks), IMPORT_TIMEOUT_S).json()
    if as_json:
        show.print_json(answer)
    else:
        print(f"{answer['name']}:{answer['tag']}  {answer['digest']}  {show.size(answer['size_bytes'])}")


def list_images(as_json: bool, node_api: str | None) -> None:
    """List the cluster's images and the nodes that have them."""
    images = find.agents(node_api).get("/v1/images").json()
    if as_json:
        show.print_json(images)
        return
    show.print_table(["IMAGE", "DIGEST", "SIZE", "NODES"], image_rows(images))


def image_rows(images: list[dict[str, Any]]) -> list[list[str]]:
    """A row a name. A node that fetched an image knows its content only: it counts for every name of that content."""
    holders: dict[str, set[str]] = {}
    for each in images:
        holders.setdefault(each["digest"], set()).update(each["nodes"])
    named = {each["digest"] for each in images if each["name"]}
    return [
        [
            f"{each['name']}:{each['tag']}" if each["name"] else "(no name)",
            each["digest"][:DIGEST_SHOWN],
            show.size(each["size_bytes"]),
            ", ".join(sorted(holders[each["digest"]])),
        ]
        for each in images
        if each["name"] or each["digest"] not in named
    ]


@image.command("ls", short_help="List the cluster's images.", help=list_images.__doc__)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def list_short(as_json: bool, node_api: str | None) -> None:
    list_images(as_json, node_api)


@image.command("list", hidden=True, help=list_images.__doc__)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def list_long(as_json: bool, node_api: str | None) -> None:
    list_images(as_json, node_api)


@image.command("rm", short_help="Remove images from the cluster.")
@click.argument("names", nargs=-1, required=True, metavar="NAME[:TAG]...")
@find.node_api_option
def remove(names: tuple[str, ...], node_api: str | None) -> None:
    """Remove images; running tasks keep what they use until they end."""
    agents = find.agents(node_api)
    for name in names:
        agents.delete(f"/v1/images/{quote(name, safe=':')}")


@image.command("export", short_help="Write an image as a tar.")
@click.argument("name", metavar="NAME[:TAG]")
@click.option("--output", "-o", type=click.Path(path_type=Path), metavar="FILE", help="[default: standard output]")
@find.node_api_option
def export(name: str, output: Path | None, node_api: str | None) -> None:
    """Write an image's root file system as a tar."""
    if output is None and sys.stdout.isatty():
        raise Failure("an image on a terminal serves nobody; use --output FILE or a pipe")
    chunks = find.agents(node_api).get_stream(f"/v1/images/{quote(name, safe=':')}/export", IMPORT_TIMEOUT_S)
    if output is None:
        for chunk in _with_progress(chunks):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    _write_whole(output, _with_progress(chunks))


def _write_whole(path: Path, chunks: Iterable[bytes]) -> None:
    """Either the whole file appears under its name, or nothing."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
        os.replace(part, path)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


def _with_progress(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same chunks; on a terminal with a line that says how much has gone by."""
    if not sys.stderr.isatty():
        yield from chunks
        return
    count = told = 0
    try:
        for chunk in chunks:
            yield chunk
            count += len(chunk)
            if count - told >= PROGRESS_STEP_BYTES:
                told = count
                print(f"\r\x1b[K{show.size(count)}", end="", file=sys.stderr, flush=True)
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
