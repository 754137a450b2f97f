"""The bridge of a node's containers, on the real kernel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.host.network import ensure_bridge, remove_interface

pytestmark = [pytest.mark.root]

LOWEST = "02:00:00:00:00:01"


@pytest.fixture
def name() -> Iterator[str]:
    name = f"ffb{os.getpid()}"
    yield name
    for each in (f"{name}p", name):
        remove_interface(each)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=30)


def hardware_address(bridge: str) -> str:
    return Path(f"/sys/class/net/{bridge}/address").read_text()


def add_port(bridge: str) -> None:
    ip("link", "add", f"{bridge}p", "address", LOWEST, "type", "veth", "peer", "name", f"{bridge}q")
    ip("link", "set", f"{bridge}p", "master", bridge)


def test_the_gateways_hardware_address_stays_as_containers_come_and_go(name: str) -> None:
    ensure_bridge(name, "10.213.99.1/24")
    before = hardware_address(name)
    add_port(name)
    assert hardware_address(name) == before
    remove_interface(f"{name}p")
    assert hardware_address(name) == before


def test_a_bridge_that_somebody_else_made_keeps_the_address_it_has(name: str) -> None:
    ip("link", "add", name, "type", "bridge")
    before = hardware_address(name)
    ensure_bridge(name, "10.213.99.1/24")
    add_port(name)
    assert hardware_address(name) == before
