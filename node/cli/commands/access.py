"""`fofoca keys` and `fofoca token`: the cluster's key, and who may call."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from node.cli.failures import Failure
from node.quantities import parse_duration

USUAL_KEY_FILE = Path("/etc/fofoca/cluster.key")


@click.group(short_help="Make the cluster's key.")
def keys() -> None:
    """The key that seals what nodes say to each other, and signs users' tokens."""


@keys.command("create", short_help="Make a new key file.")
@click.argument("path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
def keys_create(path: Path) -> None:
    """Make a new key file, readable by its owner alone. Copy it to every node, and to nobody else."""
    from node.keys import create_key

    try:
        create_key(path)
    except FileExistsError:
        raise Failure(f"{path} exists; a key is never overwritten") from None
    except OSError as error:
        raise Failure(f"{path} cannot be made: {error.strerror}") from None


@click.group(short_help="Make tokens for users.")
def token() -> None:
    """Tokens tell a node who calls; they are signed under the cluster's key."""


@token.command("create", short_help="Print a new token.")
@click.option("--user", required=True, metavar="NAME", help="Whose jobs the token's requests are.")
@click.option(
    "--role", type=click.Choice(["user", "admin", "door"]), default="user", show_default=True, help="What they may do."
)
@click.option("--lifetime", metavar="TIME", default="365d", show_default=True, help="How long it is good for.")
@click.option(
    "--key", "path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help=f"The cluster's key file. [default: the lab's, or {USUAL_KEY_FILE}]",
)  # fmt: skip
def token_create(user: str, role: str, lifetime: str, path: Path | None) -> None:
    """Print a new token: set FOFOCA_TOKEN to it."""
    from node.keys import read_key
    from node.tokens import Tokens

    key = read_key(path or _key_file())
    print(Tokens(key).create(user, role, time.time(), parse_duration(lifetime, "lifetime")))


def _key_file() -> Path:
    from node.lab import configuration, layout

    of_lab = layout.state_folder() / configuration.KEY_FILE_NAME
    return of_lab if os.access(of_lab, os.R_OK) else USUAL_KEY_FILE
