"""Seccomp, capabilities and masks of a container, within what the nodes' operators allow.

What every container has anyway is no option: a user namespace, no new privileges, a system call filter, masked files of
/proc and /sys, no inherited descriptors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from scheduler.spec.files import Need
from scheduler.spec.part import Part, require

CAPABILITIES_MAX = 41
MASKED_MAX = 32
ALL = "all"

CAPABILITIES = frozenset((
    "audit_control", "audit_read", "audit_write", "block_suspend", "bpf", "checkpoint_restore", "chown",
    "dac_override", "dac_read_search", "fowner", "fsetid", "ipc_lock", "ipc_owner", "kill", "lease",
    "linux_immutable", "mac_admin", "mac_override", "mknod", "net_admin", "net_bind_service", "net_broadcast",
    "net_raw", "perfmon", "setfcap", "setgid", "setpcap", "setuid", "sys_admin", "sys_boot", "sys_chroot",
    "sys_module", "sys_nice", "sys_pacct", "sys_ptrace", "sys_rawio", "sys_resource", "sys_time", "sys_tty_config",
    "syslog", "wake_alarm",
))  # fmt: skip
"""The capabilities of Linux (capabilities(7)), in small letters and without CAP_."""

CAPABILITIES_DEFAULT = frozenset((
    "chown", "dac_override", "fowner", "fsetid", "kill", "net_bind_service", "setfcap", "setgid", "setpcap", "setuid",
    "sys_chroot",
))  # fmt: skip
"""What package managers and servers that drop root need; all of them count inside the user namespace only. Not kept,
among others: sys_admin, net_admin, net_raw (neighbours on the bridge could be impersonated), mknod, sys_ptrace."""

_PROFILE = re.compile(r"[a-z0-9]([a-z0-9_-]{0,40}[a-z0-9])?")
_MASKED = re.compile(r"/(proc(?!/(\d|self|thread-self))|sys)(/(?!\.{1,2}(/|$))[A-Za-z0-9_.:-]{1,128}){1,12}")


class Security(Part, frozen=True):
    """Seccomp, capabilities and masks of a container."""

    seccomp: str = ""
    capabilities_add: tuple[str, ...] = ()
    capabilities_drop: tuple[str, ...] = ()
    masked_paths: tuple[str, ...] = ()


def check(security: Security) -> None:
    """Raise InvalidSpec for the first field that no cluster could take."""
    profile = security.seccomp
    require(not profile or _PROFILE.fullmatch(profile), "security.seccomp", profile, "name a profile of the operators")
    _check_capabilities("security.capabilities_add", security.capabilities_add, CAPABILITIES)
    _check_capabilities("security.capabilities_drop", security.capabilities_drop, CAPABILITIES | {ALL})
    both = sorted(set(security.capabilities_add) & set(security.capabilities_drop))
    require(not both, "security.capabilities_drop", both, "a capability is added or dropped, not both")
    masked = security.masked_paths
    require(len(masked) <= MASKED_MAX, "security.masked_paths", len(masked), f"at most {MASKED_MAX}")
    for path in masked:
        require(_MASKED.fullmatch(path), "security.masked_paths", path, "a path below /proc or /sys")


def needs(security: Security) -> Iterator[Need]:
    """Yield what a node must have to carry this out."""
    if security.seccomp:
        yield "seccomp", security.seccomp
    yield from (("capabilities", name) for name in sorted(set(security.capabilities_add) - CAPABILITIES_DEFAULT))
    if security.capabilities_drop:
        yield "security", "capabilities"
    if security.masked_paths:
        yield "security", "masks"


def capabilities(security: Security) -> tuple[str, ...]:
    """Return what the container's processes may have at most, sorted."""
    kept = set() if ALL in security.capabilities_drop else CAPABILITIES_DEFAULT - set(security.capabilities_drop)
    return tuple(sorted(kept | set(security.capabilities_add)))


def _check_capabilities(field: str, names: tuple[str, ...], known: frozenset[str]) -> None:
    require(len(names) <= CAPABILITIES_MAX, field, len(names), f"at most {CAPABILITIES_MAX}")
    for name in names:
        require(name in known, field, name, "a capability in small letters without CAP_, such as net_raw")
