"""What a container's control groups can be asked to hold, with everything resolved: numbers and kernel names only."""

from __future__ import annotations

from dataclasses import dataclass

PERIOD_US = 100_000


@dataclass(frozen=True, slots=True)
class DiskRate:
    """Per second, 0: not limited. `device` is the whole disk's MAJOR:MINOR."""

    device: str
    read_bytes: int = 0
    write_bytes: int = 0
    read_ops: int = 0
    write_ops: int = 0


@dataclass(frozen=True, slots=True)
class HugePageLimit:
    """`page` as the kernel names the size: 2MB."""

    page: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MoreLimits:
    """What few containers ask for. Zero, None or empty: not limited; swap is the exception, of which 0 is none."""

    swap_bytes: int = 0
    memory_soft_bytes: int = 0
    memory_high_bytes: int = 0
    swappiness: int | None = None
    oom_group: bool = False
    cpu_weight: int | None = None
    """In place of the weight by the request; 100 is one core's."""
    cpu_period_us: int = PERIOD_US
    cores: tuple[int, ...] = ()
    memory_nodes: tuple[int, ...] = ()
    disk_weight: int | None = None
    disks: tuple[DiskRate, ...] = ()
    huge_pages: tuple[HugePageLimit, ...] = ()
    net_class: int = 0
    """As net_cls counts it: major << 16 | minor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(MoreLimits):
    """All of it. `memory_bytes` is without swap; `cpu_milli` is a weight, `cpu_limit_milli` a ceiling."""

    memory_bytes: int = 0
    cpu_milli: int = 0
    cpu_limit_milli: int | None = None
    pids_max: int = 0
