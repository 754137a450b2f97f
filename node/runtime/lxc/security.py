"""LXC keys that keep a container in: seccomp, capabilities, privileges, masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from node.runtime.lxc.places import Host, Line, Places
from node.runtime.protocol import ContainerSpec


def lines(spec: ContainerSpec, places: Places, host: Host) -> Iterator[Line]:
    yield "lxc.seccomp.profile", spec.privileges.seccomp or places.seccomp
    yield "lxc.cap.keep", " ".join(spec.privileges.capabilities) or "none"
    yield "lxc.no_new_privs", 1
    yield "lxc.monitor.signal.pdeath", "SIGKILL"
    if spec.privileges.selinux_context is not None:
        yield "lxc.selinux.context", spec.privileges.selinux_context
    for path in places.masked_files:
        yield "lxc.mount.entry", f"/dev/null {path[1:]} none bind,optional 0 0"
    for path in places.masked_folders:
        yield "lxc.mount.entry", f"tmpfs {path[1:]} tmpfs ro,nosuid,nodev,noexec,size=4k,mode=555,optional 0 0"
    for file in host.lxcfs:
        yield "lxc.mount.entry", f"{file} {_below_proc_or_sys(file)} none bind,optional 0 0"


def _below_proc_or_sys(file: Path) -> str:
    """lxcfs lays its files out as the kernel does, in folders `proc` and `sys`."""
    top = next(index for index, part in enumerate(file.parts) if part in ("proc", "sys"))
    return "/".join(file.parts[top:])
