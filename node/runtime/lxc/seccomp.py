"""The system calls that no container needs, as a deny list in LXC's own format (version 2).

Why a deny list: LXC applies the filter before its own last steps, and an allow list that lacks one of them hangs the
start. Why these: each either acts on the whole host, or is a door to rarely trodden kernel code from which escapes
came. What a user namespace already forbids is denied once more, for defence in depth. EPERM lets programs that try
and fall back carry on; ENOSYS makes C libraries use the older call.
"""

from __future__ import annotations

HOST = (
    "acct",
    "adjtimex",
    "clock_adjtime",
    "clock_settime",
    "delete_module",
    "finit_module",
    "init_module",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "lookup_dcookie",
    "nfsservctl",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "settimeofday",
    "stime",
    "swapoff",
    "swapon",
    "syslog",
    "vhangup",
)
"""The host's clock, modules, swap, power, ports and accounts."""

MOUNTS = (
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "mount",
    "mount_setattr",
    "move_mount",
    "name_to_handle_at",
    "open_by_handle_at",
    "open_tree",
    "pivot_root",
    "umount",
    "umount2",
)

DOORS = (
    "add_key",
    "bpf",
    "fanotify_init",
    "get_mempolicy",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kcmp",
    "keyctl",
    "mbind",
    "memfd_secret",
    "migrate_pages",
    "move_pages",
    "perf_event_open",
    "pidfd_getfd",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "request_key",
    "set_mempolicy",
    "setns",
    "unshare",
    "userfaultfd",
    "vmsplice",
)

NAMESPACES = 0x7E020080
"""CLONE_NEWUSER, NEWNS, NEWPID, NEWNET, NEWIPC, NEWUTS, NEWCGROUP, NEWTIME: no namespaces inside namespaces."""


SOCKETS = {"AF_ALG": 38, "AF_VSOCK": 40}
"""The kernel's ciphers, from whose sockets escapes came; and the line from a virtual machine to its hypervisor, which
knows no network namespace."""
NO_SUCH_FAMILY = 97


def profile() -> str:
    """The text of a profile file."""
    lines = ["2", "denylist", "reject_force_umount", "[all]"]
    lines += [f"{call} errno 1" for call in sorted({*HOST, *MOUNTS, *DOORS})]
    lines += [f"clone errno 1 [0,{bit},SCMP_CMP_MASKED_EQ,{bit}]" for bit in _bits(NAMESPACES)]
    lines += [f"socket errno {NO_SUCH_FAMILY} [0,{family},SCMP_CMP_EQ]" for family in SOCKETS.values()]
    lines += ["clone3 errno 38"]
    return "\n".join(lines) + "\n"


def _bits(mask: int) -> list[int]:
    return [1 << bit for bit in range(32) if mask >> bit & 1]
