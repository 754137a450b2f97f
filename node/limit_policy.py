"""What this node lets tasks be limited by, and what a job's words mean here: disks, devices and rlimits by number.

Owns the step from a spec's limits to what a runtime is given, and the labels by which placement knows of it. Placement
keeps to the labels, so what is refused here has changed since. May not know: control groups, where tasks run.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from node import logs
from node.errors import InvalidConfig, NodeError
from node.host.block_devices import scheduler, whole_disk
from node.host.cgroups import DiskRate, HugePageLimit, MoreLimits
from node.host.cores import cores_by_memory_node
from node.limit_settings import Limits as Settings
from node.limit_words import parse_amount, parse_bounds, parse_rates
from node.runtime.limits import Device, FurtherLimits, hard_maximum
from node.runtime.protocol import Feature
from scheduler.abilities import CORE, DEVICES, DISKS, FREEZE, LIMITS, MAXIMUM, MEMORY_NODE
from scheduler.spec.limits import RLIMITS, UNLIMITED, Limits, Rlimit, class_number, members

log = logs.get("limits")


class NotOffered(NodeError):
    """The node does not have what a job names."""


@dataclass(frozen=True)
class LimitPolicy:
    """Fixed while the agent runs. `disks` has the node's own under ""."""

    disks: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, Device] = field(default_factory=dict)
    rates: Mapping[str, int] = field(default_factory=dict)
    rlimits: tuple[Rlimit, ...] = ()
    maxima: Mapping[str, int] = field(default_factory=dict)

    def limits(self, asked: Limits, features: frozenset[Feature]) -> FurtherLimits:
        """Return what the container gets; cores that it is to own are not picked here. The operator's defaults go to
        runtimes that can hold them. Raises NotOffered."""
        named = {each.name for each in asked.rlimits}
        usual = self.rlimits if "rlimits" in features else ()
        return FurtherLimits(
            groups=self._groups(asked, self.rates if "limits" in features else {}),
            devices=tuple(self._device(name) for name in asked.devices),
            rlimits=(*(each for each in usual if each.name not in named), *asked.rlimits),
        )

    def _groups(self, asked: Limits, rates: Mapping[str, int]) -> MoreLimits:
        return MoreLimits(
            swap_bytes=asked.swap_bytes,
            memory_soft_bytes=asked.memory_soft_bytes,
            memory_high_bytes=asked.memory_high_bytes,
            swappiness=asked.swappiness,
            oom_group=asked.oom_group,
            cpu_weight=asked.cpu_weight,
            cpu_period_us=asked.cpu_period_us,
            cores=members(asked.cores),
            memory_nodes=members(asked.memory_nodes),
            disk_weight=asked.disk_weight,
            disks=tuple(self._rates(asked, rates)),
            huge_pages=tuple(HugePageLimit(each.page, each.bytes) for each in asked.huge_pages),
            net_class=class_number(asked.net_class),
        )

    def _rates(self, asked: Limits, usual: Mapping[str, int]) -> Iterator[DiskRate]:
        if usual and "" in self.disks and not any(not each.disk for each in asked.disks):
            yield DiskRate(self.disks[""], **usual)
        for each in asked.disks:
            if each.disk not in self.disks:
                raise NotOffered(f"this node has no disk {each.disk or 'of its own that can be limited'}")
            yield DiskRate(self.disks[each.disk], each.read_bytes, each.write_bytes, each.read_ops, each.write_ops)

    def _device(self, name: str) -> Device:
        if name not in self.devices:
            raise NotOffered(f"this node has no device {name} (limits.devices)")
        return self.devices[name]

    def labels(self, abilities: frozenset[str]) -> dict[str, str]:
        """Return what to advertise beside what a runtime is able to; a label with nothing in it is left out."""
        can = set(abilities)
        if "" not in self.disks:
            can.discard("disk")
        if scheduler(self.disks.get("", "")) != "bfq":  # the file is there all the same, and does nothing
            can.discard("disk-weight")
        named = {LIMITS: can & ADVERTISED | {each for each in can if each.startswith("hugetlb-")}}
        if "disk" in abilities:
            named[DISKS] = {name for name in self.disks if name}
        if "rlimits" in abilities:
            named[DEVICES] = set(self.devices)
        found = {label: ",".join(sorted(names)) for label, names in named.items() if names}
        return {**found, **{f"{MAXIMUM}{name}": str(most) for name, most in self.maxima.items()}}


ADVERTISED = frozenset(
    ("swap", "soft", "high", "swappiness", "oom-group", "cpu-period", "cpuset", "disk", "disk-weight", "net-class")
) | {"rlimits", FREEZE}
"""What every node has, memory, CPU and process count, goes without saying."""


def read_policy(settings: Settings, data_directory: Path) -> LimitPolicy:
    """Return what the configuration says and the host has; a device that is not there is left out and logged. Raises
    InvalidConfig for what an operator can't have meant."""
    cores = cores_by_memory_node()
    maxima = {"swap": settings.swap_bytes_max, CORE: max(map(max, cores.values())), MEMORY_NODE: max(cores)}
    maxima |= {name: most for name in RLIMITS if (most := _maximum(settings, name)) != UNLIMITED}
    return LimitPolicy(
        disks=dict(_disks(settings, data_directory)),
        devices=dict(_devices(settings)),
        rates=parse_rates(settings.disk_rates, "limits.disk_rates") if settings.disk_rates else {},
        rlimits=tuple(_rlimit(name, text) for name, text in sorted(settings.rlimits.items())),
        maxima=maxima,
    )


def _maximum(settings: Settings, name: str) -> int:
    own = hard_maximum(name)
    if name not in settings.rlimits_max:
        return own
    asked = parse_amount(name, settings.rlimits_max[name], f"limits.rlimits_max.{name}")
    return min((each for each in (own, asked) if each != UNLIMITED), default=UNLIMITED)


def _rlimit(name: str, text: str) -> Rlimit:
    soft, hard = parse_bounds(name, text, f"limits.rlimits.{name}")
    return Rlimit(name=name, soft=soft, hard=hard)


def _disks(settings: Settings, data_directory: Path) -> Iterator[tuple[str, str]]:
    own = whole_disk(data_directory)
    if own is not None:
        yield "", own
    for name, text in settings.disks.items():
        disk = whole_disk(Path(text)) if text.startswith("/") else None
        if disk is None:
            raise InvalidConfig(f"limits.disks.{name}", text, "expected a disk, such as /dev/sda, or a path on one")
        yield name, disk


def _devices(settings: Settings) -> Iterator[tuple[str, Device]]:
    for name, text in settings.devices.items():
        path, _, access = text.partition(":")
        if not path.startswith("/dev/") or ".." in path or set(access) - set("rwm"):
            raise InvalidConfig(f"limits.devices.{name}", text, "expected /dev/..., with :rw or such behind it")
        try:
            found = os.stat(path)
        except OSError as error:
            log.warning("a device is not offered", device=name, why=f"{path}: {error.strerror}")
            continue
        if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
            raise InvalidConfig(f"limits.devices.{name}", text, "expected a device file")
        kind = "b" if stat.S_ISBLK(found.st_mode) else "c"
        number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
        ordered = "".join(each for each in "rwm" if each in (access or "rw"))
        yield name, Device(Path(path), f"{kind} {number} {ordered}")
