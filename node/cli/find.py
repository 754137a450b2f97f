"""
Which cluster is meant, and how to reach it.

In this order: --node-api URL; FOFOCA_API; the lab of this user; `api` in ~/.config/fofoca/config.toml; an agent of this
machine at its usual places. The token is FOFOCA_TOKEN's, else the lab's where the address is one of the lab's, else
`token` of the configuration file. Whom to trust by https:// is said by --ca-file, FOFOCA_CA_FILE or `ca_file` of the
configuration file, else by this host.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from node.caller import Agents, Place, parse_address
from node.cli.failures import Failure

if TYPE_CHECKING:
    from node.lab.record import Lab

LOCAL_SOCKET = "unix:///var/lib/fofoca/run/api.sock"
LOCAL_URL = "http://127.0.0.1:8642"
CA_FILE = "FOFOCA_CA_FILE"
IN_LAB = "FOFOCA_LAB_NODE"  # set by `lab exec`: the caller is inside the lab's network

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Preferences:
    """What ~/.config/fofoca/config.toml may hold."""

    api: str = ""
    token: str = ""
    ca_file: str = ""


def node_api_option(function: Function) -> Function:
    """The option every command that talks to an agent has."""
    option = click.option("--node-api", metavar="URL", help="The agent to ask: http[s]://HOST:PORT or unix:///PATH.")
    trust = click.option(
        "--ca-file", metavar="FILE", expose_value=False, callback=_trust, help="Whom to trust by https:// (PEM)."
    )
    return option(trust(function))


def _trust(context: click.Context, _: click.Parameter, path: str | None) -> None:
    if path:
        context.meta[CA_FILE] = path


def ca_file() -> str | None:
    """The file of the authorities whose certificates are believed; None: those that this host believes."""
    context = click.get_current_context(silent=True)
    chosen = context.meta.get(CA_FILE) if context is not None else None
    return chosen or os.environ.get(CA_FILE) or preferences().ca_file or None


def agents(node_api: str | None = None) -> Agents:
    """The agents to ask, best first."""
    explicit = node_api or os.environ.get("FOFOCA_API") or ""
    token = os.environ.get("FOFOCA_TOKEN") or ""
    lab = _lab()
    if explicit:
        place = parse_address(explicit)
        node = next((node for node in lab.nodes if node.api_url == explicit.rstrip("/")), None) if lab else None
        if lab and node:
            token = token or lab.token
            if not os.environ.get(IN_LAB):
                place = Place(label=explicit, socket_path=node.api_socket)
        return Agents([place], token or preferences().token or None, ca_file() if place.tls else None)
    if lab:
        from node.lab.record import is_on

        sockets = [Place(label=node.api_url, socket_path=node.api_socket) for node in lab.nodes if is_on(node)]
        if not sockets:
            raise Failure("every node of the lab is off; `fofoca lab start NODE` brings one back")
        return Agents(sockets, token or lab.token)
    wishes = preferences()
    places = [parse_address(place) for place in ([wishes.api] if wishes.api else [LOCAL_SOCKET, LOCAL_URL])]
    return Agents(places, token or wishes.token or None, ca_file() if places[0].tls else None)


def _lab() -> Lab | None:
    from node.lab import record

    return record.load()


def preferences() -> Preferences:
    """The user's configuration file; empty preferences where there is none."""
    base = Path(os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser())
    path = base / "fofoca" / "config.toml"
    try:
        text = path.read_text()
    except FileNotFoundError:
        return Preferences()
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}") from None
    import tomllib

    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Failure(f"{path}: {error}") from None
    unknown = sorted(set(raw) - {"api", "token", "ca_file"})
    if unknown or not all(isinstance(value, str) for value in raw.values()):
        raise Failure(
            f"{path}: {unknown[0] if unknown else 'a value'} is not known; it may hold the texts api, token and ca_file"
        )
    return Preferences(**raw)
