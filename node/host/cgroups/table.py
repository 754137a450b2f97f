"""What each limit is on v1 and on v2: the one table of kernel files, and the writes that lead from limits to others.

A knob has, for each version, the files that carry it, in the order in which the kernel takes them; none where the
kernel has no such thing. Its name is the ability that a node with those files advertises (scheduler/abilities.py).
Sources: the kernel's Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from node.host.cgroups.limits import DiskRate, Limits

Values = Mapping[str, str]
"""What a file is to hold: a text under "", or one under each key of the file's lines; empty: nothing is limited."""
MEMORY_V1, MEMSW_V1, MEMORY_V2 = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max"


@dataclass(frozen=True, slots=True)
class File:
    """A file of a controller; of several names the first that the kernel has."""

    controller: str
    names: tuple[str, ...]
    values: Callable[[Limits], Values]
    free: str = "max"
    """What takes a limit away again."""
    optional: Callable[[Limits], bool] = lambda _: False
    """Whether a kernel without the file is fine."""
    weight: bool = False
    """It counts among siblings only, and belongs one group up."""
    each: bool = False
    """v1 holds every group to its own value alone: it is written to those below as well."""
    listed: bool = False
    """A list of numbers that v1 keeps in every group below, each within the one above."""


@dataclass(frozen=True, slots=True)
class Knob:
    """A limit, and its files."""

    name: str
    v1: tuple[File, ...]
    v2: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Write:
    """One value for one file: what `File` says, and the key of its line, if it has lines."""

    file: File
    key: str
    value: str
    optional: bool

    @property
    def text(self) -> str:
        """What is written."""
        return f"{self.key} {self.value}" if self.key else self.value or "\n"

    def holds(self, found: str) -> bool:
        """Whether what the file says now is what was written. Lines of freed keys may be gone."""
        if self.file.listed:
            return not self.value or _members(found) == _members(self.value)
        if not self.key:
            return found.strip().removeprefix("default ") == self.value
        lines = dict(line.split(" ", 1) for line in found.splitlines() if " " in line)
        default = self.value == self.file.free
        return lines.get(self.key, self.value if default else "").split() == self.value.split()


def writes(files: tuple[File, ...], old: Limits, new: Limits) -> Iterator[Write]:
    """Yield what has to be written to these files for `new` where `old` is, in the kernel's order."""
    for file in files:
        before, after = file.values(old), file.values(new)
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                yield Write(file, key, after.get(key, file.free), file.optional(new))


def ordered(changes: list[Write], held_bytes: int) -> list[Write]:
    """Put v1's limit on memory and swap before that on memory alone where memory passes what both hold now: the kernel
    never lets the second pass the first."""
    names = [write.file.names[0] for write in changes]
    if MEMORY_V1 in names and MEMSW_V1 in names and int(changes[names.index(MEMORY_V1)].value) > held_bytes:
        changes = list(changes)  # the caller's own is asked for again
        changes.insert(names.index(MEMORY_V1), changes.pop(names.index(MEMSW_V1)))
    return changes


def _one(value: object) -> Values:
    """A file's only value; nothing for None and 0."""
    return {"": str(value)} if value else {}


