"""The text of an LXC configuration, from a spec and the places that the runtime has made for it.

Owns: which LXC keys a container gets. Pure: paths and values in, text out; nothing is looked up or touched.
May not know: processes, control group files (only the names of directories LXC is to use).

Limits are not here: they are set on the control group above LXC's own and read back there, since LXC passes over keys
of the other cgroup version in silence. Only v2's device filter is LXC's to load. Key names are those of LXC 3 to 6.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from node.runtime.protocol import USER_RANGE, ContainerSpec, NetworkSpec

SAFE_PATH = re.compile(r"/[A-Za-z0-9_./+-]*")
"""LXC parts overlay paths at colons and mount entries at blanks, without quoting."""

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

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHM_BYTES_MAX = 64 * 1024 * 1024
OPEN_FILES_SOFT, OPEN_FILES_HARD = 1024, 65_536


@dataclass(frozen=True, slots=True)
class Places:
    """Where the runtime has put things, all absolute."""

    lower: Path
    """The image, idmapped if there is a user namespace."""
    delta: Path
    """Of this container alone; LXC puts overlayfs's work directory beside it."""
    ready: Path
    """Opened for writing when the container is set up and its command is about to run."""
    seccomp: Path
    cgroup: str
    """Below the hierarchies' root: "fofoca/n1/12001.3.1"."""
    cgroup_pivot: str


@dataclass(frozen=True, slots=True)
class Host:
    """What the host has."""

    devices_v2: tuple[str, ...] = ()
    """Devices to allow by LXC's BPF filter; empty where a v1 controller does it."""
    apparmor_profile: str | None = None
    """None: no AppArmor in the kernel."""
    open_files_max: int = OPEN_FILES_HARD


def text(spec: ContainerSpec, places: Places, host: Host) -> str:
    lines = [
        *_identity(spec, host),
        *_files(spec, places),
        *_network(spec.network, interface_name(places.cgroup)),
        *_cgroups(places, host),
        *_isolation(places, host),
        *_environment(spec),
    ]
    return "".join(f"{key} = {value}\n" for key, value in lines)


def arguments(spec: ContainerSpec) -> list[str]:
    """What the configuration file cannot express: options for lxc-execute, before the command."""
    options = []
    for key, value in spec.env:
        if "\n" in value:
            options += ["-s", f"lxc.environment={key}={value}"]
    return [*options, "--", *spec.argv]


def interface_name(cgroup: str) -> str:
    """Of the host's end of the veth pair: the same for the same container, at most 15 characters."""
    return "ff" + hashlib.sha256(cgroup.encode()).hexdigest()[:12]


Line = tuple[str, object]


def _identity(spec: ContainerSpec, host: Host) -> Iterator[Line]:
    yield "lxc.uts.name", spec.hostname or spec.name.replace(".", "-")
    if spec.user_base:
        yield "lxc.idmap", f"u 0 {spec.user_base} {USER_RANGE}"
        yield "lxc.idmap", f"g 0 {spec.user_base} {USER_RANGE}"
    if host.apparmor_profile is not None:
        yield "lxc.apparmor.profile", host.apparmor_profile
        yield "lxc.apparmor.allow_incomplete", 1  # kernels differ in what of AppArmor they have
    yield "lxc.init.cwd", spec.workdir


def _files(spec: ContainerSpec, places: Places) -> Iterator[Line]:
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


def _network(network: NetworkSpec | None, host_end: str) -> Iterator[Line]:
    if network is None:
        yield "lxc.net.0.type", "empty"
        yield "lxc.net.0.flags", "up"  # means loopback here
        return
    yield "lxc.net.0.type", "veth"
    yield "lxc.net.0.link", network.bridge
    yield "lxc.net.0.veth.pair", host_end
    yield "lxc.net.0.flags", "up"
    yield "lxc.net.0.name", "eth0"
    yield "lxc.net.0.ipv4.address", network.address
    optional = {"ipv4.gateway": network.gateway, "hwaddr": network.mac, "mtu": network.mtu}
    yield from ((f"lxc.net.0.{key}", value) for key, value in optional.items() if value is not None)


def _cgroups(places: Places, host: Host) -> Iterator[Line]:
    yield "lxc.cgroup.dir.container", f"{places.cgroup}/payload/lxc"
    yield "lxc.cgroup.dir.monitor", f"{places.cgroup}/monitor"
    yield "lxc.cgroup.dir.monitor.pivot", places.cgroup_pivot
    if host.devices_v2:
        yield "lxc.cgroup2.devices.deny", "a"
        yield from (("lxc.cgroup2.devices.allow", f"{device} rwm") for device in host.devices_v2)


def _isolation(places: Places, host: Host) -> Iterator[Line]:
    yield "lxc.seccomp.profile", places.seccomp
    yield "lxc.cap.keep", " ".join(CAPABILITIES_KEPT)
    yield "lxc.no_new_privs", 1
    yield "lxc.prlimit.core", 0
    hard = min(OPEN_FILES_HARD, host.open_files_max)
    yield "lxc.prlimit.nofile", f"{min(OPEN_FILES_SOFT, hard)}:{hard}"
    yield "lxc.monitor.signal.pdeath", "SIGKILL"


def _environment(spec: ContainerSpec) -> Iterator[Line]:
    """In quotes, of which LXC takes the outermost pair off: blanks at the ends stay."""
    for key, value in {"PATH": DEFAULT_PATH, **dict(spec.env)}.items():
        if "\n" not in value:
            yield "lxc.environment", f'"{key}={value}"'
