"""Options of `fofoca submit`: volumes, temporary and scratch space, secrets and the root file system of a task."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from node.cli.failures import Failure
from node.quantities import parse_size
from scheduler.spec.files import SECRET_BYTES_MAX

OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--volume",
        "volumes",
        multiple=True,
        metavar="NAME[/FOLDER]:TARGET[:ro]",
        help="A directory of the node, by the name its operator gave: homes:shimoo/home:/home/shimoo or data:/data:ro.",
    ),
    click.option(
        "--tmpfs", "tmpfs", multiple=True, metavar="TARGET:SIZE", help="Files in memory, charged to the task: /run:16M."
    ),
    click.option(
        "--scratch", metavar="SIZE[:TARGET]", help="Room on the node's disk for the task alone.  [target: /scratch]"
    ),
    click.option(
        "--secret",
        "secrets",
        multiple=True,
        metavar="NAME=SOURCE",
        help="A file /run/secrets/NAME in memory, from @FILE, $VARIABLE or - (stdin): key=@id_ed25519.",
    ),
    click.option("--root-size", metavar="SIZE", help="The most that it may write over its image."),
    click.option("--read-only-root", is_flag=True, default=None, help="Let the task change nothing but its mounts."),
)


def body(options: dict[str, Any]) -> dict[str, Any]:
    """Return the part's JSON; what was not asked for is left out."""
    scratch = options["scratch"]
    found = {
        "volumes": [_volume(text) for text in options["volumes"]],
        "tmpfs": [_tmpfs(text) for text in options["tmpfs"]],
        "scratch": _scratch(scratch) if scratch else None,
        "secrets": [_secret(text) for text in options["secrets"]],
        "read_only_root": options["read_only_root"],
        "root_bytes": parse_size(options["root_size"], "root-size") if options["root_size"] else None,
    }
    return {key: value for key, value in found.items() if value}


def _volume(text: str) -> dict[str, Any]:
    """`homes:shimoo/home:/home/shimoo[:ro]`, `homes/shimoo/home:/home/shimoo` or `data:/data:ro`."""
    words = text.split(":")
    read_only = words[-1] == "ro"
    words = words[:-1] if words[-1] in ("ro", "rw") else words
    name, _, folder = words[0].partition("/")
    if len(words) == 3 and not folder:
        folder = words[1]
    elif len(words) != 2:
        raise Failure(f"volume: {text!r} is not valid; expected NAME[/FOLDER]:TARGET[:ro] or NAME:FOLDER:TARGET[:ro]")
    volume = {"name": name, "target": words[-1], "folder": folder, "read_only": read_only}
    return {key: value for key, value in volume.items() if value not in ("", False)}


def _tmpfs(text: str) -> dict[str, Any]:
    target, colon, size = text.rpartition(":")
    if not colon:
        raise Failure(f"tmpfs: {text!r} is not valid; expected TARGET:SIZE, such as /run:16M")
    return {"target": target, "size_bytes": parse_size(size, "tmpfs")}


def _scratch(text: str) -> dict[str, Any]:
    size, colon, target = text.partition(":")
    scratch = {"size_bytes": parse_size(size, "scratch")}
    return {**scratch, "target": target} if colon else scratch


def _secret(text: str) -> dict[str, Any]:
    """A content is never an argument itself: everybody on the host reads those."""
    name, equals, source = text.partition("=")
    if not (name and equals and (source == "-" or source[:1] in "@$") and source):
        raise Failure(f"secret: {name}=... is not valid; expected NAME=@FILE, NAME='$VARIABLE' or NAME=-")
    return {"name": name, "content": base64.b64encode(_content(name, source)).decode()}


def _content(name: str, source: str) -> bytes:
    if source == "-":
        return sys.stdin.buffer.read(SECRET_BYTES_MAX + 1)
    if source.startswith("$"):
        if source[1:] not in os.environ:
            raise Failure(f"secret {name}: there is no variable {source[1:]}")
        return os.environb[os.fsencode(source[1:])]
    try:
        with Path(source[1:]).open("rb") as file:
            return file.read(SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise Failure(f"secret {name}: {source[1:]}: {error.strerror}") from None