def _pages(size_bytes: int) -> int:
    page = os.sysconf("SC_PAGESIZE")
    return max(size_bytes // page, 1) * page if size_bytes else 0


def _memory_and_swap(limits: Limits) -> int:
    return _pages(limits.memory_bytes) + _pages(limits.swap_bytes) if limits.memory_bytes else 0


def _weight(limits: Limits) -> int:
    """Of 1 to 10000, 100 is one core's."""
    return limits.cpu_weight or (min(10_000, max(1, limits.cpu_milli // 10)) if limits.cpu_milli else 0)


def _shares(limits: Limits) -> int:
    """v1 counts in 1024ths of a core, and finer."""
    if limits.cpu_weight is None:
        return min(262_144, max(2, limits.cpu_milli * 1024 // 1000)) if limits.cpu_milli else 0
    return max(2, limits.cpu_weight * 1024 // 100)


def _quota_us(limits: Limits) -> int:
    return limits.cpu_limit_milli * limits.cpu_period_us // 1000 if limits.cpu_limit_milli is not None else 0


def _period_us(limits: Limits) -> int:
    return limits.cpu_period_us if limits.cpu_limit_milli is not None else 0


def _bandwidth(limits: Limits) -> str:
    return f"{_quota_us(limits)} {limits.cpu_period_us}" if limits.cpu_limit_milli is not None else ""


def _list(numbers: tuple[int, ...]) -> Values:
    return _one(",".join(map(str, numbers)))


def _members(text: str) -> set[int]:
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def _throttle(name: str, rate: Callable[[DiskRate], int]) -> File:
    def values(limits: Limits) -> Values:
        return {each.device: str(rate(each)) for each in limits.disks if rate(each)}

    return File("blkio", (f"blkio.throttle.{name}_device",), values, free="0", each=True)


def _io_max(limits: Limits) -> Values:
    def words(disk: DiskRate) -> str:
        rates = {"rbps": disk.read_bytes, "wbps": disk.write_bytes, "riops": disk.read_ops, "wiops": disk.write_ops}
        return " ".join(f"{key}={rate or 'max'}" for key, rate in rates.items())

    return {each.device: words(each) for each in limits.disks}


def _huge(page: str, suffix: str, free: str) -> File:
    def values(limits: Limits) -> Values:
        asked = next((each.bytes for each in limits.huge_pages if each.page == page), None)
        return {} if asked is None else {"": str(asked // _PAGE_BYTES[page] * _PAGE_BYTES[page])}

    return File("hugetlb", (f"hugetlb.{page}.{suffix}",), values, free=free)


_PAGE_BYTES = {"64KB": 1 << 16, "2MB": 1 << 21, "16MB": 1 << 24, "32MB": 1 << 25, "512MB": 1 << 29, "1GB": 1 << 30}
"""Sizes of huge pages on the machines that have them."""
_NONE_FREE = "9223372036854771712"
"""v1's largest page-aligned number; what -1 becomes, so that it can be read back."""

KNOBS = (
    Knob(
        "memory",
        (File("memory", (MEMORY_V1,), lambda n: _one(_pages(n.memory_bytes)), _NONE_FREE),),
        (File("memory", (MEMORY_V2,), lambda n: _one(_pages(n.memory_bytes))),),
    ),
    Knob(
        "swap",
        (File("memory", (MEMSW_V1,), lambda n: _one(_memory_and_swap(n)), _NONE_FREE, lambda n: not n.swap_bytes),),
        (
            File(
                "memory",
                ("memory.swap.max",),
                lambda n: {"": str(_pages(n.swap_bytes))} if n.memory_bytes else {},
                optional=lambda n: not n.swap_bytes,
            ),
        ),
    ),
    Knob(
        "soft",
        (File("memory", ("memory.soft_limit_in_bytes",), lambda n: _one(_pages(n.memory_soft_bytes)), _NONE_FREE),),
        (File("memory", ("memory.low",), lambda n: _one(_pages(n.memory_soft_bytes)), "0"),),
    ),
    Knob("high", (), (File("memory", ("memory.high",), lambda n: _one(_pages(n.memory_high_bytes))),)),
    Knob(
        "swappiness",
        (
            File(
                "memory",
                ("memory.swappiness",),
                lambda n: {} if n.swappiness is None else {"": str(n.swappiness)},
                "60",
                each=True,
            ),
        ),
        (),
    ),
    Knob("oom-group", (), (File("memory", ("memory.oom.group",), lambda n: _one(n.oom_group and 1), "0"),)),
    Knob(
        "cpu",
        (File("cpu", ("cpu.shares",), lambda n: _one(_shares(n)), "1024", weight=True),),
        (File("cpu", ("cpu.weight",), lambda n: _one(_weight(n)), "100", weight=True),),
    ),
    Knob(
        "cpu-period",
        (
            File("cpu", ("cpu.cfs_period_us",), lambda n: _one(_period_us(n)), "100000"),
            File("cpu", ("cpu.cfs_quota_us",), lambda n: _one(_quota_us(n)), "-1"),
        ),
        (File("cpu", ("cpu.max",), lambda n: _one(_bandwidth(n)), "max 100000"),),
    ),
    Knob(
        "pids",
        (File("pids", ("pids.max",), lambda n: _one(n.pids_max)),),
        (File("pids", ("pids.max",), lambda n: _one(n.pids_max)),),
    ),
    Knob(
        "cpuset",
        (
            File("cpuset", ("cpuset.cpus",), lambda n: _list(n.cores), "", listed=True),
            File("cpuset", ("cpuset.mems",), lambda n: _list(n.memory_nodes), "", listed=True),
        ),
        (
            File("cpuset", ("cpuset.cpus",), lambda n: _list(n.cores), "", listed=True),
            File("cpuset", ("cpuset.mems",), lambda n: _list(n.memory_nodes), "", listed=True),
        ),
    ),
    Knob(
        "disk",
        (
            _throttle("read_bps", lambda disk: disk.read_bytes),
            _throttle("write_bps", lambda disk: disk.write_bytes),
            _throttle("read_iops", lambda disk: disk.read_ops),
            _throttle("write_iops", lambda disk: disk.write_ops),
        ),
        (File("io", ("io.max",), _io_max, "rbps=max wbps=max riops=max wiops=max"),),
    ),
    Knob(
        "disk-weight",
        (File("blkio", ("blkio.bfq.weight",), lambda n: _one(n.disk_weight), "100", weight=True),),
        (File("io", ("io.bfq.weight", "io.weight"), lambda n: _one(n.disk_weight), "100", weight=True),),
    ),
    *(
        Knob(f"hugetlb-{page}", (_huge(page, "limit_in_bytes", _NONE_FREE),), (_huge(page, "max", "max"),))
        for page in _PAGE_BYTES
    ),
    Knob("net-class", (File("net_cls", ("net_cls.classid",), lambda n: _one(n.net_class), "0", each=True),), ()),
)
