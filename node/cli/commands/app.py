"""`fofoca app`: the applications that sites may run."""

from __future__ import annotations

import shlex
from typing import Any

import click

from node.cli import find, show
from node.cli.failures import Failure


@click.group(short_help="List, show and check applications of sites.")
def app() -> None:
    """Applications: what sites may run, from the catalogue of the node that is asked (door.catalogue)."""


@app.command("list", short_help="List the applications.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def list_apps(as_json: bool, node_api: str | None) -> None:
    """List the applications, with their options; the first value of an option is its default."""
    found = find.agents(node_api).get("/v1/applications").json()
    if as_json:
        show.print_json(found)
        return
    rows = [[each["name"], _options(each["options"]), each["image"], each["about"]] for each in found]
    show.print_table(["APPLICATION", "OPTIONS", "IMAGE", "ABOUT"], rows)


@app.command("show", short_help="Show one application.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def show_app(name: str, as_json: bool, node_api: str | None) -> None:
    """Show an application as its catalogue has it."""
    found = find.agents(node_api).get("/v1/applications").json()
    one = next((each for each in found if each["name"] == name), None)
    if one is None:
        raise Failure(f"no application {name!r}; there are {', '.join(each['name'] for each in found)}")
    if as_json:
        show.print_json(one)
        return
    for field, value in one.items():
        if text := _text(field, value):
            print(f"{field + ':':<17}{text}")


@app.command("check", short_help="Check a catalogue's file.")
@click.argument("file", type=click.Path(dir_okay=False))
def check(file: str) -> None:
    """Check a catalogue before a node is given it; asks no node."""
    from node.door.catalogue import read_catalogue

    names = read_catalogue(file).names()
    print(f"{file} is good: {', '.join(names)}")


def _text(field: str, value: Any) -> str:
    if field == "options":
        return _options(value)
    if isinstance(value, dict):
        return " ".join(f"{name}={text}" for name, text in value.items())
    return shlex.join(value) if isinstance(value, list) else str(value or "")


def _options(options: dict[str, list[str]]) -> str:
    return " ".join(f"{name}={'|'.join(values)}" for name, values in options.items())
