"""What this host has, what it offers, what is used of it now, and what is under pressure.

Owns the measuring; decides nothing. Sampling takes well under 2 ms, so it may be done on the loop.
`used` here is the whole host's, other programs included; what a node's own containers use comes from their cgroups.
PSI is described in the kernel's Documentation/accounting/psi.rst.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from node.host.confinement import Confinement, read_confinement
from node.host.errors import HostError
from scheduler.abilities import EXCLUSIVE_CORES
from scheduler.model import Resources


@dataclass(frozen=True, slots=True)
class CapacitySettings:
    """What the operator says; None leaves it to the measurement. Several nodes on one host need numbers here."""

    cpu_milli: int | None = None
    memory_bytes: int | None = None
    reserve_cpu_milli: int = 0
    reserve_memory_bytes: int = 256 * 2**20
    extra: tuple[tuple[str, int], ...] = ()
    exclusive_cores: int = 0
    """How many cores tasks may own."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What does not change while the agent runs."""

    capacity: Resources
    allocatable: Resources
    labels: tuple[tuple[str, str], ...]
    """kernel, arch, cgroup (v1, v2, hybrid, none), runtime; sorted."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """Percent of the last ten seconds in which some task waited for the resource."""

    cpu: float
    memory: float
    io: float


@dataclass(frozen=True, slots=True)
class Usage:
    """The host at one moment; CPU is the mean since the sample before."""

    used: Resources
    disk_used_bytes: int
    disk_total_bytes: int
    pressure: Pressure | None
    """None where the kernel measures none."""


def _cores_to_own(settings: CapacitySettings) -> tuple[tuple[str, int], ...]:
    return ((EXCLUSIVE_CORES, settings.exclusive_cores),) if settings.exclusive_cores else ()


def take_inventory(settings: CapacitySettings, runtime: str, confinement: Confinement | None = None) -> Inventory:
    """Measure the host; raises HostError if the reserve leaves nothing to offer."""
    confinement = confinement or read_confinement()
    capacity = Resources(
        settings.cpu_milli or _least(len(os.sched_getaffinity(0)) * 1000, confinement.cpu_milli),
        settings.memory_bytes or _least(psutil.virtual_memory().total, confinement.memory_bytes),
        tuple(sorted((*settings.extra, *_cores_to_own(settings)))),
    )
    allocatable = capacity - Resources(settings.reserve_cpu_milli, settings.reserve_memory_bytes)
    for name, offered in allocatable.items():
        if offered <= 0:
            raise HostError(
                f"{name}: the reserve ({capacity.get(name) - offered}) leaves nothing of the capacity"
                f" ({capacity.get(name)}); lower the reserve in [resources]"
            )
    labels = {
        "kernel": platform.release(),
        "arch": platform.machine(),
        "cgroup": confinement.layout,
        "runtime": runtime,
    }
    return Inventory(capacity, allocatable, tuple(sorted(labels.items())))


def _least(measured: int, limit: int | None) -> int:
    return measured if limit is None else min(measured, limit)


class UsageSampler:
    """Measures use; CPU needs two samples, so the first one counts from the making of the sampler."""

    def __init__(self, disk_path: Path, proc: Path = Path("/proc")) -> None:
        self._disk_path = disk_path
        self._pressure_folder = proc / "pressure"
        self._busy_s, self._at_s = _busy_s(), time.monotonic()
        self._cpu_milli = 0

    def sample(self) -> Usage:
        """Measure now."""
        disk = psutil.disk_usage(str(self._disk_path))
        memory = psutil.virtual_memory()
        return Usage(
            used=Resources(self._sample_cpu_milli(), memory.total - memory.available),
            disk_used_bytes=disk.used,
            disk_total_bytes=disk.total,
            pressure=self._sample_pressure(),
        )

    def _sample_cpu_milli(self) -> int:
        busy_s, at_s = _busy_s(), time.monotonic()
        # The kernel counts in hundredths of a second: what lies closer together says nothing.
        if at_s - self._at_s >= 0.1:
            self._cpu_milli = max(0, round((busy_s - self._busy_s) / (at_s - self._at_s) * 1000))
            self._busy_s, self._at_s = busy_s, at_s
        return self._cpu_milli

    def _sample_pressure(self) -> Pressure | None:
        try:
            return Pressure(*(_some_avg10(self._pressure_folder / name) for name in ("cpu", "memory", "io")))
        except OSError:
            return None  # switched off or not built in


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def _some_avg10(path: Path) -> float:
    """Return avg10 of a line like `some avg10=0.12 avg60=0.05 avg300=0.01 total=1234`."""
    first_line = path.read_text().partition("\n")[0]
    fields = dict(field.partition("=")[::2] for field in first_line.split()[1:])
    return float(fields["avg10"])
