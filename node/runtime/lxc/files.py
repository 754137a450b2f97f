"""LXC keys of the root file system and what is mounted in it.

Mount points are there before LXC looks (node/host/mount_points.py), so no entry but those below /dev has LXC make one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from node.runtime.lxc.places import Line, Places
from node.runtime.protocol import ContainerSpec
from scheduler.spec.files import SECRETS_TARGET

SHM_BYTES_MAX = 64 * 1024 * 1024
OWN_MOUNT_POINTS = ("/dev", "/proc", "/sys", "/tmp")  # noqa: S108
_TMPFS = "rw,nosuid,nodev,mode=1777"


def mount_points(spec: ContainerSpec) -> tuple[str, ...]:
    """What must be there inside before anything is mounted."""
    return (*OWN_MOUNT_POINTS, *staged_targets(spec), *(each.target for each in spec.files.tmpfs))


def staged_targets(spec: ContainerSpec) -> list[str]:
    """Where the directories go that are made ready on the host, in the order of `Places.mounts`."""
    files = spec.files
    targets = [each.target for each in files.volumes]
    targets += [files.scratch.target] if files.scratch else []
    return targets + ([SECRETS_TARGET] if files.secrets else [])


def lines(spec: ContainerSpec, places: Places) -> Iterator[Line]:
    yield "lxc.rootfs.path", f"overlay:{':'.join(map(str, places.lowers))}:{places.delta}"
    if spec.files.read_only_root:
        yield "lxc.rootfs.options", "ro"
    yield "lxc.hook.version", 1
    yield "lxc.hook.start-host", f">{places.ready}"
    yield "lxc.mount.auto", "proc:mixed sys:ro"
    shm_bytes = min(SHM_BYTES_MAX, spec.memory_bytes or SHM_BYTES_MAX)
    yield _entry("tmpfs", "/dev/shm", "tmpfs", f"{_TMPFS},create=dir,size={shm_bytes}")  # noqa: S108
    asked = {each.target: each.size_bytes for each in spec.files.tmpfs}
    if spec.tmpfs_bytes and not any(target == "/tmp" or target.startswith("/tmp/") for target in _targets(spec)):  # noqa: S108
        asked = {"/tmp": spec.tmpfs_bytes, **asked}  # noqa: S108
    for target, size_bytes in asked.items():
        yield _entry("tmpfs", target, "tmpfs", f"{_TMPFS},size={size_bytes}")
    for place, target in places.mounts:
        yield _entry(place, target, "none", "bind")
    yield "lxc.pty.max", 16


def _targets(spec: ContainerSpec) -> list[str]:
    return [*staged_targets(spec), *(each.target for each in spec.files.tmpfs)]


def _entry(source: Path | str, target: str, kind: str, options: str) -> Line:
    return "lxc.mount.entry", f"{source} {target.lstrip('/')} {kind} {options} 0 0"
