"""`fofoca keys` and `fofoca token`: the cluster's keys, and who may call."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from node.cli import find, show
from node.cli.failures import TASK_FAILED, Failure
from node.quantities import parse_duration

USUAL_KEY_FILE = Path("/etc/fofoca/cluster.key")


@click.group(short_help="Make, list and change the cluster's keys.")
def keys() -> None:
    """The keys that seal what nodes say to each other, and sign users' tokens: one seals, every one opens.

    To change the key of a running cluster: `fofoca keys add --new`, `use` the id it prints, make new tokens, `remove`
    the old id. Each order is given to any node and carried out on all live ones; it may be repeated.
    """


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


@keys.command("add", short_help="Add a key on every node.")
@click.argument("path", metavar="[FILE]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--new", is_flag=True, help="Let the node draw a new key, so that none travels to it.")
@find.node_api_option
def keys_add(path: Path | None, new: bool, node_api: str | None) -> None:
    """Have every live node open what is sealed under one more key: a new one, or a key file's first; print its id."""
    import base64

    from node.keys import read_keys

    if new == (path is not None):
        raise Failure("give one of FILE and --new")
    key = "new" if path is None else base64.b64encode(read_keys(path).primary).decode()
    answer = _order({"add": key}, node_api)
    print(answer["id"])
    _check_all_have(answer)


@keys.command("use", short_help="Seal and sign under another key.")
@click.argument("key_id", metavar="ID")
@find.node_api_option
def keys_use(key_id: str, node_api: str | None) -> None:
    """Have every live node seal and sign under a key that all of them have; refused while one of them lacks it."""
    _check_all_have(_order({"use": key_id}, node_api))


@keys.command("remove", short_help="Remove a key from every node.")
@click.argument("key_id", metavar="ID")
@find.node_api_option
def keys_remove(key_id: str, node_api: str | None) -> None:
    """Have every live node forget a key, and with it the tokens signed under it.

    A node that is down at the moment and knows no newer key is not heard any more when it comes back.
    """
    _check_all_have(_order({"remove": key_id}, node_api))


@keys.command("list", short_help="Show the keys' ids, by node.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def keys_list(as_json: bool, node_api: str | None) -> None:
    """Show which keys every node holds, by their ids, and which one seals. The keys themselves are never shown."""
    answer = find.agents(node_api).get("/v1/keys").json()
    if as_json:
        show.print_json(answer)
        return
    rows = [[node["name"], node["seals"], " ".join(node["ids"][1:]), node["why"]] for node in answer["nodes"]]
    show.print_table(["NODE", "SEALS", "OPENS TOO", "NOTE"], rows)


def _order(order: dict[str, str], node_api: str | None) -> Any:
    return find.agents(node_api).post("/v1/keys", order).json()


def _check_all_have(answer: dict[str, Any]) -> None:
    """Name the nodes the order did not reach, also those that are down: they matter before a key is removed."""
    for node in answer["nodes"]:
        if node["why"] and node["name"] not in answer["lacking"]:
            print(f"fofoca: {node['name']} was {node['why']}", file=sys.stderr)
    if answer["lacking"]:
        names = ", ".join(answer["lacking"])
        raise Failure(f"done, but not on {names}; give the order again", TASK_FAILED)


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
    from node.keys import read_keys
    from node.tokens import Tokens

    key = read_keys(path or _key_file()).primary
    print(Tokens(key).create(user, role, time.time(), parse_duration(lifetime, "lifetime")))


def _key_file() -> Path:
    from node.lab import configuration, layout

    of_lab = layout.state_folder() / configuration.KEY_FILE_NAME
    return of_lab if os.access(of_lab, os.R_OK) else USUAL_KEY_FILE
