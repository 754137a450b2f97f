"""`fofoca site`: what the request door keeps awake."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from node.cli import find, show
from node.cli.failures import TASK_FAILED, Failure

MISSING_HEADER = "x-fofoca-missing"
KEY = "KEY"


@click.group(short_help="List, show, wake, end and remove sites.")
def site() -> None:
    """Sites: containers that start when somebody asks for them, and sleep when nobody does.

    A site's KEY is that of its backend, such as b:u:shimoo:1.
    """


@site.command("ls", short_help="List sites.")
@click.option("--owner", metavar="NAME", help="Only this user's.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def list_sites(owner: str | None, as_json: bool, node_api: str | None) -> None:
    """List your sites; operators see everybody's."""
    answer = find.agents(node_api).get("/v1/sites", owner=owner)
    if as_json:
        show.print_json(answer.json())
    else:
        show.print_table(
            ["SITE", "OWNER", "PHASE", "APPLICATION", "NODE", "ADDRESS", "OPEN", "IDLE", "HOSTS"],
            [_row(each) for each in answer.json()],
        )
    if missing := answer.headers.get(MISSING_HEADER, ""):
        raise Failure(f"sites kept by {missing.replace(',', ', ')} are missing here: no answer", TASK_FAILED)


@site.command("show", short_help="Show one site.")
@click.argument("key", metavar=KEY)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def show_site(key: str, as_json: bool, node_api: str | None) -> None:
    """Show a site: where it answers, or why it does not."""
    found = find.agents(node_api).get(_path(key)).json()
    if as_json:
        show.print_json(found)
        return
    for name, value in found.items():
        text = ", ".join(value) if isinstance(value, list) else value
        if text not in ("", None, 0.0) or name == "open":
            print(f"{name + ':':<13}{text}")


@site.command("wake", short_help="Start or thaw sites.")
@click.argument("keys", nargs=-1, required=True, metavar=f"{KEY}...")
@click.option("--wait", "wait_s", type=click.FloatRange(0, 60), default=30.0, show_default=True, metavar="SECONDS",
              help="How long to wait until each answers.")  # fmt: skip
@find.node_api_option
def wake(keys: tuple[str, ...], wait_s: float, node_api: str | None) -> None:
    """Start or thaw sites, and print where each answers."""
    agents = find.agents(node_api)
    for key in keys:
        found = agents.post(f"{_path(key)}/wake?wait_s={wait_s:g}", {}).json()
        if found["phase"] != "awake":
            why = f": {found['reason']}" if found["reason"] else ""
            raise Failure(f"{key} is {found['phase']}{why}", TASK_FAILED)
        print(f"{found['address']}:{found['port']}")


@site.command("sleep", short_help="End the containers of sites.")
@click.argument("keys", nargs=-1, required=True, metavar=f"{KEY}...")
@find.node_api_option
def sleep(keys: tuple[str, ...], node_api: str | None) -> None:
    """End the containers of sites now; the next request starts them again."""
    agents = find.agents(node_api)
    for key in keys:
        agents.post(f"{_path(key)}/sleep", {})


@site.command("rm", short_help="Remove sites.")
@click.argument("keys", nargs=-1, required=True, metavar=f"{KEY}...")
@find.node_api_option
def remove(keys: tuple[str, ...], node_api: str | None) -> None:
    """End the containers of sites and forget them; a front end that asks for one makes it anew."""
    agents = find.agents(node_api)
    for key in keys:
        agents.delete(_path(key))


def _path(key: str) -> str:
    return f"/v1/sites/{quote(key, safe=':')}"


def _row(each: dict[str, Any]) -> list[Any]:
    address = f"{each['address']}:{each['port']}" if each["address"] else ""
    first = [each[name] for name in ("key", "owner", "phase", "application", "node")]
    return [*first, address, each["open"], show.duration(each["idle_for_s"]), ", ".join(each["hosts"])]
