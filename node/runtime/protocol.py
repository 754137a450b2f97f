"""What every container runtime promises, and the values that cross its boundary.

Owns: the words between the executing node and a runtime (spec, exit, usage, recovered) and the tree of errors.
May not know: jobs, tasks, homes, gossip, or any backend. A container's name is given by the caller and is all
that a runtime knows of whom it serves.

A runtime keeps one directory per container. Whatever kills the agent, at whatever moment, `recover` brings each
name found there to a definite state (running, or ended with an exit), and `remove` leaves nothing of it behind.
"""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Literal, Protocol

from node.host.cgroups import MoreLimits
from node.runtime.limits import FurtherLimits
from node.runtime.parts import CAPABILITIES, FileMounts, Privileges

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
HOSTNAME_PATTERN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
ENV_NAME_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAC_PATTERN = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")

USUAL_UMASK = 0o022
"""Of commands in containers, whatever the agent's own is."""
USER_RANGE = 65536
"""Width of a container's user namespace: host ids user_base .. user_base + 65535."""
ARGV_BYTES_MAX = 120_000
"""argv and env together; the kernel allows one string 128 KiB, and the supervisor adds a little of its own."""
STACK_MAX = 8
"""Images in one root file system; the mount's options must fit a page."""
LOG_BYTES_MIN = 16 * 1024
INTERFACES_MAX = 8

Stream = Literal["stdout", "stderr"]
Feature = Literal[
    "rootfs", "user_base", "user", "hostname", "memory", "cpu", "pids", "tmpfs", "network",
    "volumes", "scratch", "secrets", "read_only_root", "root_bytes", "capabilities", "seccomp", "masked_paths",
    "selinux", "limits", "devices", "rlimits", "freeze", "enter",
]  # fmt: skip
"""What a runtime may or may not be able to do; `unmet` lists what a spec asks beyond a runtime's features."""


class ContainerError(Exception):
    """Root of what a runtime raises on purpose."""


class SpecError(ContainerError, ValueError):
    """The caller's spec is wrong: names the field, the value and what would be right. Nothing was changed."""


class UnsupportedError(ContainerError):
    """The spec asks for something this runtime cannot do. Nothing was changed."""

    def __init__(self, runtime: str, features: Sequence[Feature]) -> None:
        super().__init__(f"the {runtime} runtime cannot provide: {', '.join(features)}")
        self.runtime = runtime
        self.features = tuple(features)


class UnknownContainerError(ContainerError):
    """No container of that name in the runtime's directory."""


class StartError(ContainerError):
    """The container's command never ran. `reason` is in the words of an operator; `remove` is still due."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"container {name} did not start: {reason}")
        self.name = name
        self.reason = reason


class UpdateError(ContainerError):
    """A running container's limits could not be changed; the former ones are in force. `reason` is for operators."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"container {name} keeps its limits: {reason}")
        self.name = name
        self.reason = reason


