"""What a host has and lacks to run containers well, found one by one: how bad it is, what it means, what fixes it.

Owns the words of `fofoca node check`. Looks, and changes nothing. Kernel settings are a table of their own
(node/host/sysctls.py).
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from node.host.host_view import HostView

KERNEL_OLDEST = (5, 12)
DISK_FREE_BYTES_MIN = 2 << 30
FREE_FILES_MIN = 200_000
DATA_DIRECTORY = "/var/lib/fofoca"
CONTAINER_IDS = range(100_000, 100_000 + 1_000 * 65_536)
"""Host ids of containers by default (runtime.first_user_id, and a range for each of 1,000 owners)."""
CONTROLLERS = ("memory", "cpu", "pids")
MORE_CONTROLLERS = ("cpuset", "io", "hugetlb")
PROGRAMS = {
    "lxc-execute": "apt-get install lxc",
    "ip": "apt-get install iproute2",
    "unshare": "apt-get install util-linux",
}


class Severity(enum.StrEnum):
    """How bad it is: an error keeps containers from running here."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `fix` is a command, or where there is none what to do; "" where nothing is to do."""

    name: str
    severity: Severity
    found: str
    meaning: str = ""
    fix: str = ""


def finding(name: str, found: str, good: object, severity: Severity, meaning: str, fix: str) -> Finding:
    """Return a finding that is ok, or as bad as `severity` with its meaning and fix."""
    return Finding(name, Severity.OK, found) if good else Finding(name, severity, found, meaning, fix)


def look(host: HostView) -> Iterator[Finding]:
    """Everything but kernel settings, what containers need first."""
    yield from _programs(host)
    yield from _kernel(host)
    yield from _control_groups(host)
    yield from _confinement(host)
    yield _sub_ids(host)
    yield from _conveniences(host)
    yield from _disk(host)
    yield from _memory(host)
    yield _crash_dumps(host)


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the worst severity there is."""
    order = list(Severity)
    return max((each.severity for each in findings), key=order.index, default=Severity.OK)


def _programs(host: HostView) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", Severity.OK, version)
    found, meaning = (
        ("yes", "") if host.is_root else ("no", "without root tasks are plain processes: nothing confines them")
    )
    yield finding("root", found, host.is_root, Severity.ERROR, meaning, "start the agent as root")
    for program, fix in PROGRAMS.items():
        there = host.has(program)
        yield finding(program, _there(there), there, Severity.ERROR, "containers can't be started without it", fix)


def _kernel(host: HostView) -> Iterator[Finding]:
    numbers = tuple(int(part) for part in host.release.split("-")[0].split(".")[:2] if part.isdigit())
    meaning = "images and volumes are shown under each owner's ids by idmapped mounts, which came with Linux 5.12"
    yield finding("Linux", host.release, numbers >= KERNEL_OLDEST, Severity.ERROR, meaning, "install a newer kernel")
    for name, path, fix in (
        ("user namespaces", "/proc/self/ns/user", "use a kernel with CONFIG_USER_NS"),
        ("seccomp filters", "/proc/sys/kernel/seccomp/actions_avail", "use a kernel with CONFIG_SECCOMP_FILTER"),
    ):
        there = host.exists(path)
        yield finding(name, _there(there), there, Severity.ERROR, "containers could not be confined", fix)
    overlay = "\toverlay" in f"\t{host.text('/proc/filesystems') or ''}".replace("nodev", "")
    meaning = "containers share images through it"
    yield finding("overlay file system", _there(overlay), overlay, Severity.ERROR, meaning, "modprobe overlay")


def _control_groups(host: HostView) -> Iterator[Finding]:
    layout, controllers = _layout(host)
    fix = "mount -t cgroup2 none /sys/fs/cgroup"
    yield finding("cgroup layout", layout, layout != "none", Severity.ERROR, "limits could not be enforced", fix)
    for name in (*CONTROLLERS, *MORE_CONTROLLERS):
        there = name in controllers
        severity = Severity.ERROR if name in CONTROLLERS else Severity.NOTE
        meaning = "limits of this kind can't be enforced" + (
            "" if name in CONTROLLERS else "; jobs that ask are refused"
        )
        yield finding(f"cgroup {name}", _there(there), there, severity, meaning, _how_to_have(name, layout))


def _how_to_have(name: str, layout: str) -> str:
    if layout == "v2":
        return f"echo +{name} > /sys/fs/cgroup/cgroup.subtree_control"
    name = "blkio" if name == "io" else name
    return f"mkdir -p /sys/fs/cgroup/{name} && mount -t cgroup -o {name} none /sys/fs/cgroup/{name}"


def _layout(host: HostView) -> tuple[str, set[str]]:
    unified = host.text("/sys/fs/cgroup/cgroup.controllers")
    if unified is not None:
        return "v2", set(unified.split())
    names = {"memory", "cpu", "pids", "cpuset", "hugetlb", "blkio"}
    found = {name for name in names if host.exists(f"/sys/fs/cgroup/{name}/tasks")}
    found |= {"io"} if "blkio" in found else set()
    beside = " beside v2" if host.exists("/sys/fs/cgroup/unified") else ""
    left_over = (host.text("/sys/fs/cgroup/unified/cgroup.controllers") or "").split()
    return (f"v1{beside}" if found else "none"), found | set(left_over)


def _confinement(host: HostView) -> Iterator[Finding]:
    apparmor = host.text("/sys/module/apparmor/parameters/enabled") == "Y"
    selinux = host.text("/sys/fs/selinux/enforce")
    found = "AppArmor" if apparmor else "SELinux" if selinux is not None else "none"
    meaning = "containers are confined by namespaces, seccomp and capabilities alone; one line of defence less"
    fix = "add apparmor=1 security=apparmor to the kernel's command line, and apt-get install apparmor"
    yield finding("mandatory access control", found, found != "none", Severity.NOTE, meaning, fix)
    if apparmor:
        there = host.has("apparmor_parser")
        meaning = "the agent can't load its profile, so containers run unconfined by AppArmor"
        yield finding("apparmor_parser", _there(there), there, Severity.WARNING, meaning, "apt-get install apparmor")
    if selinux == "0":
        yield Finding(
            "SELinux mode", Severity.NOTE, "permissive", "it only writes down what it would deny", "setenforce 1"
        )


def _sub_ids(host: HostView) -> Finding:
    """Not whether root has some: the agent writes maps by itself. But whether a local user has containers' ids."""
    overlapping = [
        words[0]
        for path in ("/etc/subuid", "/etc/subgid")
        for line in (host.text(path) or "").splitlines()
        if len(words := line.split(":")) == 3 and words[0] not in ("root", "0") and _overlaps(words[1], words[2])
    ]
    names = ", ".join(sorted(set(overlapping)))
    meaning = f"{names} may take on containers' ids, and so touch their files and processes"
    fix = "before the first job set runtime.first_user_id above those ranges, such as 1000000; or edit both files"
    found = f"of {names} lie in containers' ids" if names else "apart from containers'"
    return finding("sub-ids of local users", found, not names, Severity.WARNING, meaning, fix)


