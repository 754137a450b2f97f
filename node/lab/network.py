"""
A lab's network as root makes it: one namespace a node, joined by a bridge in a fabric namespace, and cuts between
pairs of nodes.

    fofoca-n1                       fofoca-fab
      up0   10.78.0.1/24  ------ p1 \\
      br0   10.77.1.1/24             fab0
    fofoca-n2             ------ p2 /

Containers hang on br0; agents route to each other's container addresses over up0. Nothing reaches the machine's own
network. A cut is a pair of rules of the fabric's own nftables table, so that both sides stay up and simply hear
nothing from each other, as behind a broken switch.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterable

from node.lab import layout

TABLE = "bridge fofoca"
COMMAND_TIMEOUT_S = 30


class NetworkFailure(Exception):
    """A network tool refused; the message is its own."""


def make_fabric() -> None:
    fabric, bridge = layout.fabric(), layout.FABRIC_BRIDGE
    _ip("netns", "add", fabric)
    _ip_batch(fabric, ["link set lo up", f"link add {bridge} type bridge", f"link set {bridge} up"])


def make_node(number: int) -> None:
    """The namespace of one node, wired to the fabric. Routes to the containers of others are for its agent to set, when
    it knows whose they are: before, what they send would seem to come from the node itself, which may reach them all.
    """
    name, port = layout.namespace(layout.node_name(number)), layout.fabric_port(number)
    _ip("netns", "add", name)
    _ip_batch(
        name,
        [
            "link set lo up",
            f"link add up0 type veth peer name {port} netns {layout.fabric()}",
            f"addr add {layout.underlay_address(number)}/24 dev up0",
            "link set up0 up",
            "link add br0 type bridge",
            f"addr add {layout.bridge_address(number)}/24 dev br0",
            "link set br0 up",
        ],
    )
    _ip_batch(layout.fabric(), [f"link set {port} master {layout.FABRIC_BRIDGE}", f"link set {port} up"])


def unplug(number: int) -> None:
    """Take a node's link away, if it has one."""
    with contextlib.suppress(NetworkFailure):
        _ip("-n", layout.fabric(), "link", "del", layout.fabric_port(number))


def remove_node(number: int) -> None:
    # The kernel takes a namespace apart in its own time; the link must be gone before a new one takes its name.
    unplug(number)
    remove_namespace(layout.namespace(layout.node_name(number)))


def remove_namespace(name: str) -> None:
    if (layout.NETNS_FOLDER / name).exists():
        _ip("netns", "del", name)


def namespaces() -> list[str]:
    """The namespaces of this lab that exist."""
    if not layout.NETNS_FOLDER.is_dir():
        return []
    return sorted(entry.name for entry in layout.NETNS_FOLDER.iterdir() if layout.is_namespace(entry.name))


def cut(pairs: Iterable[tuple[int, int]]) -> None:
    if shutil.which("nft") is None:
        raise NetworkFailure("cutting links needs nft (package nftables)")
    lines = [
        f"add table {TABLE}",
        f"add chain {TABLE} forward {{ type filter hook forward priority 0; policy accept; }}",
    ]
    for one, two in pairs:
        here, there = layout.fabric_port(one), layout.fabric_port(two)
        lines += [
            f'add rule {TABLE} forward iifname "{here}" oifname "{there}" drop',
            f'add rule {TABLE} forward iifname "{there}" oifname "{here}" drop',
        ]
    _nft(lines)


def heal() -> None:
    """Undo all cuts."""
    if shutil.which("nft") is not None:
        # Adding first makes the removal succeed on an uncut fabric too.
        _nft([f"add table {TABLE}", f"delete table {TABLE}"])


def _nft(lines: list[str]) -> None:
    _run(["ip", "netns", "exec", layout.fabric(), "nft", "-f", "-"], "\n".join(lines) + "\n")


def _ip(*words: str) -> None:
    _run(["ip", *words])


def _ip_batch(name: str, lines: list[str]) -> None:
    _run(["ip", "-n", name, "-batch", "-"], "\n".join(lines) + "\n")


def _run(command: list[str], text: str = "") -> None:
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise NetworkFailure(f"{command[0]} is missing (package iproute2)") from error
    if done.returncode != 0:
        raise NetworkFailure(f"{' '.join(command)}: {' '.join((done.stderr or done.stdout).split())}")
