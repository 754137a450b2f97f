"""What the agent itself may use: the limits of the control groups it runs in, where somebody put it into a container.

Reads /proc/self and the cgroup files, v1 and v2; writes nothing. A limit of any group above counts too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# v1 says "no limit" as the largest page-aligned number.
_V1_UNLIMITED_BYTES = 2**62


@dataclass(frozen=True, slots=True)
class Confinement:
    """None: not limited. `layout` is v1, v2, hybrid (v1 with a unified tree beside it) or none."""

    memory_bytes: int | None
    cpu_milli: int | None
    layout: str


@dataclass(frozen=True, slots=True)
class _Mount:
    """A hierarchy as this process sees it: `root` of the hierarchy is what `point` shows."""

    root: str
    point: Path
    controllers: frozenset[str]
    unified: bool


def read_confinement(proc: Path = Path("/proc"), prefix: Path = Path("/")) -> Confinement:
    """Return the limits on this process; `proc` and `prefix` (before mount points) are for tests."""
    mounts = list(_mounts(proc, prefix))
    groups = _groups(proc)
    memory_limits: list[int] = []
    cpu_limits: list[int] = []
    for mount in mounts:
        for folder in _folders_upwards(mount, groups):
            memory_limits += _memory_limits(folder, mount)
            cpu_limits += _cpu_limits(folder, mount)
    return Confinement(min(memory_limits, default=None), min(cpu_limits, default=None), _layout(mounts))


def _mounts(proc: Path, prefix: Path) -> Iterator[_Mount]:
    for line in _read(proc / "self/mountinfo").splitlines():
        fields, _, source = line.partition(" - ")
        kind, _, options = source.split(" ")[:3]
        if kind in ("cgroup", "cgroup2"):
            root, point = fields.split(" ")[3:5]
            unified = kind == "cgroup2"
            controllers = frozenset() if unified else frozenset(options.split(","))
            yield _Mount(root, prefix / point.lstrip("/"), controllers, unified)


def _groups(proc: Path) -> dict[str, str]:
    """Return controller -> this process's group; "" stands for the unified hierarchy."""
    groups: dict[str, str] = {}
    for line in _read(proc / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        groups |= dict.fromkeys(controllers.split(","), path)
    return groups


def _folders_upwards(mount: _Mount, groups: dict[str, str]) -> Iterator[Path]:
    """Yield the process's own group and those above it, as far as this mount shows them."""
    names = [""] if mount.unified else [name for name in groups if name in mount.controllers]
    for name in names[:1]:
        path = groups.get(name, "/")
        # In a container without a cgroup namespace the path is the host's, and the mount shows a part of it.
        shown = path.removeprefix(mount.root) if mount.root != "/" else path
        folder = mount.point / shown.lstrip("/")
        while folder.is_relative_to(mount.point):
            yield folder
            folder = folder.parent


def _memory_limits(folder: Path, mount: _Mount) -> list[int]:
    name = "memory.max" if mount.unified else "memory.limit_in_bytes"
    text = _read(folder / name).strip()
    return [int(text)] if text.isdigit() and int(text) < _V1_UNLIMITED_BYTES else []


def _cpu_limits(folder: Path, mount: _Mount) -> list[int]:
    if mount.unified:
        words = _read(folder / "cpu.max").split()
    else:
        words = [_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()]
    if len(words) != 2 or not (words[0].isdigit() and words[1].isdigit()):
        return []  # "max", -1 or no such controller here
    quota_us, period_us = int(words[0]), int(words[1])
    return [max(1, quota_us * 1000 // period_us)] if period_us else []


def _layout(mounts: list[_Mount]) -> str:
    v1 = any(mount.controllers - {"rw", "name=systemd"} for mount in mounts if not mount.unified)
    unified = any(mount.unified for mount in mounts)
    if v1:
        return "hybrid" if unified else "v1"
    return "v2" if unified else "none"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        # Absent: the kernel or the hierarchy has no such controller, which means no limit of that kind.
        return ""
