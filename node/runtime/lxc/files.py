"""LXC keys of the root file system and what is mounted in it."""

from __future__ import annotations

from collections.abc import Iterator

from node.runtime.lxc.places import Line, Places
from node.runtime.protocol import ContainerSpec

SHM_BYTES_MAX = 64 * 1024 * 1024


def lines(spec: ContainerSpec, places: Places) -> Iterator[Line]:
    yield "lxc.rootfs.path", f"overlay:{places.lower}:{places.delta}"
    yield "lxc.hook.version", 1
    yield "lxc.hook.start-host", f">{places.ready}"
    yield "lxc.mount.auto", "proc:mixed sys:ro"
    shm_bytes = min(SHM_BYTES_MAX, spec.memory_bytes or SHM_BYTES_MAX)
    tmpfs = "rw,nosuid,nodev,create=dir,mode=1777"
    yield "lxc.mount.entry", f"tmpfs dev/shm tmpfs {tmpfs},size={shm_bytes} 0 0"
    if spec.tmpfs_bytes:
        yield "lxc.mount.entry", f"tmpfs tmp tmpfs {tmpfs},size={spec.tmpfs_bytes} 0 0"
    yield "lxc.pty.max", 16
