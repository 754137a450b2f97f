"""`fofoca settings` and `fofoca reserve`: what operators set for the whole cluster."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from node.cli import find, show
from node.cli.failures import Failure
from node.cli.options.queueing import parse_begin
from node.quantities import parse_cpu, parse_duration, parse_size

LISTS = frozenset({"users", "accounts", "nodes"})
DURATIONS = frozenset(
    {"time_limit_max", "time_limit_default", "priority_worth", "share_worth", "half_life", "run_min", "patience"}
)


@click.group(short_help="Partitions, accounts, users, licences, reservations, tiers.")
def settings() -> None:
    """What operators set for the whole cluster: partition, account, user, licence, reservation, ranking, preemption.

    \b
    fofoca settings set licence/matlab count=5
    fofoca settings set partition/gpu constraints=gpu time_limit_max=2h default=false
    fofoca settings set account/physics users=ana,ben shares=3 cpu_max=64
    fofoca settings set user/ana account=physics tasks_max=100
    fofoca settings set partition/urgent tier=10
    fofoca settings set preemption/default mode=requeue run_min=5m patience=30s times_max=3
    fofoca settings set preemption/default mode=freeze run_min=1m
    """


@settings.command("show", short_help="Show what is set.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@find.node_api_option
def show_settings(as_json: bool, node_api: str | None) -> None:
    """Show all settings of the cluster."""
    answer = find.agents(node_api).get("/v1/settings").json()
    if as_json:
        show.print_json(answer)
        return
    rows = []
    for each in answer:
        fields = {
            key: value for key, value in each.items() if key not in ("kind", "name") and value not in ("", [], None)
        }
        rows.append([f"{each['kind']}/{each['name']}", " ".join(f"{key}={_text(fields[key])}" for key in fields)])
    show.print_table(["SETTING", "FIELDS"], rows)


@settings.command("set", short_help="Set one, as a whole.")
@click.argument("name", metavar="KIND/NAME")
@click.argument("fields", nargs=-1, metavar="FIELD=VALUE...")
@find.node_api_option
def set_setting(name: str, fields: tuple[str, ...], node_api: str | None) -> None:
    """Set one as a whole: fields that are not given have their defaults. Times and sizes as elsewhere: 2h, 64G, 1.5."""
    find.agents(node_api).put(f"/v1/settings/{_path(name)}", dict(_field(each) for each in fields))


@settings.command("remove", short_help="Remove one.")
@click.argument("name", metavar="KIND/NAME")
@find.node_api_option
def remove_setting(name: str, node_api: str | None) -> None:
    """Remove one setting. What was taken under it stays as it was taken."""
    find.agents(node_api).delete(f"/v1/settings/{_path(name)}")


@click.command(short_help="Keep nodes for some users and a time.")
@click.argument("name")
@click.option("--nodes", required=True, metavar="NODE,...", help="Which nodes.")
@click.option("--user", "users", multiple=True, metavar="NAME", help="For whom; may be given several times.")
@click.option("--account", "accounts", multiple=True, metavar="NAME", help="For which account.")
@click.option(
    "--start", default="now+0s", metavar="WHEN", help="From when: now+1h, 16:30, 2027-01-31T16:30. [default: now]"
)
@click.option("--for", "duration", required=True, metavar="TIME", help="For how long: 90m, 2h.")
@find.node_api_option
def reserve(
    name: str,
    nodes: str,
    users: tuple[str, ...],
    accounts: tuple[str, ...],
    start: str,
    duration: str,
    node_api: str | None,
) -> None:
    """Keep nodes for some users and a time: `submit --reservation NAME` runs there then, and nothing else does.

    Jobs that would still run when it begins, by their --time, don't start there; jobs without --time neither.
    """
    start_unix_s = parse_begin(start, time.time())
    body = {
        "nodes": nodes.split(","),
        "users": list(users),
        "accounts": list(accounts),
        "start_unix_s": start_unix_s,
        "end_unix_s": start_unix_s + parse_duration(duration, "for"),
    }
    find.agents(node_api).put(f"/v1/settings/reservation/{name}", body)


def _path(name: str) -> str:
    if name.count("/") != 1:
        raise Failure(f"{name!r} is not valid; expected KIND/NAME such as licence/matlab")
    return name


def _field(text: str) -> tuple[str, Any]:
    """Read one FIELD=VALUE; `time_limit_max=2h` is the field time_limit_max_s, and so on."""
    field, equals, value = text.partition("=")
    if not equals:
        raise Failure(f"{text!r} is not valid; expected FIELD=VALUE")
    if field in DURATIONS:
        name = {"priority_worth": "priority", "share_worth": "share"}.get(field, field)
        return f"{name}_s", parse_duration(value, field)
    if field == "cpu_max":
        return "cpu_milli_max", parse_cpu(value, field)
    if field == "memory_max":
        return "memory_bytes_max", parse_size(value, field)
    if field in LISTS:
        return field, [each for each in value.split(",") if each]
    if field == "constraints":
        return field, [each.strip() for each in value.split(";") if each.strip()]
    try:
        return field, json.loads(value)
    except ValueError:
        return field, value


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
