"""Options of `fofoca submit`: interfaces, rates, published ports and names of a task beyond its network mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from node.cli.failures import Failure
from node.quantities import parse_size

OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--publish",
        "-p",
        multiple=True,
        metavar="[HOST:]PORT[/udp]",
        help="Reach a port of the task through its node, at HOST or at a port the node picks.",
    ),
    click.option("--rate-in", metavar="SIZE", help="What the task may receive a second: 10M."),
    click.option("--rate-out", metavar="SIZE", help="What the task may send a second: 500K."),
    click.option("--mac", metavar="ADDRESS", help="The hardware address of eth0.  [default: one made of its name]"),
    click.option("--mtu", type=int, metavar="BYTES", help="Largest packet of eth0.  [default: the bridge's]"),
    click.option("--join-network", multiple=True, metavar="NAME", help="One more interface, on this network."),
    click.option("--traffic-class", metavar="NAME", help="The class, at nodes' uplinks, of what the task sends."),
    click.option("--hostname", metavar="NAME", help="The task's own host name.  [default: jobID-INDEX]"),
    click.option("--ipv6", is_flag=True, help="Only nodes that give containers IPv6 addresses."),
    click.option("--open", "open_to_all", is_flag=True, help="Let other users' tasks connect too (TCP and ping)."),
)


def body(options: dict[str, Any]) -> dict[str, Any]:
    """Return the part's JSON; what was not asked for is left out."""
    found: dict[str, Any] = {
        "publish": [published(text) for text in options["publish"]],
        "rate_in": parse_size(options["rate_in"], "rate-in") if options["rate_in"] else None,
        "rate_out": parse_size(options["rate_out"], "rate-out") if options["rate_out"] else None,
        "mac": options["mac"] and options["mac"].lower(),
        "mtu": options["mtu"],
        "networks": list(options["join_network"]),
        "traffic_class": options["traffic_class"],
        "hostname": options["hostname"],
        "ipv6": options["ipv6"],
        "open": options["open_to_all"],
    }
    return {name: value for name, value in found.items() if value}


def published(text: str) -> dict[str, Any]:
    """Read `8080:80`, `80` or `53/udp`."""
    ports, _, protocol = text.partition("/")
    host, colon, port = ports.rpartition(":")
    good = port.isascii() and port.isdigit() and (host.isascii() and host.isdigit() if colon else not host)
    if not good or protocol not in ("", "tcp", "udp") or (text.endswith("/")):
        raise Failure(f"publish: {text!r} is not valid; expected [HOST:]PORT[/tcp or /udp], such as 8080:80")
    found: dict[str, Any] = {"port": int(port)}
    if host:
        found["host_port"] = int(host)
    if protocol:
        found["protocol"] = protocol
    return found