class FreezeError(ContainerError):
    """The container is neither frozen nor thawed as was asked."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"container {name}: {reason}")


class EnterError(ContainerError):
    """Nothing can be run inside, mostly because it does not run (any more)."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"container {name} can't be entered: {reason}")


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """One interface, a veth pair on a bridge of the host: `eth0`, and `more` as eth1, eth2, ..."""

    bridge: str
    address: str
    """IPv4 address with prefix length: "10.77.1.5/24"."""
    gateway: str | None = None
    mac: str | None = None
    mtu: int | None = None
    address6: str | None = None
    gateway6: str | None = None
    rate_in: int = 0
    """Bytes per second that reach the container; 0: not limited."""
    nameserver: str | None = None
    """None: the image's own resolv.conf."""
    search: str | None = None
    more: tuple[NetworkSpec, ...] = ()
    """Further interfaces; they have no gateway and no interfaces of their own."""
    group: str = ""
    """Containers of one group, all of one owner, are in one network namespace, which has this; "": one of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """One container, fully specific: a runtime decides nothing. Zero or None means "not limited" where noted."""

    name: str
    """Unique on the node, never reused: [a-z0-9.-], at most 63 characters, for example "12001.3.1"."""
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    rootfs: Path | None = None
    """Directory of the shared read-only image; None: the host's file system."""
    bases: tuple[Path, ...] = ()
    """Images that `rootfs` lies upon, topmost first."""
    hostname: str | None = None
    user_base: int = 0
    """First host id of the user namespace's 65536-wide range; 0: no user namespace."""
    memory_bytes: int = 0
    """Hard limit, swap included; 0: none."""
    cpu_milli: int = 0
    """The request, as a weight against neighbours; 0: the kernel's default weight."""
    cpu_limit_milli: int | None = None
    """Ceiling, as a quota over 100 ms periods."""
    pids_max: int = 0
    """Processes and threads; 0: not limited."""
    time_limit_s: float | None = None
    stop_grace_s: float = 10.0
    """Between the stop signal and SIGKILL, when the time limit or the lease ends it."""
    stop_signal: str = "TERM"
    """By its name without SIG."""
    warn_signal: str = ""
    """What it gets `warn_s` before its time limit; "": nothing. A frozen one gets it when it goes on."""
    warn_s: float = 0.0
    warn_alone: bool = False
    """Its command gets that, and nothing that the command started."""
    log_bytes_max: int = 16 * 1024 * 1024
    """Per stream on disk; of a longer stream its head and its tail are kept."""
    tmpfs_bytes: int = 0
    """Size of /tmp in memory, charged to the container; 0: /tmp is in the root file system."""
    network: NetworkSpec | None = None
    """None: a network namespace with nothing but loopback (runtimes with the feature "network")."""
    workdir: str = "/"
    user: tuple[int, int] = (0, 0)
    """User and group of the command, inside the container."""
    files: FileMounts = field(default_factory=FileMounts)
    privileges: Privileges = field(default_factory=Privileges)
    limits: FurtherLimits = field(default_factory=FurtherLimits)
    labels: tuple[tuple[str, str], ...] = ()
    """Kept with the container and given back by `recover`; the runtime does not read them."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class Entrance:
    """How to run something inside a container that runs: as a child of the agent, on the agent's host."""

    command: tuple[str, ...]
    """What goes before the words of the command that is to run inside."""
    files: tuple[str, ...]
    """Before `get PATH` or `put PATH`: a tar of the container's files on stdout or stdin (node/runtime/inside.py)."""
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """The command is being executed."""

    pid: int
    """Of the container's supervisor on the host."""
    started_monotonic_s: float
    """By trio.current_time() of the agent that called `start`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a container ended."""

    exit_code: int | None = None
    """As a shell tells it: 128 + n after signal n. None: the command never ran, or nobody saw it end."""
    signal: int | None = None
    oom_killed: bool = False
    timed_out: bool = False
    """The supervisor stopped it at the end of its time limit."""
    lease_expired: bool = False
    memory_peak_bytes: int = 0
    cpu_ns: int = 0
    started_unix_s: float | None = None
    ended_unix_s: float = 0.0
    error: str | None = None
    """Why it never started, or why its exit is not known, in the words of an operator."""


@dataclass(frozen=True, slots=True)
class Usage:
    memory_bytes: int
    cpu_ns: int
    pids: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """What `recover` found under a name. Exactly one of running and exit holds."""

    name: str
    running: bool
    exit: Exit | None = None
    spec: ContainerSpec | None = None
    """None where the agent died before it was written."""


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Bytes of a stream. Offsets count from the stream's first byte, whether or not it is still kept."""

    offset: int
    """Of the first byte of data: beyond the offset asked for when what lay between was dropped."""
    data: bytes
    size: int
    """Bytes the stream has had so far; offset + len(data) == size means the reader has caught up."""


