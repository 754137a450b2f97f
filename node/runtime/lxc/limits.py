"""A container's limits as LXC and the control groups take them: rlimits, devices, and one struct for all groups.

Limits of control groups are written by node/host/cgroups above LXC's own group; here are LXC's keys for the rest.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from node.host.cgroups import Limits
from node.runtime.limits import Device
from node.runtime.lxc.places import OPEN_FILES_HARD, OPEN_FILES_SOFT, Host, Line
from node.runtime.protocol import ContainerSpec, StartError
from scheduler.spec.limits import UNLIMITED, Rlimit


def group_limits(spec: ContainerSpec) -> Limits:
    """All that the control groups hold."""
    more = spec.limits.groups
    return Limits(
        memory_bytes=spec.memory_bytes,
        cpu_milli=spec.cpu_milli,
        cpu_limit_milli=spec.cpu_limit_milli,
        pids_max=spec.pids_max,
        **{each.name: getattr(more, each.name) for each in fields(more)},
    )


def rlimits(spec: ContainerSpec, open_files_max: int) -> tuple[Rlimit, ...]:
    """What is asked for, and what holds where nothing is: no core dumps, and a bound on open files."""
    hard = min(OPEN_FILES_HARD, open_files_max)
    usual = (Rlimit(name="core", soft=0), Rlimit(name="nofile", soft=min(OPEN_FILES_SOFT, hard), hard=hard))
    asked = {each.name for each in spec.limits.rlimits}
    return (*(each for each in usual if each.name not in asked), *spec.limits.rlimits)


def lines(spec: ContainerSpec, nodes: Path, host: Host) -> Iterator[Line]:
    """`nodes`: the directory of `make_nodes`."""
    for each in rlimits(spec, host.open_files_max):
        yield f"lxc.prlimit.{each.name}", f"{_word(each.soft)}:{_word(each.ceiling)}"
    for device in spec.limits.devices:
        yield "lxc.mount.entry", f"{nodes / device.path.name} {_target(device)} none bind,create=file 0 0"
    if host.devices_v2:
        yield "lxc.cgroup2.devices.deny", "a"
        yield from (("lxc.cgroup2.devices.allow", f"{device} rwm") for device in host.devices_v2)
        yield from (("lxc.cgroup2.devices.allow", device.rule) for device in spec.limits.devices)


def make_nodes(name: str, devices: Sequence[Device], directory: Path, user_base: int) -> None:
    """Device files of the container's own, with the host's modes, that its root owns. Raises StartError, OSError."""
    if devices:
        directory.mkdir(mode=0o711)
        directory.chmod(0o711)
    for device in devices:
        try:
            found = device.path.stat()
        except OSError as error:
            raise StartError(name, f"device {device.path}: {error.strerror}") from error
        node = directory / device.path.name
        os.mknod(node, stat.S_IFMT(found.st_mode) | 0o600, found.st_rdev)
        node.chmod(stat.S_IMODE(found.st_mode))
        os.chown(node, user_base, user_base)


def _target(device: Device) -> str:
    """Where it is on the host, below /dev; elsewhere by its name alone."""
    path = device.path
    return f"dev/{path.relative_to('/dev') if path.is_relative_to('/dev') else path.name}"


def _word(value: int) -> str:
    return "unlimited" if value == UNLIMITED else str(value)
