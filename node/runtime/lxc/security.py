"""LXC keys that keep a container in: seccomp, capabilities, privileges, rlimits."""

from __future__ import annotations

from collections.abc import Iterator

from node.runtime.lxc.places import OPEN_FILES_HARD, OPEN_FILES_SOFT, Host, Line, Places

CAPABILITIES_KEPT = (
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "net_bind_service",
    "setfcap",
    "setgid",
    "setpcap",
    "setuid",
    "sys_chroot",
)
"""What package managers and servers that drop root need; all of them count inside the user namespace only. Not kept,
among others: sys_admin, net_admin, net_raw (neighbours on the bridge could be impersonated), mknod, sys_ptrace."""


def lines(places: Places, host: Host) -> Iterator[Line]:
    yield "lxc.seccomp.profile", places.seccomp
    yield "lxc.cap.keep", " ".join(CAPABILITIES_KEPT)
    yield "lxc.no_new_privs", 1
    yield "lxc.prlimit.core", 0
    hard = min(OPEN_FILES_HARD, host.open_files_max)
    yield "lxc.prlimit.nofile", f"{min(OPEN_FILES_SOFT, hard)}:{hard}"
    yield "lxc.monitor.signal.pdeath", "SIGKILL"