class Runtime(Protocol):
    """Runs containers. All methods take names of any age; those of one name are not called concurrently,
    except `wait`, `usage` and the logs."""

    @property
    def name(self) -> str:
        """Of the runtime: "lxc", "process" or "fake"."""

    @property
    def features(self) -> frozenset[Feature]: ...

    @property
    def abilities(self) -> frozenset[str]:
        """Which limits it can hold on this host, by the names of scheduler/abilities.py."""

    async def reserve(self, spec: ContainerSpec) -> None:
        """Begins what `prepare` would, without what needs the spec's network; it may be left out. Raises as `prepare`.
        What has been reserved is taken back by `remove`."""

    async def prepare(self, spec: ContainerSpec) -> None:
        """Makes everything but the processes. Raises UnsupportedError, StartError; SpecError for a name in use."""

    async def start(self, spec: ContainerSpec) -> Started:
        """Runs a prepared container; returns when its command is being executed. Raises StartError."""

    async def update(self, spec: ContainerSpec) -> None:
        """Gives a running container the limits of this spec, and reads them back; all else of it is as it was.
        Raises ContainerError, with the former limits in force again; UnsupportedError as `prepare`."""

    async def stop(self, name: str, grace_s: float) -> None:
        """The stop signal to all its processes, after the grace SIGKILL. Returns at once; `wait` tells the end.
        Frozen containers are thawed first. Nothing happens to one that has ended."""

    async def kill(self, name: str) -> None:
        """As `stop` without a grace."""

    async def wait(self, name: str) -> Exit:
        """The exit, as soon as it is known; at once for a container that has ended. Any number may wait."""

    async def freeze(self, name: str) -> None:
        """Stops all its processes where they are, memory kept; returns when they stand. Its time limit and its lease
        count on: their end thaws it first, as `stop` does. Raises UnknownContainerError, UnsupportedError, FreezeError.
        """

    async def thaw(self, name: str) -> None:
        """Lets them go on. Nothing happens to one that is not frozen. Raises as `freeze`."""

    def is_frozen(self, name: str) -> bool:
        """By the kernel's word, so whoever froze it, and before an agent's restart too. False for unknown names."""

    def entrance(self, name: str, *, tty: bool = False) -> Entrance:
        """The same namespaces, control groups, seccomp filter and capabilities as the container's own processes have.
        Raises UnknownContainerError, UnsupportedError, EnterError."""

    async def set_lease(self, name: str, lease_s: float) -> None:
        """From now on the supervisor stops the container unless this is called again within lease_s seconds,
        whatever happens to the agent. Time while the host sleeps counts."""

    async def recover(self) -> list[Recovered]:
        """Everything in the runtime's directory, after an agent's restart: call it once, before anything else."""

    async def remove(self, name: str) -> None:
        """Kills what runs and removes every trace. Idempotent; an unknown name is no error."""

    def usage(self) -> Mapping[str, Usage]:
        """Of all running containers, by name, now."""

    def log_path(self, name: str, stream: Stream) -> Path:
        """The file that holds the stream's head; not there before its first byte."""

    def read_log(self, name: str, stream: Stream, offset: int, bytes_max: int) -> LogChunk:
        """Raises UnknownContainerError."""

    def forget_rootfs(self, rootfs: Path) -> None:
        """Let go of an image's directory, which no container uses and which is about to be removed. Blocks."""

    async def purge(self) -> None:
        """Removes all containers and what the runtime shares among them (mounts, the cgroup root)."""


def name_taken(name: str) -> SpecError:
    """What to raise for a name that is in use."""
    return SpecError(f"name is {name!r}; it should be one that no container here has")


