"""Control groups, v1, v2 and both at once: which hierarchies the host has, and one tree in them per container.

Owns: the table of how a limit is written on v1 and on v2, and the directories below one root (say "fofoca/n1").
May not know: LXC's configuration, jobs, trio. Everything here is synchronous and takes microseconds.

Limits are set on `<root>/<name>/payload`, by us, before anything runs in it, and read back at once. LXC then makes
its own directory below, which inherits them. So a limit can neither be ignored silently (LXC does that with keys of
the other layout), nor reached from inside, and the final counters outlive LXC's directory. A weight counts among
siblings only, so that one is set on `<root>/<name>`, whose siblings are the other containers.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PAYLOAD = "payload"
PERIOD_US = 100_000
CONTROLLERS_V2 = ("cpu", "memory", "pids", "cpuset", "io", "hugetlb")
COUNTER_BYTES = 64
REMOVE_TIMEOUT_S = 2.0
DEVICES = ("c 1:3", "c 1:5", "c 1:7", "c 1:8", "c 1:9", "c 5:0", "c 5:1", "c 5:2", "c 136:*")
"""null zero full random urandom tty console ptmx pts/*: all else is denied."""


class CgroupError(Exception):
    """The host's control groups cannot do what is asked: names the controller or the file, and the value."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Zero or None: not limited."""

    memory_bytes: int = 0
    cpu_milli: int = 0
    cpu_limit_milli: int | None = None
    pids_max: int = 0


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


@dataclass(frozen=True, slots=True)
class Write:
    """One value for one file of a controller; `optional` where kernels without the file are fine, `weight` where the
    value counts among siblings only."""

    controller: str
    file: str
    value: str
    optional: bool = False
    weight: bool = False


def detect(mounts: str | None = None, first_process: str | None = None) -> Layout:
    """The layout, from /proc/self/mounts and /proc/1/cgroup (given as texts in tests)."""
    mounts = Path("/proc/self/mounts").read_text() if mounts is None else mounts
    first_process = Path("/proc/1/cgroup").read_text() if first_process is None else first_process
    bases = _bases(first_process)
    found: dict[frozenset[str], Hierarchy] = {}
    for line in mounts.splitlines():
        _, mount, kind, options, *_ = line.split()
        if kind not in ("cgroup", "cgroup2") or not mount.startswith("/sys/fs/cgroup"):
            continue
        unified = kind == "cgroup2"
        words = {"unified"} if unified else {w for w in options.split(",") if w in _V1 or w.startswith("name=")}
        base = next((bases[word] for word in words if word in bases), "")
        root = Path(mount + base)
        controllers = _controllers_v2(root) if unified else words
        found.setdefault(frozenset(words), Hierarchy(root, frozenset(controllers), unified))
    return Layout(tuple(found.values()))


_V1 = frozenset(
    ("cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "hugetlb", "net_cls", "net_prio")
)


def _bases(first_process: str) -> dict[str, str]:
    """Controller (or "unified") to the group of the host's first process, without systemd's own scope."""
    bases: dict[str, str] = {}
    for line in first_process.splitlines():
        _, names, path = line.split(":", 2)
        path = path.removesuffix("/init.scope").rstrip("/")
        bases |= {name or "unified": path for name in names.split(",")}
    return bases


def _controllers_v2(root: Path) -> set[str]:
    try:
        return set((root / "cgroup.controllers").read_text().split())
    except OSError:
        return set()


def writes_v1(limits: Limits) -> list[Write]:
    """In the order in which the kernel takes them: the limit on memory before that on memory and swap."""
    writes = []
    if limits.memory_bytes:
        rounded = str(_pages(limits.memory_bytes))
        writes += [
            Write("memory", "memory.limit_in_bytes", rounded),
            Write("memory", "memory.memsw.limit_in_bytes", rounded, optional=True),
        ]
    if limits.cpu_milli:
        shares = min(262_144, max(2, limits.cpu_milli * 1024 // 1000))
        writes.append(Write("cpu", "cpu.shares", str(shares), weight=True))
    if limits.cpu_limit_milli is not None:
        quota_us = limits.cpu_limit_milli * PERIOD_US // 1000
        writes += [
            Write("cpu", "cpu.cfs_period_us", str(PERIOD_US)),
            Write("cpu", "cpu.cfs_quota_us", str(quota_us)),
        ]
    if limits.pids_max:
        writes.append(Write("pids", "pids.max", str(limits.pids_max)))
    return writes


def writes_v2(limits: Limits) -> list[Write]:
    writes = []
    if limits.memory_bytes:
        writes += [
            Write("memory", "memory.max", str(_pages(limits.memory_bytes))),
            Write("memory", "memory.swap.max", "0", optional=True),
        ]
    if limits.cpu_milli:
        weight = min(10_000, max(1, limits.cpu_milli // 10))
        writes.append(Write("cpu", "cpu.weight", str(weight), weight=True))
    if limits.cpu_limit_milli is not None:
        writes.append(Write("cpu", "cpu.max", f"{limits.cpu_limit_milli * PERIOD_US // 1000} {PERIOD_US}"))
    if limits.pids_max:
        writes.append(Write("pids", "pids.max", str(limits.pids_max)))
    return writes


def _pages(size_bytes: int) -> int:
    page = os.sysconf("SC_PAGESIZE")
    return max(size_bytes // page, 1) * page


class Cgroups:
    """One root's trees. `ensure` comes first, once for each start of the agent."""

    def __init__(self, root: str, layout: Layout | None = None) -> None:
        self.root = root
        self.layout = layout or detect()
        self._usage_files: dict[str, tuple[str, str, str]] = {}

    def directories(self, name: str) -> list[Path]:
        """The container's directory in every hierarchy; LXC makes those that `create` did not."""
        return [hierarchy.mount / self.root / name for hierarchy in self.layout.hierarchies]

    def directory(self, controller: str, name: str) -> Path | None:
        """Of the container's payload where the controller lives; None where the host lacks it."""
        hierarchy = self.layout.having(controller)
        return None if hierarchy is None else hierarchy.mount / self.root / name / PAYLOAD

    def ensure(self) -> None:
        """Makes the root in every hierarchy, ready to be divided, and on v1 closes it to all but DEVICES, which no
        group below can undo (on v2 that takes a BPF program, which LXC loads). Raises CgroupError."""
        try:
            for hierarchy in self.layout.hierarchies:
                path = hierarchy.mount
                for part in Path(self.root).parts:
                    _open_for_children(path, hierarchy)
                    path = path / part
                    path.mkdir(exist_ok=True)
                    _inherit_cpuset(path, hierarchy)
                _open_for_children(path, hierarchy)
                _close_devices(path, hierarchy)
        except OSError as error:
            raise CgroupError(f"cannot make the control group {self.root}: {error}") from error

    def create(self, name: str, limits: Limits) -> None:
        """The container's payload with its limits, each read back. A tree left by a former life goes first."""
        if any(path.exists() for path in self.directories(name)):
            self.remove(name)
        writes = self._writes(limits)
        try:
            for hierarchy in {write.controller: self.layout.having(write.controller) for write in writes}.values():
                self._create_payload(name, hierarchy)
        except OSError as error:
            raise CgroupError(f"cannot make a control group: {error}") from error
        for write in writes:
            self._apply(name, write)

    def _create_payload(self, name: str, hierarchy: Hierarchy | None) -> None:
        assert hierarchy is not None, "_writes refused what nobody has"
        path = hierarchy.mount / self.root / name
        path.mkdir(exist_ok=True)  # on v2 several controllers share it
        _open_for_children(path, hierarchy)
        (path / PAYLOAD).mkdir(exist_ok=True)

    def update(self, name: str, limits: Limits) -> None:
        """New limits for what is running: as `create`. Raises CgroupError, for memory below use too."""
        for write in self._writes(limits):
            self._apply(name, write)

    def _writes(self, limits: Limits) -> list[Write]:
        """Each limit in the words of the hierarchy that has its controller."""
        chosen = []
        for write in writes_v1(limits):
            hierarchy = self.layout.having(write.controller)
            if hierarchy is not None and not hierarchy.unified:
                chosen.append(write)
        for write in writes_v2(limits):
            hierarchy = self.layout.having(write.controller)
            if hierarchy is None:
                raise CgroupError(
                    f"the host has no {write.controller} controller, asked for {write.file}={write.value}"
                )
            if hierarchy.unified:
                chosen.append(write)
        return chosen

    def _apply(self, name: str, write: Write) -> None:
        payload = self.directory(write.controller, name)
        assert payload is not None, "_writes refused what nobody has"
        file = f"{payload.parent if write.weight else payload}/{write.file}"
        if write.optional and not os.path.exists(file):
            return
        try:
            _write(file, write.value)
            found = _read(file).strip()
        except OSError as error:
            raise CgroupError(f"{write.file}={write.value} refused: {error.strerror}") from error
        if found != write.value:
            raise CgroupError(f"{write.file} is {found} after writing {write.value}")

    def names(self) -> set[str]:
        """All containers that have a directory in any hierarchy."""
        found: set[str] = set()
        for hierarchy in self.layout.hierarchies:
            with suppress(FileNotFoundError):
                entries = list((hierarchy.mount / self.root).iterdir())
                found |= {entry.name for entry in entries if entry.is_dir()}
        return found - {PIVOT, SUPERVISORS}

    def usage(self, name: str) -> tuple[int, int, int]:
        """(memory_bytes, cpu_ns, pids) now; zeros where the host has no such counter. Raises FileNotFoundError."""
        files = self._usage_files.get(name)
        if files is None:
            files = self._usage_files[name] = self._counters(name)
        memory, cpu, pids = (_read(file, COUNTER_BYTES) if file else "0" for file in files)
        if cpu.startswith("usage_usec "):
            return int(memory), int(cpu.split(None, 2)[1]) * 1000, int(pids)
        return int(memory), int(cpu), int(pids)

    def _counters(self, name: str) -> tuple[str, str, str]:
        """Their files, by the layout: a container that is being started may not have them yet."""

        def file(controller: str, v1: str, v2: str) -> str:
            hierarchy = self.layout.having(controller)
            if hierarchy is None or not (v2 if hierarchy.unified else v1):
                return ""
            return f"{self.directory(controller, name)}/{v2 if hierarchy.unified else v1}"

        return (
            file("memory", "memory.usage_in_bytes", "memory.current"),
            file("cpuacct", "cpuacct.usage", "") or file("cpu", "", "cpu.stat"),
            file("pids", "pids.current", "pids.current"),
        )

    def processes(self, name: str) -> set[int]:
        """Everything in the container's tree, LXC's own monitor included."""
        return {pid for directory in self.directories(name) for pid in _processes(directory)}

    def kill(self, name: str) -> None:
        """SIGKILL to everything in the tree, frozen or not."""
        for directory in self.directories(name):
            with suppress(OSError):
                _write(directory / "cgroup.kill", "1")
        for pid in self.processes(name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for directory in self.directories(name):
            with suppress(OSError):
                _write(directory / PAYLOAD / "freezer.state", "THAWED")

    def remove(self, name: str) -> None:
        """Kills what is left and removes the tree. Raises CgroupError when the kernel keeps something alive."""
        self._usage_files.pop(name, None)
        deadline = time.monotonic() + REMOVE_TIMEOUT_S
        while [path for path in self.directories(name) if not remove_tree(path)]:
            if time.monotonic() > deadline:
                raise CgroupError(f"processes of {name} do not die: {sorted(self.processes(name))}")
            self.kill(name)
            time.sleep(0.002)

    def remove_root(self) -> None:
        """Removes the root, and its parents as far as nobody else uses them."""
        for hierarchy in self.layout.hierarchies:
            top = hierarchy.mount / self.root
            remove_tree(top)
            for parent in list(Path(self.root).parents)[:-1]:
                with suppress(OSError):
                    (hierarchy.mount / parent).rmdir()

    def supervisors(self) -> Path | None:
        """The group for supervisors to join, so that a service manager that stops the agent spares them.
        None where the agent is not in a service's group."""
        memberships = _bases(Path("/proc/self/cgroup").read_text())
        for key, hierarchy in (("name=systemd", self.layout.having("name=systemd")), ("unified", self.layout.unified)):
            if hierarchy is not None and memberships.get(key, ""):
                group = hierarchy.mount / self.root / SUPERVISORS
                group.mkdir(exist_ok=True)
                return group
        return None


PIVOT = "_pivot"
"""Where LXC's monitors wait for their end; shared by all containers, and no container's possible name."""
SUPERVISORS = "_supervisors"


def remove_tree(path: Path) -> bool:
    """rmdir from the leaves up; False where something is still in use."""
    try:
        inner = [entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
        if [entry for entry in inner if not remove_tree(Path(entry))]:
            return False
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _processes(directory: Path) -> Iterable[int]:
    for path, _, _ in os.walk(directory):
        with suppress(OSError):
            yield from (int(word) for word in _read(path + "/cgroup.procs").split())


def _open_for_children(path: Path, hierarchy: Hierarchy) -> None:
    """v2: lets children have the controllers. One by one, for the kernel takes a list only as a whole."""
    if not hierarchy.unified:
        return
    enabled = (path / "cgroup.subtree_control").read_text().split()
    for controller in _wanted(hierarchy.controllers, enabled):
        with suppress(OSError):  # a missing one is named when a limit needs it
            _write(path / "cgroup.subtree_control", f"+{controller}")


def _wanted(controllers: Iterable[str], enabled: Sequence[str]) -> list[str]:
    return [name for name in CONTROLLERS_V2 if name in controllers and name not in enabled]


def _inherit_cpuset(path: Path, hierarchy: Hierarchy) -> None:
    """v1: a new cpuset is empty and takes no process until it is filled; its children copy it."""
    if hierarchy.unified or "cpuset" not in hierarchy.controllers:
        return
    for file in ("cpuset.cpus", "cpuset.mems"):
        if not (path / file).read_text().strip():
            _write(path / file, (path.parent / file).read_text().strip())
    _write(path / "cgroup.clone_children", "1")


def _close_devices(path: Path, hierarchy: Hierarchy) -> None:
    """v1 takes this only before there are groups below; with them it has been done."""
    if "devices" not in hierarchy.controllers or hierarchy.unified:
        return
    if "a *:* rwm" in _read(f"{path}/devices.list"):
        _write(path / "devices.deny", "a")
        for device in DEVICES:
            _write(path / "devices.allow", f"{device} rwm")


def _write(file: Path | str, value: str) -> None:
    """os.write and not a file object: that one reports the kernel's refusal when nobody listens any more."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _read(file: str, size: int = 65536) -> str:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, size).decode()
    finally:
        os.close(descriptor)
