"""Containers by LXC's own tools: one foreground `lxc-execute` under one supervisor each.

Owns: what a container needs on the host around its configuration (idmapped image, delta, control groups, seccomp
profile) and the reading of LXC's log. May not know: jobs, addresses' origin.

No lxc-info, lxc-wait or binding: state comes from the supervisor's files, usage from control group files.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import get_args

import trio

from node.host import mount_points, network_rates
from node.host.cgroups import DEVICES, PIVOT, CgroupError, Cgroups
from node.host.errors import HostError
from node.host.idmap import IdmappedMounts, MountError
from node.host.network import NetworkError, remove_interface
from node.host.process_tree import beginning_with, kill_tree
from node.host.staging import Staging
from node.runtime import supervisor
from node.runtime.directory import ContainerDirectory, all_directories
from node.runtime.entering import HELPER, first_process
from node.runtime.limits import differing, set_rlimits
from node.runtime.lxc import apparmor, config, files, masks, network, not_executed, seccomp
from node.runtime.lxc.limits import group_limits, make_nodes, rlimits
from node.runtime.lxc.places import Host, Places
from node.runtime.lxc.shared_network import SharedNetworks
from node.runtime.protocol import (
    USER_RANGE,
    ContainerSpec,
    EnterError,
    Entrance,
    Exit,
    Feature,
    FreezeError,
    Recovered,
    SpecError,
    StartError,
    UpdateError,
    Usage,
    name_taken,
)
from node.runtime.supervised import POLL_INTERVAL_S, SupervisedRuntime, life_orders
from scheduler.abilities import FREEZE

LXC_LOCKS = Path("/run/lxc/lock")
LXCFS = Path("/var/lib/lxcfs")
LXCFS_NAMES = (
    "proc/cpuinfo", "proc/diskstats", "proc/loadavg", "proc/meminfo", "proc/stat", "proc/swaps", "proc/uptime",
    "sys/devices/system/cpu/online",
)  # fmt: skip
START_TIMEOUT_S = 30.0
FREEZE_TIMEOUT_S = 5.0
FREEZE_POLL_S = 0.002
REASON_LINES = 2
RLIMIT_ROUNDS_MAX = 10
FEATURES: frozenset[Feature] = frozenset(get_args(Feature))


class LxcRuntime(SupervisedRuntime):
    """`root`: of this agent alone. `cgroup_root`: below each hierarchy, such as "fofoca/n1". `devices`: rules, such as
    "c 10:229 rwm", that single containers may be granted."""

    def __init__(
        self, root: Path, program: Sequence[str], cgroup_root: str = "fofoca", devices: Sequence[str] = ()
    ) -> None:
        if not config.SAFE_PATH.fullmatch(str(root)):
            raise SpecError(f"data directory is {str(root)!r}; LXC takes only A-Z a-z 0-9 _ . / + - in it")
        super().__init__(root, program)
        self._mounts = IdmappedMounts(root / "mounts", USER_RANGE)
        self._mounting = threading.Lock()
        self._staging = Staging(root / "staging")
        self._cgroups = Cgroups(cgroup_root, devices=devices)
        self._cgroups.ensure()
        self._shared = SharedNetworks(cgroup_root, lambda name: first_process(self._cgroups.inside(name)))
        self._seccomp = root / "seccomp"
        self._seccomp.write_text(seccomp.profile())
        self._empty = root / "empty"
        self._empty.mkdir(exist_ok=True)
        self._apparmor = root / "apparmor"
        self._host = _host(self._cgroups, apparmor.ensure(self._apparmor))
        self._supervisors = self._cgroups.supervisors()
        self._reserved: set[str] = set()
        self._joining: set[int] = set()
        self._attach = (shutil.which("lxc-attach") or "/usr/bin/lxc-attach", "-q", "-P", str(self._root))
        self._lxc_execute = shutil.which("lxc-execute") or "/usr/bin/lxc-execute"

    @property
    def name(self) -> str:
        return "lxc"

    @property
    def features(self) -> frozenset[Feature]:
        return FEATURES

    @property
    def abilities(self) -> frozenset[str]:
        freeze = {FREEZE} if self._cgroups.can_freeze else set()
        return frozenset(self._cgroups.abilities() | {"rlimits"} | freeze)

    async def reserve(self, spec: ContainerSpec) -> None:
        if self._directory(spec.name).exists():
            raise name_taken(spec.name)
        joining = await trio.to_thread.run_sync(self._reserve, spec)
        self._reserved.add(spec.name)
        if joining is not None:
            self._joining.add(joining)

    def _reserve(self, spec: ContainerSpec) -> int | None:
        """The groups first: while the kernel gets ready for who is to join them, none can be made."""
        try:
            self._make_groups(spec)
            return supervisor.hasten(self._program, self._cgroups.lobby())
        except (CgroupError, OSError) as error:
            raise StartError(spec.name, str(error)) from error

    def _make_groups(self, spec: ContainerSpec) -> None:
        self._cgroups.create(spec.name, group_limits(spec), [device.rule for device in spec.limits.devices])

    def _set_up(self, spec: ContainerSpec, directory: ContainerDirectory) -> None:
        try:
            lowers = self._lowers(spec)
            if spec.name not in self._reserved:
                self._make_groups(spec)
            places = replace(self._places(spec, lowers), own_limits=tuple(self._cgroups.own(group_limits(spec))))
            network.write_etc(places.delta, spec)
            mount_points.make(places.delta, lowers, files.mount_points(spec), spec.user_base)
            places = replace(places, mounts=tuple(zip(self._stage(spec), files.staged_targets(spec), strict=True)))
            places = replace(places, network_up=self._rate(spec), network_of=self._shared.enter(spec))
        except (MountError, CgroupError, HostError, NetworkError) as error:
            raise StartError(spec.name, str(error)) from error
        make_nodes(spec.name, spec.limits.devices, places.devices, spec.user_base)
        os.mkfifo(places.ready, 0o600)
        directory.write_once("config", config.text(spec, places, self._host).encode())
        directory.write_orders(self._orders(spec))

    def _rate(self, spec: ContainerSpec) -> Path | None:
        if spec.network is None or not spec.network.rate_in or spec.network.group:
            return None
        path = self._root / spec.name / "network_up"
        host_end = network.host_end(f"{self._cgroups.root}/{spec.name}")
        path.write_text(network_rates.script(shutil.which("tc") or "/usr/sbin/tc", host_end, spec.network.rate_in))
        path.chmod(0o700)
        return path

    def _delta(self, spec: ContainerSpec) -> Path:
        """Where it writes over its image: a folder, or one in a file system of the size asked for."""
        directory = self._root / spec.name
        if not spec.files.root_bytes:
            return directory / "fs" / "delta"
        image = directory / "layer"
        return self._staging.scratch(spec.name, image, spec.files.root_bytes, spec.user_base) / "delta"

    def _stage(self, spec: ContainerSpec) -> list[Path]:
        """What goes to `staged_targets`, in that order."""
        asked, base = spec.files, spec.user_base
        made = [
            self._staging.volume(spec.name, each.root, each.owner, each.folder, each.writable, base)
            for each in asked.volumes
        ]
        if asked.scratch is not None:
            image = self._root / spec.name / "scratch"
            made.append(self._staging.scratch(spec.name, image, asked.scratch.size_bytes, base))
        if asked.secrets is not None:
            made.append(self._staging.unchangeable(spec.name, asked.secrets))
        return made

    def _lowers(self, spec: ContainerSpec) -> tuple[Path, ...]:
        if spec.rootfs is None:
            raise StartError(spec.name, "no image")
        return tuple(self._lower(spec, root) for root in (spec.rootfs, *spec.bases))

    def _lower(self, spec: ContainerSpec, root: Path) -> Path:
        if not root.is_dir():
            raise StartError(spec.name, f"no image directory {root}")
        if not spec.user_base:
            return root
        with self._mounting:
            return self._mounts.ensure(root, spec.user_base)

    def _places(self, spec: ContainerSpec, lowers: tuple[Path, ...]) -> Places:
        directory = self._root / spec.name
        masked_files, masked_folders = masks.files_and_folders(spec.privileges.masked_paths)
        return Places(
            masked_files=masked_files,
            masked_folders=masked_folders,
            lowers=lowers,
            delta=self._delta(spec),
            ready=directory / "ready",
            devices=directory / "devices",
            seccomp=self._seccomp,
            cgroup=f"{self._cgroups.root}/{spec.name}",
            cgroup_pivot=f"{self._cgroups.root}/{PIVOT}",
        )

    def _orders(self, spec: ContainerSpec) -> list[tuple[str, object]]:
        orders: list[tuple[str, object]] = [
            ("kind", "lxc"),
            ("start_timeout_ms", int(START_TIMEOUT_S * 1000)),
            *life_orders(spec),
            ("owner", spec.user_base + spec.user[0]),
        ]
        orders += [("cgroup", path) for path in self._cgroups.directories(spec.name)]
        for key, controllers in (("memory", ("memory",)), ("cpu", ("cpuacct", "cpu"))):
            found = [self._cgroups.directory(controller, spec.name) for controller in controllers]
            orders += [(key, path) for path in found if path is not None][:1]
        if self._supervisors is not None:
            orders.append(("join", self._supervisors))
        return orders

    def _command(self, spec: ContainerSpec, directory: ContainerDirectory) -> tuple[list[str], dict[str, str]]:
        """An empty PATH hides newuidmap: where it is installed LXC uses it even for root, and then insists on
        /etc/subuid. Writing the maps as root needs neither."""
        command = [self._lxc_execute, "-q", "-P", str(self._root), "-n", spec.name]
        command += ["-f", str(directory.path / "config"), "-o", str(directory.path / "lxc.log"), "-l", "ERROR"]
        return command + config.arguments(spec), {"PATH": str(self._empty)}

    def _verify(self, spec: ContainerSpec) -> str | None:
        """LXC has put it below each of the directories that carry limits, and given it its rlimits."""
        for controller in (*sorted(self._cgroups.controllers(group_limits(spec))), "devices"):
            payload = self._cgroups.directory(controller, spec.name)
            if payload is not None and not (payload / "lxc").exists():
                return f"LXC left it out of the {controller} control group, so its limit would not hold"
        wanted = rlimits(spec, self._host.open_files_max)
        wrong = (differing(wanted, pid) for pid in self._cgroups.inside(spec.name))
        return self._cgroups.astray(spec.name, group_limits(spec)) or next(filter(None, wrong), None)

    def _change(self, old: ContainerSpec, new: ContainerSpec) -> None:
        before, after = group_limits(old), group_limits(new)
        try:
            self._cgroups.update(old.name, before, after)
        except CgroupError as error:
            raise UpdateError(old.name, str(error)) from error
        try:
            self._change_rlimits(new)
        except (OSError, ValueError) as error:
            self._change_rlimits(old)
            self._cgroups.update(old.name, after, before)
            raise UpdateError(old.name, f"rlimits refused: {error}") from error

    def _change_rlimits(self, spec: ContainerSpec) -> None:
        """Processes may be born meanwhile, with their parents' former limits: again, until none is found."""
        wanted = rlimits(spec, self._host.open_files_max)
        for _ in range(RLIMIT_ROUNDS_MAX):
            late = [pid for pid in self._cgroups.inside(spec.name) if differing(wanted, pid)]
            if not late:
                return
            set_rlimits(wanted, late)

    def _explain(self, directory: ContainerDirectory, ending: Exit) -> Exit:
        if ending.exit_code == not_executed.NOT_EXECUTED:
            return not_executed.explained(directory.spec(), ending)
        if ending.started_unix_s is not None or ending.error is None:
            return ending
        reason = _reason(directory.path / "lxc.log")
        return replace(ending, error=f"{ending.error}: {reason}") if reason else ending

    def _sample(self, name: str) -> Usage:
        found = Usage(*self._cgroups.usage(name))
        if not found.pids:
            raise ProcessLookupError(name)
        return found

    async def freeze(self, name: str) -> None:
        await self._set_frozen(name, True)

    async def thaw(self, name: str) -> None:
        await self._set_frozen(name, False)

    async def _set_frozen(self, name: str, frozen: bool) -> None:
        """The kernel stops what is in the middle of a system call as soon as that can be interrupted."""
        directory = self._known(name)
        if not directory.is_locked() or directory.started_unix_s() is None:
            raise FreezeError(name, "it does not run")
        try:
            with trio.fail_after(FREEZE_TIMEOUT_S):
                self._cgroups.freeze(name, frozen)
                while self._cgroups.stands(name) != frozen:  # noqa: ASYNC110
                    await trio.sleep(FREEZE_POLL_S)
        except trio.TooSlowError:
            self._cgroups.freeze(name, False)
            raise FreezeError(name, f"not frozen within {FREEZE_TIMEOUT_S:g} s, so it goes on") from None
        except (OSError, CgroupError) as error:
            raise FreezeError(name, str(error)) from error

    def is_frozen(self, name: str) -> bool:
        try:
            return self._cgroups.stands(name)
        except (OSError, CgroupError):
            return False

    def entrance(self, name: str, *, tty: bool = False) -> Entrance:
        directory = self._known(name)
        spec = directory.spec()
        first = first_process(self._cgroups.inside(name))
        if spec is None or first is None:
            raise EnterError(name, "it does not run (any more)")
        if self.is_frozen(name):
            raise EnterError(name, "it is frozen; `fofoca thaw` lets it go on")
        command = [*self._attach, "-n", name]
        command += ["-f", str(directory.path / "config"), "-o", str(directory.path / "lxc.log"), "-l", "ERROR"]
        command += ["--clear-env", "-u", str(spec.user[0]), "-g", str(spec.user[1])]
        for key, value in {"PATH": config.DEFAULT_PATH, **dict(spec.env)}.items():
            command += ["-v", f"{key}={value}"]
        files = (sys.executable, "-I", "-S", str(HELPER), str(first), f"{self._cgroups.root}/{name}/")
        return Entrance((*command, "--"), files)

    async def _check_started(self, spec: ContainerSpec, directory: ContainerDirectory) -> None:
        self._see_off()
        await super()._check_started(spec, directory)

    def _see_off(self) -> None:
        """What was to join a group for a container has done so by the time that this has started."""
        self._joining = {pid for pid in self._joining if not supervisor.reap(pid)}

    def _forget(self, name: str) -> None:
        super()._forget(name)
        self._reserved.discard(name)

    def _clean(self, name: str) -> None:
        self._cgroups.remove(name)
        self._staging.release(name)
        for host_end in network.host_ends(f"{self._cgroups.root}/{name}"):
            remove_interface(host_end)
        self._shared.leave(name)
        (LXC_LOCKS / str(self._root).lstrip("/") / f".{name}").unlink(missing_ok=True)

    def _recover(self) -> list[Recovered]:
        for pid in beginning_with(self._attach):  # whoever had them run inside is gone with the former agent
            kill_tree(pid)
        found = super()._recover()
        for spec in filter(None, (each.spec for each in found)):
            self._shared.know(spec)
        for name in (self._cgroups.names() | self._staging.names()) - {entry.name for entry in self._root.iterdir()}:
            self._clean(name)
        return found

    def forget_rootfs(self, rootfs: Path) -> None:
        with self._mounting:
            self._mounts.release(rootfs)

    async def purge(self) -> None:
        for directory in all_directories(self._root):
            if (spec := directory.spec()) is not None:
                self._shared.know(spec)
        await super().purge()
        while self._joining:
            await trio.sleep(POLL_INTERVAL_S)
            self._see_off()
        self._mounts.release_all()
        self._staging.release_all()
        for name in self._cgroups.names():
            self._clean(name)
        self._cgroups.remove_root()
        locks = LXC_LOCKS / str(self._root).lstrip("/")
        for lock in locks.glob(".*"):  # an lxc-execute that was killed may have made its own once more meanwhile
            lock.unlink(missing_ok=True)
        with suppress(OSError):
            os.removedirs(locks)
        self._seccomp.unlink(missing_ok=True)
        self._apparmor.unlink(missing_ok=True)
        self._empty.rmdir()


