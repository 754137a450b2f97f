"""
Removing all traces of a lab, also of one that crashed, was half made, or whose record is lost.

Nothing here relies on lab.json alone: keepers are found by their command line, namespaces by their names, containers
by the lab's cgroups. All steps may be repeated. Processes of other people's labs are never touched: root's lab has
fixed names, and a user sees only their own processes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from node.host import cgroups
from node.lab import layout, network

KILL_TIMEOUT_S = 10.0
POLL_S = 0.02


def remove_all() -> list[str]:
    """Remove everything; returns what could not be removed, a line each (empty: all gone)."""
    stop_processes(keepers())
    kill_containers(layout.cgroup_root())
    names = network.namespaces() if layout.is_root() else []
    _until_empty(lambda: set(_in_namespaces(names)), KILL_TIMEOUT_S)
    for name in names:
        with contextlib.suppress(network.NetworkFailure):
            network.remove_namespace(name)
    remove_cgroups(layout.cgroup_root())
    for folder in (layout.data_folder(), layout.state_folder()):
        shutil.rmtree(folder, ignore_errors=True)
    return list(remains())


def remains() -> Iterator[str]:
    """What a lab has left on this machine, a line each."""
    yield from (f"process {pid}" for pid in keepers())
    if layout.is_root():
        yield from (f"network namespace {name}" for name in network.namespaces())
        yield from (f"cgroup {path}" for path in _cgroup_folders(layout.cgroup_root()))
    yield from (f"folder {path}" for path in (layout.data_folder(), layout.state_folder()) if path.exists())


def keepers(folder: str = "") -> list[int]:
    """The keepers of this lab, or of the node with this folder."""
    # The slash keeps `fofoca-lab` from meaning `fofoca-lab-tests`.
    prefix = os.fsencode(f"{layout.data_folder()}/")
    found = []
    for pid in _own_pids():
        words = command_line(pid)
        if b"node.lab.keeper" in words and any(
            word == os.fsencode(folder) if folder else word.startswith(prefix) for word in words
        ):
            found.append(pid)
    return found


def stop_processes(roots: Iterable[int]) -> None:
    """
    Kill processes and all their descendants, as if the plug were pulled: all are stopped first, so that nobody sees
    another one die and acts on it.
    """
    thaw(layout.cgroup_root())  # a frozen process dies only when it is thawed
    roots = set(roots)
    stopped: set[int] = set()
    while found := descendants_of(roots) - stopped:
        _signal_all(found, signal.SIGSTOP)
        stopped |= found
    _until_empty(lambda: {pid for pid in stopped if _is_alive(pid)}, KILL_TIMEOUT_S)


def kill_containers(root: str) -> None:
    """Kill whatever runs in the cgroups below `root`."""
    thaw(root)
    _until_empty(lambda: set(_members(root)), KILL_TIMEOUT_S)


def thaw(root: str) -> None:
    for folder in _cgroup_folders(root):
        for name, value in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            with contextlib.suppress(OSError):
                _write(folder / name, value)


def remove_cgroups(root: str) -> None:
    """Remove the cgroups below `root`, deepest first; a cgroup whose last process is just going is asked again."""
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while folders := _cgroup_folders(root):
        for folder in folders:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if time.monotonic() > deadline:
            return
        time.sleep(POLL_S)


def _until_empty(find: Callable[[], set[int]], timeout_s: float) -> None:
    """Kill what `find` returns until it returns nothing; new children of the killed may appear meanwhile."""
    deadline = time.monotonic() + timeout_s
    while pids := find():
        _signal_all(pids, signal.SIGKILL)
        if time.monotonic() > deadline:
            return
        time.sleep(POLL_S)


def _signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def descendants_of(roots: set[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid in _pids():
        children.setdefault(_parent(pid), []).append(pid)
    found = {pid for pid in roots if _is_alive(pid)}
    waiting = list(found)
    while waiting:
        for child in children.get(waiting.pop(), []):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def _in_namespaces(names: Iterable[str]) -> Iterator[int]:
    wanted = set()
    for name in names:
        with contextlib.suppress(OSError):
            wanted.add((layout.NETNS_FOLDER / name).stat().st_ino)
    if not wanted:
        return
    for pid in _pids():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/ns/net").stat().st_ino in wanted and pid != os.getpid():
                yield pid


def _members(root: str) -> Iterator[int]:
    for folder in _cgroup_folders(root):
        with contextlib.suppress(OSError):
            yield from (int(word) for word in (folder / "cgroup.procs").read_text().split() if word != "0")


def _cgroup_folders(root: str) -> list[Path]:
    """The folders of a cgroup and all below it, deepest first, in every hierarchy of this machine; a user has none."""
    found: list[Path] = []
    for hierarchy in cgroups.detect().hierarchies if layout.is_root() else ():
        for folder, _, _ in os.walk(hierarchy.mount / root, topdown=False):
            found.append(Path(folder))
    return found


def descendants(pid: int) -> set[int]:
    """A process's children, their children and so on."""
    return descendants_of({pid}) - {pid}


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    return [other for other in _pids() if _parent(other) == pid]


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _own_pids() -> Iterator[int]:
    mine = os.geteuid()
    for pid in _pids():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}").stat().st_uid == mine:
                yield pid


def command_line(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _parent(pid: int) -> int:
    return int(_stat_field(pid, 1, "0"))


def _is_alive(pid: int) -> bool:
    return _stat_field(pid, 0, "X") not in "ZX"


def _stat_field(pid: int, index: int, missing: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[index]
    except OSError:
        return missing


def _write(path: Path, value: str) -> None:
    # Not through a buffered file: that would swallow the kernel's refusal.
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)
