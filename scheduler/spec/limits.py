"""What the container's control groups and rlimits enforce beyond memory, CPU and process count.

Owns the words users have for each knob, and their bounds. What they become on a host is node/host/cgroups's; which
nodes can do it is scheduler/abilities.py's. Names of disks and devices are the operator's: users never name a path.
"""

from __future__ import annotations

import re

from scheduler.spec.part import Part, require

UNLIMITED = -1
AMOUNT_MAX = 1 << 60
CORES_MAX = 4096
RLIMITS = (
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip
"""As setrlimit(2) names them, in small letters; bytes, seconds, microseconds or counts, as there."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?")
_LIST = re.compile(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", re.ASCII)
_CLASS = re.compile(r"([0-9a-f]{1,4}):([0-9a-f]{1,4})")
_PAGE = re.compile(r"([1-9]\d{0,3})(KB|MB|GB)", re.ASCII)
_PAGE_UNITS = {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


class DiskLimit(Part, frozen=True):
    """Reads and writes of one disk, per second; 0: not limited."""

    disk: str = ""
    read_bytes: int = 0
    write_bytes: int = 0
    read_ops: int = 0
    write_ops: int = 0


class HugePages(Part, frozen=True):
    """How many bytes of huge pages of one size may be used."""

    page: str
    bytes: int


class Rlimit(Part, frozen=True):
    """A resource limit of each process: its own (soft), and how far it may raise that (hard). -1: unlimited."""

    name: str
    soft: int
    hard: int | None = None

    @property
    def ceiling(self) -> int:
        """The hard limit; the soft one where none is given."""
        return self.soft if self.hard is None else self.hard


class Limits(Part, frozen=True):
    """What the container's control groups and rlimits enforce beyond memory, CPU and process count."""

    swap_bytes: int = 0
    memory_soft_bytes: int = 0
    memory_high_bytes: int = 0
    swappiness: int | None = None
    oom_group: bool = False
    cpu_weight: int | None = None
    cpu_period_us: int = 100_000
    cores: str = ""
    exclusive_cores: int = 0
    memory_nodes: str = ""
    disk_weight: int | None = None
    disks: tuple[DiskLimit, ...] = ()
    devices: tuple[str, ...] = ()
    huge_pages: tuple[HugePages, ...] = ()
    net_class: str = ""
    rlimits: tuple[Rlimit, ...] = ()


def check(limits: Limits) -> None:
    """Raise InvalidSpec for the first field that no cluster could take."""
    _check_memory(limits)
    _check_cpu(limits)
    _check_disks(limits)
    _check_names(limits)
    _check_net(limits)
    _check_rlimits(limits.rlimits)


def _check_memory(limits: Limits) -> None:
    for field in ("swap_bytes", "memory_soft_bytes", "memory_high_bytes"):
        value = getattr(limits, field)
        require(0 <= value <= AMOUNT_MAX, f"limits.{field}", value, "bytes, or 0 for none")
    swappiness = limits.swappiness
    require(swappiness is None or 0 <= swappiness <= 100, "limits.swappiness", swappiness, "from 0 to 100")
    sizes = [each.page for each in limits.huge_pages]
    require(len(set(sizes)) == len(sizes), "limits.huge_pages", ", ".join(sizes), "each page size once")
    for each in limits.huge_pages:
        page = _PAGE.fullmatch(each.page)
        require(page, "limits.huge_pages.page", each.page, "a page size such as 2MB or 1GB")
        whole = page is not None and each.bytes % (int(page[1]) * _PAGE_UNITS[page[2]]) == 0
        expected = f"bytes, 0 or more, a whole number of pages of {each.page}"
        require(whole and 0 <= each.bytes <= AMOUNT_MAX, "limits.huge_pages.bytes", each.bytes, expected)


def _check_cpu(limits: Limits) -> None:
    weight, period = limits.cpu_weight, limits.cpu_period_us
    require(weight is None or 1 <= weight <= 10_000, "limits.cpu_weight", weight, "from 1 to 10000 (100: one core's)")
    require(1_000 <= period <= 1_000_000, "limits.cpu_period_us", period, "from 1000 to 1000000 microseconds")
    for field in ("cores", "memory_nodes"):
        text = getattr(limits, field)
        require(not text or members(text), f"limits.{field}", text, "a list such as 0-3,8, numbers below 4096")
    count = limits.exclusive_cores
    require(0 <= count <= CORES_MAX, "limits.exclusive_cores", count, f"from 0 to {CORES_MAX}")
    require(not (count and limits.cores), "limits.cores", limits.cores, "left out beside exclusive_cores")


def _check_disks(limits: Limits) -> None:
    weight = limits.disk_weight
    require(weight is None or 1 <= weight <= 1_000, "limits.disk_weight", weight, "from 1 to 1000 (100: as others)")
    disks = [each.disk for each in limits.disks]
    require(len(disks) <= 8 and len(set(disks)) == len(disks), "limits.disks", ", ".join(disks), "8 at most, each once")
    for each in limits.disks:
        require(not each.disk or _NAME.fullmatch(each.disk), "limits.disks.disk", each.disk, "a disk by its name")
        rates = {"read_bytes": 1, "write_bytes": 1, "read_ops": 1, "write_ops": 1}
        for field in rates:
            value = getattr(each, field)
            require(0 <= value <= AMOUNT_MAX, f"limits.disks.{field}", value, "0 (not limited) or more, per second")
        require(any(getattr(each, field) for field in rates), "limits.disks", each.disk, "at least one rate of a disk")


def _check_names(limits: Limits) -> None:
    devices = limits.devices
    require(
        len(devices) <= 16 and len(set(devices)) == len(devices), "limits.devices", devices, "16 at most, each once"
    )
    for name in devices:
        require(_NAME.fullmatch(name), "limits.devices", name, "a device by its name, such as fuse; no path")


def _check_net(limits: Limits) -> None:
    text = limits.net_class
    require(not text or _CLASS.fullmatch(text), "limits.net_class", text, "a traffic class such as 1:10 (hexadecimal)")


def _check_rlimits(rlimits: tuple[Rlimit, ...]) -> None:
    names = [each.name for each in rlimits]
    require(len(set(names)) == len(names), "limits.rlimits", ", ".join(names), "each name once")
    for each in rlimits:
        require(each.name in RLIMITS, "limits.rlimits.name", each.name, f"one of {', '.join(RLIMITS)}")
        for value in (each.soft, each.ceiling):
            require(
                UNLIMITED <= value <= AMOUNT_MAX, f"limits.rlimits.{each.name}", value, "a number, or -1: unlimited"
            )
        order = each.ceiling == UNLIMITED or UNLIMITED < each.soft <= each.ceiling
        require(order, f"limits.rlimits.{each.name}", f"{each.soft}:{each.ceiling}", "a soft limit up to the hard one")


def members(text: str) -> tuple[int, ...]:
    """Return the numbers of a list such as "0-3,8", sorted; empty for what is none, or has numbers beyond 4095."""
    if not _LIST.fullmatch(text):
        return ()
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if int(last or first) >= CORES_MAX or int(last or first) < int(first):
            return ()
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))


def class_number(text: str) -> int:
    """Return a traffic class such as "1:10" as the kernel counts it: 0x00010010."""
    match = _CLASS.fullmatch(text)
    return (int(match[1], 16) << 16 | int(match[2], 16)) if match else 0
