"""LXC keys that keep a container in: seccomp, capabilities, privileges, masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from node.runtime.lxc.places import Host, Line, Places
from node.runtime.protocol import ContainerSpec

MASKED_FILES = (
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/slabinfo",
    "/proc/timer_list",
    "/proc/vmallocinfo",
)
"""What proc:mixed leaves open: the kernel guards most of them against mapped roots, but not on every version and not
/proc/keys, which counts and names what others keep in the kernel. They read as empty."""

MASKED_FOLDERS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/scsi",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
)
"""The host's firmware tables, devices and energy counters (from which neighbours' secrets have been measured)."""


def lines(spec: ContainerSpec, places: Places, host: Host) -> Iterator[Line]:
    yield "lxc.seccomp.profile", spec.privileges.seccomp or places.seccomp
    yield "lxc.cap.keep", " ".join(spec.privileges.capabilities) or "none"
    yield "lxc.no_new_privs", 1
    yield "lxc.monitor.signal.pdeath", "SIGKILL"
    if spec.privileges.selinux_context is not None:
        yield "lxc.selinux.context", spec.privileges.selinux_context
    yield from _masks(spec.privileges.masked_paths, host)


def _masks(more: tuple[str, ...], host: Host) -> Iterator[Line]:
    """Kernels differ in what they show, so an entry that finds nothing is passed over; but what a job asked for is
    masked as file and as folder, of which one holds."""
    for path in (*MASKED_FILES, *more):
        yield "lxc.mount.entry", f"/dev/null {path[1:]} none bind,optional 0 0"
    for path in (*MASKED_FOLDERS, *more):
        yield "lxc.mount.entry", f"tmpfs {path[1:]} tmpfs ro,nosuid,nodev,noexec,size=4k,mode=555,optional 0 0"
    for file in host.lxcfs:
        yield "lxc.mount.entry", f"{file} {_below_proc_or_sys(file)} none bind,optional 0 0"


def _below_proc_or_sys(file: Path) -> str:
    """lxcfs lays its files out as the kernel does, in folders `proc` and `sys`."""
    top = next(index for index, part in enumerate(file.parts) if part in ("proc", "sys"))
    return "/".join(file.parts[top:])
