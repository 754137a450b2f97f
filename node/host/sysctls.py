"""The kernel's settings that matter on a host of many containers of strangers: the sound value, and what another means.

A table; whoever adds a row says what a user or operator would see go wrong without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from node.host.host_view import HostView
from node.host.readiness import Finding, Severity, finding

FILE = "/etc/sysctl.d/90-fofoca.conf"


@dataclass(frozen=True, slots=True)
class Setting:
    """`good` is asked with the value's first word; a setting the kernel lacks is passed over."""

    name: str
    good: Callable[[str], bool]
    wanted: str
    severity: Severity
    meaning: str


def at_least(amount: int) -> Callable[[str], bool]:
    return lambda value: value.lstrip("-").isdigit() and int(value) >= amount


def equal(wanted: str) -> Callable[[str], bool]:
    return lambda value: value == wanted


_ERROR, _WARNING, _NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
_LEAKS = "local users and, where masks fail, containers read what helps attacks on the kernel"
SETTINGS = (
    Setting("user.max_user_namespaces", at_least(1_024), "65536", _ERROR, "every container needs one"),
    Setting("vm.panic_on_oom", equal("0"), "0", _ERROR, "one task out of memory could bring the whole host down"),
    Setting(
        "kernel.keys.maxkeys", at_least(2_000), "2000", _NOTE,
        "each container takes one of its owner's; programs that keep keys, such as NFS's, fail with EDQUOT beyond",
    ),
    Setting("kernel.keys.maxbytes", at_least(2_000_000), "2000000", _NOTE, "as kernel.keys.maxkeys"),
    Setting(
        "fs.inotify.max_user_instances", at_least(1_024), "1024", _WARNING,
        "counted for each owner over all their containers; systemd, tail -f and web servers in them fail with EMFILE",
    ),
    Setting("fs.inotify.max_user_watches", at_least(131_072), "1048576", _NOTE, "as the above, for watched files"),
    Setting("kernel.pid_max", at_least(131_072), "4194304", _WARNING, "the host runs out of ids before limits bite"),
    Setting("fs.file-max", at_least(1_000_000), "9223372036854775807", _NOTE, "open files of all containers together"),
    Setting("vm.max_map_count", at_least(65_530), "262144", _NOTE, "databases refuse to start with too few"),
    Setting(
        "net.ipv4.neigh.default.gc_thresh3", at_least(4_096), "8192", _WARNING,
        "beyond so many containers in all the host forgets neighbours, and connections stall",
    ),
    Setting("net.ipv4.ip_forward", equal("1"), "1", _NOTE, "containers reach nothing beyond their bridge"),
    Setting("kernel.dmesg_restrict", equal("1"), "1", _WARNING, _LEAKS),
    Setting("kernel.kptr_restrict", at_least(1), "1", _WARNING, _LEAKS),
    Setting("kernel.perf_event_paranoid", at_least(2), "2", _WARNING, _LEAKS),
    Setting("kernel.unprivileged_bpf_disabled", at_least(1), "1", _WARNING, "local users load code into the kernel"),
    Setting("kernel.yama.ptrace_scope", at_least(1), "1", _NOTE, "processes of one user may trace each other"),
    Setting("fs.protected_symlinks", equal("1"), "1", _WARNING, "links in shared folders mislead programs"),
    Setting("fs.protected_hardlinks", equal("1"), "1", _WARNING, "links in shared folders mislead programs"),
    Setting("fs.suid_dumpable", equal("0"), "0", _NOTE, "crashed programs with privileges leave their memory in files"),
    Setting(
        "kernel.core_pattern", lambda value: not value.startswith("|"), "core", _NOTE,
        "whenever a program in a container crashes, the host runs this as root",
    ),
    Setting(
        "kernel.sysrq", at_least(1), "438", _NOTE,
        "of a host that hangs nobody can ask what hangs (SysRq-w), nor have it dump its memory (SysRq-c)",
    ),
    Setting(
        "kernel.hung_task_timeout_secs", at_least(1), "120", _NOTE,
        "the kernel's log is silent about processes stuck in it, such as containers that can't be removed",
    ),
    Setting("kernel.panic_on_oops", equal("1"), "1", _NOTE, "after a bug in the kernel a half-broken host goes on"),
    Setting("kernel.panic", lambda value: value != "0", "10", _NOTE, "after a crash the host stays down for good"),
    Setting(
        "kernel.apparmor_restrict_unprivileged_userns", equal("1"), "1", _NOTE,
        "local users make user namespaces, often the first step of an attack; the agent, as root, needs none of that",
    ),
    Setting("kernel.unprivileged_userns_clone", equal("0"), "0", _NOTE, "as the above, on older Debian kernels"),
)  # fmt: skip


def look(host: HostView) -> Iterator[Finding]:
    """Yield one finding for each setting this kernel has."""
    for setting in SETTINGS:
        value = host.text(f"/proc/sys/{setting.name.replace('.', '/')}")
        if value is not None:
            line = f"{setting.name} = {setting.wanted}"
            fix = f"echo '{line}' >> {FILE} && sysctl -p {FILE}"
            good = setting.good(value.split()[0] if value else "")
            yield finding(setting.name, value, good, setting.severity, setting.meaning, fix)