def unmet(spec: ContainerSpec, features: frozenset[Feature]) -> tuple[Feature, ...]:
    """What the spec asks for beyond the features, in the order of Feature."""
    asked: dict[Feature, bool] = {
        "rootfs": spec.rootfs is not None,
        "user_base": spec.user_base != 0,
        "hostname": spec.hostname is not None,
        "user": spec.user != (0, 0),
        "memory": spec.memory_bytes != 0,
        "cpu": spec.cpu_milli != 0 or spec.cpu_limit_milli is not None,
        "pids": spec.pids_max != 0,
        "tmpfs": spec.tmpfs_bytes != 0 or bool(spec.files.tmpfs),
        "network": spec.network is not None,
        "volumes": bool(spec.files.volumes),
        "scratch": spec.files.scratch is not None,
        "secrets": spec.files.secrets is not None,
        "read_only_root": spec.files.read_only_root,
        "root_bytes": spec.files.root_bytes != 0,
        "capabilities": spec.privileges.capabilities != CAPABILITIES,
        "seccomp": spec.privileges.seccomp is not None,
        "masked_paths": bool(spec.privileges.masked_paths),
        "selinux": spec.privileges.selinux_context is not None,
        "limits": spec.limits.groups != MoreLimits(),
        "devices": bool(spec.limits.devices),
        "rlimits": bool(spec.limits.rlimits),
    }
    return tuple(feature for feature, wanted in asked.items() if wanted and feature not in features)


def reduced(spec: ContainerSpec, features: frozenset[Feature]) -> ContainerSpec:
    """The spec without what `unmet` lists: for callers who choose to run it all the same, and say so. Files and
    privileges that were asked for are never left out: `prepare` refuses them by name."""
    missing = unmet(spec, features)
    if not missing:
        return spec
    changes: dict[str, object] = {}
    for feature in missing:
        match feature:
            case "memory":
                changes |= {"memory_bytes": 0}
            case "cpu":
                changes |= {"cpu_milli": 0, "cpu_limit_milli": None}
            case "pids":
                changes |= {"pids_max": 0}
            case "tmpfs":
                changes |= {"tmpfs_bytes": 0}
            case "user_base":
                changes |= {"user_base": 0}
            case "rootfs" | "hostname" | "network":
                changes |= {feature: None}
    return replace(spec, **changes)  # type: ignore[arg-type]


def with_limits(spec: ContainerSpec, other: ContainerSpec) -> ContainerSpec:
    """The spec with the limits of another; devices stay, they are set up at the start."""
    return replace(
        spec,
        memory_bytes=other.memory_bytes,
        cpu_milli=other.cpu_milli,
        cpu_limit_milli=other.cpu_limit_milli,
        pids_max=other.pids_max,
        limits=replace(other.limits, devices=spec.limits.devices),
    )


def check(spec: ContainerSpec) -> None:
    """Raises SpecError at the first field that no runtime could take."""
    _require(NAME_PATTERN.fullmatch(spec.name), "name", spec.name, "1 to 63 of a-z 0-9 . -, a letter or digit first")
    _require(spec.argv and spec.argv[0], "argv", spec.argv, "at least a command")
    for key, value in spec.env:
        _require(ENV_NAME_PATTERN.fullmatch(key), "env", key, "a name of A-Z a-z 0-9 _")
        _require(_is_text(value), "env", f"{key}={value}", "text without NUL")
    _require(all(map(_is_text, spec.argv)), "argv", spec.argv, "text without NUL")
    size = len("".join((*spec.argv, *map("".join, spec.env))).encode()) + len(spec.argv) + 2 * len(spec.env)
    _require(size <= ARGV_BYTES_MAX, "argv and env", f"{size} bytes", f"at most {ARGV_BYTES_MAX} bytes")
    if spec.hostname is not None:
        _require(HOSTNAME_PATTERN.fullmatch(spec.hostname), "hostname", spec.hostname, "one label of a host name")
    _require(spec.workdir.startswith("/"), "workdir", spec.workdir, "an absolute path")
    _require(_is_text(spec.workdir) and "\n" not in spec.workdir, "workdir", spec.workdir, "a path in one line")
    _require(spec.rootfs is None or spec.rootfs.is_absolute(), "rootfs", spec.rootfs, "an absolute path")
    bases = spec.rootfs is not None and len(spec.bases) < STACK_MAX and all(base.is_absolute() for base in spec.bases)
    _require(not spec.bases or bases, "bases", spec.bases, f"absolute paths, fewer than {STACK_MAX}, below a rootfs")
    _require(all(0 <= each < USER_RANGE for each in spec.user), "user", spec.user, f"ids below {USER_RANGE}")
    _check_amounts(spec)
    if spec.network is not None:
        _check_network(spec.network)
        group = spec.network.group
        good = not group or (spec.user_base and NAME_PATTERN.fullmatch(group))
        _require(good, "network group", group, "a name as containers have, with a user_base")


