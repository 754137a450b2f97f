"""`fofoca image`."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from node.cli import find, show
from node.cli.failures import TASK_FAILED, Failure
from node.quantities import parse_duration

IMPORT_TIMEOUT_S = 600.0  # unpacking and syncing a large image takes the node a while
PROGRESS_STEP_BYTES = 4 << 20
DONE_PERCENT = 100
USERS_SHOWN_MAX = 10
DIGEST_SHOWN = len("sha256:") + 12


@click.group(short_help="Import, list, export and remove images.")
def image() -> None:
    """Images are root file systems, named NAME or NAME:TAG; every node gets one from a node that has it."""


@image.command("import", short_help="Import a directory or an archive as an image.")
@click.argument("name", metavar="NAME[:TAG]")
@click.argument("path", metavar="SOURCE", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def import_image(name: str, path: Path, as_json: bool, node_api: str | None) -> None:
    """Import a root file system (a directory, or a tar as `docker export` writes it), an OCI layout (a directory or a
    tar), or a docker-archive as `docker save` writes it.

    Tars may be plain or packed with gz, bz2, xz or zstd. Of a packed image, command, environment, user and working
    directory are taken over: they hold for jobs that say nothing else.
    """
    from node import rootfs

    chunks = rootfs.read(path)
    target = f"/v1/images/{quote(name, safe=':')}"
    answer = find.agents(node_api).put_stream(target, _with_progress(chunks), IMPORT_TIMEOUT_S).json()
    _print_stored(answer, as_json)


def _print_stored(image: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show.print_json(image)
    else:
        print(f"{image['name']}:{image['tag']}  {image['digest']}  {show.size(image['size_bytes'])}")


@image.command("build", short_help="Build an image of a Debian or Ubuntu release.")
@click.argument("name", metavar="NAME[:TAG]")
@click.option("--suite", required=True, metavar="NAME", help="The release, such as bookworm.")
@click.option("--include", multiple=True, metavar="PACKAGE,...", help="Packages to install; may be repeated.")
@click.option("--variant", metavar="NAME", help="essential, apt, minbase or standard.  [default: minbase]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def build(
    name: str, suite: str, include: tuple[str, ...], variant: str | None, as_json: bool, node_api: str | None
) -> None:
    """Build an image with mmdebstrap on the node that answers; what it does is told on stderr.

    \b
    fofoca image build web:1 --suite bookworm --include nginx-light,ca-certificates
    """
    packages = [package for each in include for package in each.split(",") if package]
    order = {"suite": suite, "include": packages, **({"variant": variant} if variant else {})}
    chunks = find.agents(node_api).post_stream(f"/v1/images/{quote(name, safe=':')}/build", order, IMPORT_TIMEOUT_S)
    for line in _lines(chunks):
        if "progress" in line:
            print(line["progress"], file=sys.stderr, flush=True)
        elif "problem" in line:
            raise Failure(f"{name} was not built: {line['problem'].get('detail')}", TASK_FAILED)
        else:
            _print_stored(line["image"], as_json)
            return
    raise Failure(f"{name} was not built: the node ended its answer early", TASK_FAILED)


def _lines(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (json.loads(line) for line in lines)


def list_images(as_json: bool, node_api: str | None) -> None:
    """List the cluster's images and the nodes that have them."""
    images = find.agents(node_api).get("/v1/images").json()
    if as_json:
        show.print_json(images)
        return
    show.print_table(["IMAGE", "DIGEST", "SIZE", "AGE", "USES", "NODES"], image_rows(images))


def image_rows(images: list[dict[str, Any]]) -> list[list[str]]:
    """A row a name."""
    return [
        [
            _reference(each),
            each["digest"][:DIGEST_SHOWN],
            show.size(each["size_bytes"]),
            _age(each),
            str(sum(copy["uses"] for copy in each["copies"])),
            ", ".join(_where(copy) for copy in each["copies"]),
        ]
        for each in images
    ]


def _reference(image: dict[str, Any]) -> str:
    return f"{image['name']}:{image['tag']}" if image["name"] else "(no name)"


def _age(image: dict[str, Any]) -> str:
    times = [copy["imported_unix_s"] for copy in image["copies"] if copy["percent"] == DONE_PERCENT]
    return show.age(min(times)) if times else "-"


def _where(copy: dict[str, Any]) -> str:
    return str(copy["node"]) if copy["percent"] == DONE_PERCENT else f"{copy['node']} (fetching {copy['percent']} %)"


@image.command("show", short_help="Show an image: its copies, who uses them, how it is run.")
@click.argument("name", metavar="NAME[:TAG]|DIGEST")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def show_image(name: str, as_json: bool, node_api: str | None) -> None:
    """Show an image: its size, the nodes that have it, who uses it there, and how it says it is run."""
    images = find.agents(node_api).get(f"/v1/images/{quote(name, safe=':')}").json()
    if as_json:
        show.print_json(images)
        return
    for each in images:
        print(f"{_reference(each)}  {each['digest']}  {show.size(each['size_bytes'])}")
    for key, value in images[0]["config"].items():
        print(f"  {key}: {_plain(value)}")
    show.print_table(
        ["NODE", "STATE", "AGE", "LAST USED", "USED BY"], [_copy_row(each) for each in images[0]["copies"]]
    )


def _copy_row(copy: dict[str, Any]) -> list[str]:
    if copy["percent"] < DONE_PERCENT:
        return [copy["node"], f"fetching {copy['percent']} %", "-", "-", ""]
    users = copy["used_by"][:USERS_SHOWN_MAX] + (["..."] if copy["uses"] > USERS_SHOWN_MAX else [])
    return [
        copy["node"],
        "fetched" if copy["fetched"] else "imported here",
        show.age(copy["imported_unix_s"]),
        show.age(copy["last_used_unix_s"]),
        ", ".join(users),
    ]


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join("=".join(each) if isinstance(each, list) else shlex.quote(each) for each in value)
    return str(value)


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


@image.command("prune", short_help="Remove images that nobody uses.")
@click.option("--unused-for", metavar="TIME", default="0s", help="Only what nobody has used for so long: 12h, 7d.")
@click.option("--keep-last", type=click.IntRange(1), metavar="N", help="Also names: of every NAME all but N tags.")
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def prune(unused_for: str, keep_last: int | None, dry_run: bool, as_json: bool, node_api: str | None) -> None:
    """Remove, on every node, what nobody uses: images without a name, and copies that another node has, too.

    With --keep-last the older tags of every name go as well, unless a task uses them.
    """
    unused_for_s = int(parse_duration(unused_for, "unused-for"))
    query = f"unused_for_s={unused_for_s}&keep_last={keep_last or 0}&dry_run={'yes' if dry_run else 'no'}"
    answer = find.agents(node_api).delete(f"/v1/images?{query}").json()
    if as_json:
        show.print_json(answer)
        return
    for name in answer["names"]:
        print(name)
    for copy in answer["copies"]:
        print(f"{copy['digest'][:DIGEST_SHOWN]} on {copy['node']}  {show.size(copy['size_bytes'])}")
    total = show.size(sum(copy["size_bytes"] for copy in answer["copies"]))
    print(f"{total} {'would be' if dry_run else 'is'} free again", file=sys.stderr)


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
