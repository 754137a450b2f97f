"""The groups of one agent's containers below one root (say "fofoca/n1"): made, limited, changed, read, removed.

Limits are set on `<root>/<name>/payload`, by us, before anything runs in it, and read back at once. LXC then makes
its own directory below, which inherits them. So a limit can neither be ignored silently (LXC does that with keys of
the other layout), nor reached from inside, and the final counters outlive LXC's directory. A weight counts among
siblings only, so that one is set on `<root>/<name>`, whose siblings are the other containers.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from node.host.cgroups.devices import close_root, restrict
from node.host.cgroups.files import CgroupError, read, remove_tree, write
from node.host.cgroups.layouts import Hierarchy, Layout, detect, groups_by_controller
from node.host.cgroups.limits import Limits
from node.host.cgroups.table import KNOBS, MEMORY_V2, MEMSW_V1, File, Write, ordered, writes

PAYLOAD = "payload"
PIVOT = "_pivot"
"""Where LXC's monitors wait for their end; shared by all containers, and no container's possible name."""
SUPERVISORS = "_supervisors"
CONTROLLERS_V2 = ("cpu", "memory", "pids", "cpuset", "io", "hugetlb")
COUNTER_BYTES = 64
REMOVE_TIMEOUT_S = 2.0
KNOWN_WRITES_MAX = 64
"""Many containers have the same limits, and each start asks several times what they mean here."""


class Cgroups:
    """One root's trees. `ensure` comes first, once for each start of the agent. `devices`: the rules, such as
    "c 10:229 rwm", that single containers may be granted."""

    def __init__(self, root: str, layout: Layout | None = None, devices: Sequence[str] = ()) -> None:
        self.root = root
        self.layout = layout or detect()
        self._devices = tuple(devices)
        self._usage_files: dict[str, tuple[str, str, str]] = {}
        self._known_writes: dict[tuple[Limits, Limits], list[Write]] = {}

    # --- where things are

    def directories(self, name: str) -> list[Path]:
        """The container's directory in every hierarchy; LXC makes those that `create` did not."""
        return [hierarchy.mount / self.root / name for hierarchy in self.layout.hierarchies]

    def directory(self, controller: str, name: str) -> Path | None:
        """Of the container's payload where the controller lives; None where the host lacks it."""
        hierarchy = self.layout.having(controller)
        return None if hierarchy is None else hierarchy.mount / self.root / name / PAYLOAD

    def names(self) -> set[str]:
        """All containers that have a directory in any hierarchy."""
        found: set[str] = set()
        for hierarchy in self.layout.hierarchies:
            with suppress(FileNotFoundError):
                entries = list((hierarchy.mount / self.root).iterdir())
                found |= {entry.name for entry in entries if entry.is_dir()}
        return found - {PIVOT, SUPERVISORS}

    def controllers(self, limits: Limits) -> set[str]:
        """Those that carry these limits; the container must be below its payload in each of them."""
        return {write.file.controller for write in self._writes(Limits(), limits)}

    def abilities(self) -> set[str]:
        """The names of the knobs whose files this kernel has, after `ensure`."""
        return {knob.name for knob in KNOBS if self._has(knob.v1, False) or self._has(knob.v2, True)}

    def _has(self, files: Sequence[File], unified: bool) -> bool:
        return bool(files) and all(self._has_file(file, unified) for file in files)

    def _has_file(self, file: File, unified: bool) -> bool:
        hierarchy = self.layout.having(file.controller)
        if hierarchy is None or hierarchy.unified != unified:
            return False
        return any((hierarchy.mount / self.root / name).exists() for name in file.names)

    # --- making and limiting

    def ensure(self) -> None:
        """Makes the root in every hierarchy, ready to be divided, and on v1 closes it to all but the usual devices and
        those that may be granted, which no group below can undo. Raises CgroupError."""
        try:
            for hierarchy in self.layout.hierarchies:
                path = hierarchy.mount
                for part in Path(self.root).parts:
                    _open_for_children(path, hierarchy)
                    path = path / part
                    path.mkdir(exist_ok=True)
                    _inherit_cpuset(path, hierarchy)
                _open_for_children(path, hierarchy)
                if "devices" in hierarchy.controllers and not hierarchy.unified:
                    close_root(path, self._devices)
        except OSError as error:
            raise CgroupError(f"cannot make the control group {self.root}: {error}") from error

    def create(self, name: str, limits: Limits, devices: Sequence[str] = ()) -> None:
        """The container's payload with its limits, each read back. A tree left by a former life goes first."""
        if any(path.exists() for path in self.directories(name)):
            self.remove(name)
        changes = self._writes(Limits(), limits)
        controllers = {change.file.controller for change in changes}
        if self._devices and self._filters_devices():
            controllers.add("devices")
        try:
            for hierarchy in {controller: self.layout.having(controller) for controller in controllers}.values():
                self._create_payload(name, hierarchy)
        except OSError as error:
            raise CgroupError(f"cannot make a control group: {error}") from error
        if "devices" in controllers:
            restrict(self._payload("devices", name), devices)
        for change in changes:
            self._apply(name, change)

    def update(self, name: str, old: Limits, new: Limits) -> None:
        """New limits for what runs: what differs is written and read back; at a failure all is put back. Raises
        CgroupError, for memory below what is in use too."""
        done: list[Write] = []
        back = {(change.file.names, change.key): change for change in self._writes(new, old)}
        try:
            for change in ordered(self._writes(old, new), self._held_bytes(name)):
                self._apply(name, change)
                done.append(change)
        except CgroupError:
            for change in reversed(done):
                self._apply(name, back[change.file.names, change.key])
            raise

    def own(self, limits: Limits) -> list[tuple[str, str]]:
        """(file, value) of what v1 does not hand down: LXC writes it to its own group before anything runs there."""
        return [(change.file.names[0], change.text) for change in self._writes(Limits(), limits) if change.file.each]

    def astray(self, name: str, limits: Limits) -> str | None:
        """Return what of `own` does not hold in the groups below the payload, if anything."""
        for change in self._writes(Limits(), limits):
            for group in _below(self._payload(change.file.controller, name)) if change.file.each else ():
                file = group / change.file.names[0]
                with suppress(FileNotFoundError):
                    if not change.holds(read(file)):
                        return f"{file.name} is {read(file).strip()} after asking for {change.text}"
        return None

    def _filters_devices(self) -> bool:
        hierarchy = self.layout.having("devices")
        return hierarchy is not None and not hierarchy.unified

    def _create_payload(self, name: str, hierarchy: Hierarchy | None) -> None:
        assert hierarchy is not None, "_writes refused what nobody has"
        path = hierarchy.mount / self.root / name
        path.mkdir(exist_ok=True)  # on v2 several controllers share it
        _open_for_children(path, hierarchy)
        (path / PAYLOAD).mkdir(exist_ok=True)

    def _payload(self, controller: str, name: str) -> Path:
        payload = self.directory(controller, name)
        assert payload is not None, "_writes refused what nobody has"
        return payload

    def _writes(self, old: Limits, new: Limits) -> list[Write]:
        """Each change in the words of the hierarchy that has its controller. Raises CgroupError where none has."""
        found = self._known_writes.get((old, new))
        if found is None:
            if len(self._known_writes) >= KNOWN_WRITES_MAX:
                self._known_writes.clear()
            found = self._known_writes[old, new] = self._chosen_writes(old, new)
        return found

    def _chosen_writes(self, old: Limits, new: Limits) -> list[Write]:
        chosen: list[Write] = []
        for knob in KNOBS:
            v1, v2 = list(writes(knob.v1, old, new)), list(writes(knob.v2, old, new))
            here = self._of_hierarchy(v1, False) or self._of_hierarchy(v2, True)
            for lacking in () if here else (*v2, *v1):
                if not lacking.optional:
                    file = lacking.file
                    raise CgroupError(
                        f"the host has no {file.controller} controller with {file.names[0]}, asked for {lacking.text}"
                    )
            chosen += here
        return chosen

    def _of_hierarchy(self, changes: list[Write], unified: bool) -> list[Write]:
        """The changes, if their controller is there in this version; it is the same for all files of a knob."""
        hierarchy = self.layout.having(changes[0].file.controller) if changes else None
        return changes if hierarchy is not None and hierarchy.unified == unified else []

    def _held_bytes(self, name: str) -> int:
        """v1's limit on memory and swap together as it is now; none is the largest number."""
        payload = self.directory("memory", name)
        with suppress(OSError, ValueError):
            return int(read(f"{payload}/{MEMSW_V1}"))
        return 1 << 63

    def _apply(self, name: str, change: Write) -> None:
        payload = self._payload(change.file.controller, name)
        group = payload.parent if change.file.weight else payload
        file = next((group / each for each in change.file.names if (group / each).exists()), None)
        if file is None:
            if change.optional:
                return
            raise CgroupError(f"this kernel has no {change.file.names[0]}, asked for {change.text}")
        try:
            self._write(file, change)
            found = read(file)
        except OSError as error:
            raise CgroupError(f"{file.name}={change.text.strip()} refused: {error.strerror}{_in_use(group)}") from error
        if not change.holds(found):
            raise CgroupError(f"{file.name} is {found.strip()} after writing {change.text.strip()}")

    def _write(self, file: Path, change: Write) -> None:
        if file.name == MEMORY_V2 and change.value != change.file.free:
            _make_room(file.parent, int(change.value))
        hierarchy = self.layout.having(change.file.controller)
        for group in _below(file.parent) if change.file.each else ():
            write(group / file.name, change.text)
        if change.file.listed and hierarchy is not None and not hierarchy.unified:
            _write_list(file, change.value)
        elif change.file.listed and not change.value:
            # v2 would inherit what is empty, but takes no empty list while processes are inside.
            write(file, read(f"{file.parent.parent}/{file.name}.effective").strip())
        else:
            write(file, change.text)

    # --- what runs

    def usage(self, name: str) -> tuple[int, int, int]:
        """(memory_bytes, cpu_ns, pids) now; zeros where the host has no such counter. Raises FileNotFoundError."""
        files = self._usage_files.get(name)
        if files is None:
            files = self._usage_files[name] = self._counters(name)
        memory, cpu, pids = (read(file, COUNTER_BYTES) if file else "0" for file in files)
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

    def inside(self, name: str) -> set[int]:
        """Everything below the payload: the container itself, without LXC's monitor. All of it is below the payload of
        every hierarchy that has one, so the first that has one tells all."""
        payloads = (directory / PAYLOAD for directory in self.directories(name))
        first = next(filter(Path.exists, payloads), None)
        return set() if first is None else set(_processes(first))

    # --- standing still

    def freeze(self, name: str, frozen: bool) -> None:
        """Asks; `stands` tells when it is so. Raises OSError, for one that is gone too."""
        group, unified = self._freezer(name)
        if unified:
            write(group / "cgroup.freeze", "1" if frozen else "0")
        else:
            write(group / "freezer.state", "FROZEN" if frozen else "THAWED")

    def stands(self, name: str) -> bool:
        """Whether all processes inside stand still. Raises OSError for one that is gone."""
        group, unified = self._freezer(name)
        if unified:
            return "frozen 1" in read(group / "cgroup.events")
        return read(group / "freezer.state").strip() == "FROZEN"

    @property
    def can_freeze(self) -> bool:
        """Whether this kernel can have a container stand still; on v2 since 5.2. After `ensure`."""
        hierarchy = self.layout.having("freezer")
        if hierarchy is not None and not hierarchy.unified:
            return True
        unified = self.layout.unified
        return unified is not None and (unified.mount / self.root / "cgroup.freeze").exists()

    def _freezer(self, name: str) -> tuple[Path, bool]:
        hierarchy = self.layout.having("freezer")
        if hierarchy is not None and not hierarchy.unified:
            return hierarchy.mount / self.root / name / PAYLOAD, False
        if self.layout.unified is None:
            raise CgroupError("this host has no freezer")
        return self.layout.unified.mount / self.root / name / PAYLOAD, True

    # --- the end

    def kill(self, name: str) -> None:
        """SIGKILL to everything in the tree, frozen or not."""
        for directory in self.directories(name):
            with suppress(OSError):
                write(directory / "cgroup.kill", "1")
        for pid in self.processes(name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for directory in self.directories(name):
            with suppress(OSError):
                write(directory / PAYLOAD / "freezer.state", "THAWED")

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

    def lobby(self) -> Path:
        """A group of ours that a process may join on its way out."""
        hierarchy = self.layout.having("freezer") or self.layout.hierarchies[0]
        return hierarchy.mount / self.root

    def supervisors(self) -> Path | None:
        """The group for supervisors to join, so that a service manager that stops the agent spares them.
        None where the agent is not in a service's group."""
        memberships = groups_by_controller(Path("/proc/self/cgroup").read_text())
        for key, hierarchy in (("name=systemd", self.layout.having("name=systemd")), ("unified", self.layout.unified)):
            if hierarchy is not None and memberships.get(key, ""):
                group = hierarchy.mount / self.root / SUPERVISORS
                group.mkdir(exist_ok=True)
                return group
        return None


def _below(group: Path) -> list[Path]:
    return [Path(path) for path, _, _ in os.walk(group)][1:]


def _processes(directory: Path) -> Iterable[int]:
    for path, _, _ in os.walk(directory):
        with suppress(OSError):
            yield from (int(word) for word in read(path + "/cgroup.procs").split())


def _open_for_children(path: Path, hierarchy: Hierarchy) -> None:
    """v2: lets children have the controllers. One by one, for the kernel takes a list only as a whole."""
    if not hierarchy.unified:
        return
    enabled = (path / "cgroup.subtree_control").read_text().split()
    for controller in CONTROLLERS_V2:
        if controller in hierarchy.controllers and controller not in enabled:
            with suppress(OSError):  # a missing one is named when a limit needs it
                write(path / "cgroup.subtree_control", f"+{controller}")


def _inherit_cpuset(path: Path, hierarchy: Hierarchy) -> None:
    """v1: a new cpuset is empty and takes no process until it is filled; its children copy it."""
    if hierarchy.unified or "cpuset" not in hierarchy.controllers:
        return
    for file in ("cpuset.cpus", "cpuset.mems"):
        if not (path / file).read_text().strip():
            write(path / file, (path.parent / file).read_text().strip())
    write(path / "cgroup.clone_children", "1")


def _write_list(file: Path, value: str) -> None:
    """v1 keeps every group's list within its parent's: first all grow, from above, then all shrink, from below."""
    wanted = value or read(file.parent.parent / file.name).strip()
    groups = [Path(path) for path, _, _ in os.walk(file.parent)]
    for group in groups:
        write(group / file.name, ",".join(filter(None, (read(group / file.name).strip(), wanted))))
    for group in reversed(groups):
        write(group / file.name, wanted)


def _make_room(group: Path, size_bytes: int) -> None:
    """v2 kills what does not fit a new limit, where v1 refuses: so what can't be reclaimed is refused here."""
    excess = _used_bytes(group / "memory.current") - size_bytes
    if excess <= 0:
        return
    with suppress(OSError):  # it takes what it can get, and says whether that was all
        write(group / "memory.reclaim", str(excess))
    used = _used_bytes(group / "memory.current")
    if used > size_bytes:
        raise CgroupError(f"{MEMORY_V2}={size_bytes} refused: {used} bytes are in use")


def _in_use(group: Path) -> str:
    used = _used_bytes(group / "memory.usage_in_bytes")
    return f" ({used} bytes are in use)" if used else ""


def _used_bytes(file: Path) -> int:
    try:
        return int(read(file))
    except (OSError, ValueError):
        return 0