def _check_amounts(spec: ContainerSpec) -> None:
    _require(spec.user_base >= 0, "user_base", spec.user_base, "0 or the first id of a range")
    _require(spec.memory_bytes >= 0, "memory_bytes", spec.memory_bytes, "0 (no limit) or more")
    _require(spec.cpu_milli >= 0, "cpu_milli", spec.cpu_milli, "0 (default weight) or more")
    limit = spec.cpu_limit_milli
    _require(limit is None or limit >= 10, "cpu_limit_milli", limit, "None or at least 10 (a hundredth of a core)")
    _require(spec.pids_max >= 0, "pids_max", spec.pids_max, "0 (no limit) or more")
    _require(spec.time_limit_s is None or spec.time_limit_s > 0, "time_limit_s", spec.time_limit_s, "more than 0")
    for name in ("stop_signal", "warn_signal"):
        value = getattr(spec, name)
        known = f"SIG{value}" in signal.Signals.__members__ or (name == "warn_signal" and not value)
        _require(known, name, value, "a signal's name without SIG")
    _require(spec.warn_s >= 0 and math.isfinite(spec.warn_s), "warn_s", spec.warn_s, "0 or more")
    _require(spec.stop_grace_s >= 0, "stop_grace_s", spec.stop_grace_s, "0 or more")
    _require(spec.log_bytes_max >= LOG_BYTES_MIN, "log_bytes_max", spec.log_bytes_max, f"{LOG_BYTES_MIN} or more")
    _require(spec.tmpfs_bytes >= 0, "tmpfs_bytes", spec.tmpfs_bytes, "0 (none) or more")


def _check_network(network: NetworkSpec) -> None:
    _require(re.fullmatch(r"[A-Za-z0-9_.-]{1,15}", network.bridge), "bridge", network.bridge, "an interface name")
    _require(_parses(ip_interface, network.address), "network address", network.address, "like 10.77.1.5/24")
    gateway = network.gateway
    _require(gateway is None or _parses(ip_address, gateway), "network gateway", gateway, "an address")
    _require("/" in network.address, "network address", network.address, "an address with its prefix length")
    _require(
        network.mac is None or MAC_PATTERN.fullmatch(network.mac), "mac", network.mac, "xx:xx:xx:xx:xx:xx in lower case"
    )
    _require(network.mtu is None or 576 <= network.mtu <= 65535, "mtu", network.mtu, "576 to 65535")
    six, gateway6, nameserver = network.address6, network.gateway6, network.nameserver
    _require(six is None or ("/" in six and _parses(ip_interface, six)), "network address6", six, "like fd00::5/64")
    _require(gateway6 is None or _parses(ip_address, gateway6), "network gateway6", gateway6, "an address")
    _require(nameserver is None or _parses(ip_address, nameserver), "nameserver", nameserver, "an address")
    search = network.search
    _require(search is None or re.fullmatch(r"[a-z0-9.-]{1,253}", search), "search", search, "a domain")
    _require(network.rate_in >= 0, "rate_in", network.rate_in, "0 or more")
    for each in network.more:
        _require(not each.more and len(network.more) < INTERFACES_MAX, "more", len(network.more), "flat, 7 at most")
        _check_network(each)


def _parses(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _is_text(word: str) -> bool:
    """Has no NUL, which ends strings for the kernel, and no half of a surrogate pair."""
    return "\0" not in word and (word.isascii() or _parses(str.encode, word))


def _require(holds: object, field: str, value: object, right: str) -> None:
    if not holds:
        raise SpecError(f"{field} is {value!r}; it should be {right}")
