"""Which hierarchies the host has, and where in them our groups begin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONTROLLERS_V1 = frozenset(
    ("cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "hugetlb", "net_cls", "net_prio")
)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    mount: Path
    """Where LXC starts to count: the mount point, or below it the first process's own group."""
    controllers: frozenset[str]
    unified: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """The host's hierarchies. A v1 controller is in at most one of them, the unified one has what v1 left over."""

    hierarchies: tuple[Hierarchy, ...]

    def having(self, controller: str) -> Hierarchy | None:
        return next((h for h in self.hierarchies if controller in h.controllers), None)

    @property
    def unified(self) -> Hierarchy | None:
        return next((h for h in self.hierarchies if h.unified), None)


def detect(mounts: str | None = None, first_process: str | None = None) -> Layout:
    """The layout, from /proc/self/mounts and /proc/1/cgroup (given as texts in tests)."""
    mounts = Path("/proc/self/mounts").read_text() if mounts is None else mounts
    first_process = Path("/proc/1/cgroup").read_text() if first_process is None else first_process
    bases = groups_by_controller(first_process)
    found: dict[frozenset[str], Hierarchy] = {}
    for line in mounts.splitlines():
        _, mount, kind, options, *_ = line.split()
        if kind not in ("cgroup", "cgroup2") or not mount.startswith("/sys/fs/cgroup"):
            continue
        unified = kind == "cgroup2"
        words = {"unified"} if unified else {w for w in options.split(",") if w in CONTROLLERS_V1 or _is_name(w)}
        base = next((bases[word] for word in words if word in bases), "")
        root = Path(mount + base)
        controllers = _controllers_v2(root) if unified else words
        found.setdefault(frozenset(words), Hierarchy(root, frozenset(controllers), unified))
    return Layout(tuple(found.values()))


def groups_by_controller(text: str) -> dict[str, str]:
    """Controller (or "unified") to a process's group, without systemd's own scope; `text` is its /proc/PID/cgroup."""
    groups: dict[str, str] = {}
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        path = path.removesuffix("/init.scope").rstrip("/")
        groups |= {name or "unified": path for name in names.split(",")}
    return groups


def _is_name(word: str) -> bool:
    return word.startswith("name=")


def _controllers_v2(root: Path) -> set[str]:
    try:
        return set((root / "cgroup.controllers").read_text().split())
    except OSError:
        return set()