def _host(cgroups: Cgroups, apparmor_profile: str | None) -> Host:
    devices_v1 = cgroups.layout.having("devices") is not None
    return Host(
        devices_v2=() if devices_v1 else DEVICES,
        apparmor_profile=apparmor_profile,
        open_files_max=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        lxcfs=lxcfs_files(),
    )


def lxcfs_files(place: Path = LXCFS) -> tuple[Path, ...]:
    """What a running lxcfs offers; its folders for control groups are not for containers with mapped roots."""
    if not os.path.ismount(place):
        return ()
    return tuple(path for path in (place / name for name in LXCFS_NAMES) if path.exists())


ERROR_LINE = re.compile(r"^\S+ \S+ [\d.]+ ERROR +\S+ - \S+ - (.*)$")
NOISE = (
    "Failed run an application",
    "Failed to create the network",
    "Received container state",
    "Failed to spawn container",
    "Failed to setup the container",
    "Child process failed",
)


def _reason(log: Path) -> str:
    """The first errors in LXC's log: the later ones only follow from them."""
    try:
        with log.open(errors="replace") as file:
            errors = [match.group(1) for line in file.read(65536).splitlines() if (match := ERROR_LINE.match(line))]
    except OSError:
        return ""
    told = [error for error in errors if not error.startswith(NOISE)] or errors
    return "; ".join(told[:REASON_LINES])
