"""
What can be done to a lab: up, down, switch a node off and on, cut and heal links, look.

One operation at a time: each takes the lab's lock. Progress is told to a callback; whoever shows it is not known
here. Errors are LabFailure with one line fit for people.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from node import rootfs
from node.lab import configuration, hosts, layout, leftovers, network, record
from node.lab.errors import LabFailure, LabMisuse
from node.lab.hosts import Plan
from node.lab.lock import locked
from node.lab.looking import POLL_S, Progress, agents, node_of, require_on, running, wait_until_met
from node.lab.record import Lab

MEET_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 12.0
IMPORT_TIMEOUT_S = 60.0
IMAGE = "busybox"


def up(plan: Plan, progress: Progress) -> Lab:
    """Start a lab and return when all nodes see each other. On failure nothing is left behind."""
    with locked():
        _refuse_second_lab()
        if list(leftovers.remains()):
            progress("removing what an earlier lab left")
            _clean()
        try:
            return _build(plan, progress)
        except BaseException:
            leftovers.remove_all()
            raise


def down(progress: Progress) -> bool:
    """Remove the lab and all its traces; False if there was none."""
    with locked():
        if not list(leftovers.remains()):
            return False
        lab = record.load()
        if lab is not None:
            progress("stopping the agents")
            _stop_agents(lab)
        progress("removing containers, namespaces and files")
        _clean()
        return True


def kill_agent(name: str) -> None:
    """SIGKILL the agent of a node; its containers run on."""
    with locked():
        node = node_of(running(), name)
        require_on(node)
        os.kill(node.keeper_pid, signal.SIGUSR2)


def kill_host(name: str) -> None:
    """Take a node away: its link, its agent and its containers, all at once. Its disk stays."""
    with locked():
        lab = running()
        node = node_of(lab, name)
        require_on(node)
        if lab.isolated:
            # The link goes first: nobody may hear a dying host's last words, or be refused by its empty ports.
            network.unplug(node.number)
        leftovers.stop_processes([node.keeper_pid])
        leftovers.kill_containers(f"{layout.cgroup_root()}/{name}")
        leftovers.remove_cgroups(f"{layout.cgroup_root()}/{name}")
        if lab.isolated:
            network.remove_node(node.number)
        else:
            hosts.keep_silent(node)
        Path(node.api_socket).unlink(missing_ok=True)
        record.store(lab.with_node(replace(node, keeper_pid=0, keeper_start_ticks=0)))


def start(name: str) -> None:
    """Bring a node back: its agent where the host still runs, else the host and its agent."""
    with locked():
        lab = running()
        node = node_of(lab, name)
        if record.is_on(node):
            os.kill(node.keeper_pid, signal.SIGUSR1)
            return
        leftovers.stop_processes(leftovers.keepers(node.data))
        if lab.isolated:
            network.remove_node(node.number)
            network.make_node(node.number)
        record.store(lab.with_node(hosts.switch_on(node)))


def cut(name: str, others: Sequence[str]) -> list[str]:
    """Cut the links between a node and others (all others where none is named); returns the others' names."""
    with locked():
        lab = _isolated_lab()
        node = node_of(lab, name)
        far = [node_of(lab, other) for other in others] or [other for other in lab.nodes if other != node]
        if node in far:
            raise LabMisuse(f"{name} cannot be cut from itself")
        network.cut([(node.number, other.number) for other in far])
        return [other.name for other in far]


def heal() -> None:
    """Undo all cuts."""
    with locked():
        _isolated_lab()
        network.heal()


def import_busybox(lab: Lab) -> dict[str, Any] | None:
    """Build the image `busybox` of the machine's own static busybox and store it; None where the machine has none."""
    from node.host.busybox import build_busybox_rootfs
    from node.host.errors import HostError

    folder = layout.state_folder() / IMAGE
    try:
        build_busybox_rootfs(folder)
    except HostError:
        return None
    try:
        answer = agents(lab).put_stream(f"/v1/images/{IMAGE}", rootfs.read(folder), IMPORT_TIMEOUT_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    stored: dict[str, Any] = answer.json()
    return stored


def _refuse_second_lab() -> None:
    lab = record.load()
    if lab is not None and any(record.is_on(node) for node in lab.nodes):
        raise LabMisuse(
            f"a lab is already up ({', '.join(node.name for node in lab.nodes)}); `fofoca lab down` removes it"
        )


def _clean() -> None:
    remains = leftovers.remove_all()
    if remains:
        raise LabFailure("some traces of the lab could not be removed:", remains)


def _build(plan: Plan, progress: Progress) -> Lab:
    isolated = layout.is_root() and hosts.can_isolate()
    lab, endpoints = hosts.describe(plan, isolated)
    record.store(lab)
    progress(f"making {plan.nodes} nodes")
    if isolated:
        network.make_fabric()
        for node in lab.nodes:
            network.make_node(node.number)
    key, token = configuration.create_key(layout.state_folder())
    lab = replace(lab, token=token)
    for node, endpoint in zip(lab.nodes, endpoints, strict=True):
        Path(node.data).mkdir(mode=0o711, parents=True)  # containers, being nobody here, pass through
        configuration.write(node, endpoint, endpoints, plan.shape, lab.runtime, key)
        lab = lab.with_node(hosts.switch_on(node))
        record.store(lab)
    wait_until_met(lab, MEET_TIMEOUT_S + plan.nodes, progress)
    if plan.image:
        progress(f"importing the image {IMAGE}")
        import_busybox(lab)
    return lab


def _stop_agents(lab: Lab) -> None:
    on = [node for node in lab.nodes if record.is_on(node)]
    leftovers.thaw(layout.cgroup_root())  # a namespace ends only when all in it have, and the frozen don't
    for node in on:
        with contextlib.suppress(ProcessLookupError):
            os.kill(node.keeper_pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while any(record.is_on(node) for node in on) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _isolated_lab() -> Lab:
    lab = running()
    if not lab.isolated:
        raise LabMisuse("cutting links needs network namespaces: a lab started by root")
    return lab