def _overlaps(first: str, count: str) -> bool:
    if not (first.isdigit() and count.isdigit()):
        return False
    return int(first) < CONTAINER_IDS.stop and int(first) + int(count) > CONTAINER_IDS.start


def _conveniences(host: HostView) -> Iterator[Finding]:
    for name, program, meaning, fix in (
        ("nft", "nft", "ports can't be published, nor owners kept apart on the bridge", "apt-get install nftables"),
        ("mkfs.ext4", "mkfs.ext4", "jobs that ask for scratch space are refused", "apt-get install e2fsprogs"),
        ("C compiler", "cc", "each container's supervisor takes 8 MiB instead of 0.1", "apt-get install tcc libc6-dev"),
    ):
        there = host.has(program)
        yield finding(name, _there(there), there, Severity.WARNING, meaning, fix)
    loops = host.exists("/dev/loop-control")
    meaning = "jobs that ask for scratch space are refused"
    yield finding("loop devices", _there(loops), loops, Severity.WARNING, meaning, "modprobe loop")
    lxcfs = host.is_mount("/var/lib/lxcfs")
    meaning = "free, top and nproc show the host's memory and cores inside containers"
    yield finding(
        "lxcfs", "running" if lxcfs else "not running", lxcfs, Severity.NOTE, meaning, "apt-get install lxcfs"
    )


def _disk(host: HostView) -> Iterator[Finding]:
    free = host.free_bytes(DATA_DIRECTORY)
    meaning = "images, containers' files and logs need room; a full disk refuses jobs"
    found = f"{free / (1 << 30):.1f}G free for {DATA_DIRECTORY}"
    fix = "free some, or set node.data_dir to a larger disk"
    yield finding("disk space", found, free >= DISK_FREE_BYTES_MIN, Severity.WARNING, meaning, fix)
    files = host.free_files(DATA_DIRECTORY)
    meaning = (
        "each image has thousands of files, each container some twenty; without inodes a disk is full with room left"
    )
    found = "not counted" if files is None else f"{files} more fit below {DATA_DIRECTORY}"
    enough = files is None or files >= FREE_FILES_MIN
    yield finding("files on disk", found, enough, Severity.WARNING, meaning, fix)
    discards = "discard" in host.mount_options(DATA_DIRECTORY)
    meaning = (
        "the disk is told of every file that goes while somebody waits: ends of short tasks take several times as long"
    )
    fix = "mount it without the option discard, and systemctl enable --now fstrim.timer"
    found = "with each file that goes" if discards else "not with each file"
    yield finding("discards", found, not discards, Severity.NOTE, meaning, fix)


def _memory(host: HostView) -> Iterator[Finding]:
    swap = len((host.text("/proc/swaps") or "").splitlines()) > 1
    accounted = host.exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes") or _layout(host)[0] == "v2"
    meaning = "containers could swap without bound, since the kernel does not count their swap"
    fix = "add swapaccount=1 to the kernel's command line, or swapoff -a"
    yield finding("swap", "yes" if swap else "none", not swap or accounted, Severity.WARNING, meaning, fix)
    pressure = host.exists("/proc/pressure/memory")
    meaning = "how much tasks wait for CPU, memory and disk is not known"
    yield finding(
        "pressure (PSI)", _there(pressure), pressure, Severity.NOTE, meaning, "add psi=1 to the kernel's command line"
    )


def _crash_dumps(host: HostView) -> Finding:
    loaded = host.text("/sys/kernel/kexec_crash_loaded") == "1"
    meaning = "after a crash of the kernel nobody can tell why; many containers find bugs that few do not"
    fix = (
        "apt-get install kdump-tools makedumpfile linux-image-$(uname -r)-dbg; "
        "add crashkernel=256M to the kernel's command line; reboot; kdump-config show"
    )
    return finding("kernel crash dumps", "ready" if loaded else "none", loaded, Severity.NOTE, meaning, fix)


def _there(there: bool) -> str:
    return "there" if there else "missing"
