"""What this node's operator lets containers have: volumes, system call filters, capabilities, an SELinux context.

Owns the step from a job's words to what a runtime is given, and the labels by which other nodes know of it. What a job
asks beyond is refused by name; placement knows the labels, so this is rarely needed. May not know: runtimes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from node import logs
from node.config import Files as FilesSettings
from node.config import Security as SecuritySettings
from node.errors import InvalidConfig, NodeError
from node.host.staging import scratch_obstacle
from node.host.volumes import VolumeRoot, read_roots
from node.runtime.parts import FileMounts, Privileges, VolumeMount
from node.runtime.protocol import Feature
from scheduler.model import Allocation
from scheduler.spec.security import CAPABILITIES_DEFAULT, capabilities

PROFILES_MAX = 64
PROFILE_BYTES_MAX = 256 << 10
SELINUX = Path("/sys/fs/selinux/enforce")
APPARMOR = Path("/sys/kernel/security/apparmor/profiles")

log = logs.get("allowances")


class NotAllowed(NodeError):
    """The caller's wish and the operator's word don't agree; names both."""


@dataclass(frozen=True)
class Allowances:
    """Fixed while the agent runs."""

    volumes: Mapping[str, VolumeRoot] = field(default_factory=dict)
    seccomp: Mapping[str, Path] = field(default_factory=dict)
    capabilities: frozenset[str] = CAPABILITIES_DEFAULT
    selinux_context: str | None = None
    root_bytes: int = 0
    """Of containers whose job names no size."""

    def files(self, allocation: Allocation, secrets: Path | None) -> FileMounts:
        """Return what the container gets beside its root file system; NotAllowed."""
        asked, owner = allocation.spec.files, allocation.owner
        return FileMounts(
            volumes=tuple(
                VolumeMount(
                    self._root(each.name, owner, not each.read_only),
                    owner,
                    each.folder,
                    each.target,
                    not each.read_only,
                )
                for each in asked.volumes
            ),
            tmpfs=asked.tmpfs,
            scratch=asked.scratch,
            secrets=secrets,
            read_only_root=asked.read_only_root,
            root_bytes=asked.root_bytes or self.root_bytes,
        )

    def privileges(self, allocation: Allocation) -> Privileges:
        """Return what the container's processes may do at most; NotAllowed."""
        asked = allocation.spec.security
        if asked.seccomp and asked.seccomp not in self.seccomp:
            raise NotAllowed(f"this node has no system call filter {asked.seccomp} (security.seccomp_directory)")
        wanted = capabilities(asked)
        if beyond := sorted(set(wanted) - self.capabilities):
            raise NotAllowed(f"this node allows no {', '.join(beyond)} (security.capabilities)")
        return Privileges(wanted, self.seccomp.get(asked.seccomp), asked.masked_paths, self.selinux_context)

    def labels(self, features: frozenset[Feature]) -> dict[str, str]:
        """Return what to advertise, lists parted by commas; a label with nothing in it is left out."""
        able: dict[str, Iterator[str]] = {
            "volumes": (name for name in self.volumes if "volumes" in features),
            "volumes-writable": (
                name for name, root in self.volumes.items() if root.writable and "volumes" in features
            ),
            "files": _file_abilities(features),
            "seccomp": (name for name in self.seccomp if "seccomp" in features),
            "capabilities": (name for name in self.capabilities - CAPABILITIES_DEFAULT if "capabilities" in features),
            "security": _security_abilities(features),
        }
        return {label: text for label, names in able.items() if (text := ",".join(sorted(names)))}

    def _root(self, name: str, owner: str, writable: bool) -> VolumeRoot:
        root = self.volumes.get(name)
        if root is None or (root.owners is not None and owner not in root.owners):
            raise NotAllowed(f"this node has no volume {name} for {owner}")
        if writable and not root.writable:
            raise NotAllowed(f"the volume {name} is read-only on this node; ask for it read-only")
        return root


def read_allowances(files: FilesSettings, security: SecuritySettings) -> Allowances:
    """Return what the configuration allows and the host has; a root that can't be offered now is left out and logged.
    Raises InvalidConfig for what an operator can't have meant."""
    roots = read_roots(files.volumes)
    usable = {}
    for name, root in roots.items():
        if (obstacle := root.obstacle()) is None:
            usable[name] = root
        else:
            log.warning("a volume is not offered", volume=name, why=obstacle)
    if security.selinux_context is not None and not SELINUX.exists():
        raise InvalidConfig(
            "security.selinux_context", security.selinux_context, "expected none: SELinux is not active"
        )
    return Allowances(
        usable,
        _profiles(security.seccomp_directory),
        CAPABILITIES_DEFAULT | frozenset(security.capabilities),
        security.selinux_context,
        files.root_bytes,
    )


def _profiles(directory: str | None) -> dict[str, Path]:
    """Return the profiles of a directory by name: its files NAME.seccomp that nobody but root can change."""
    if directory is None:
        return {}
    found = {}
    try:
        for path in sorted(Path(directory).glob("*.seccomp"))[:PROFILES_MAX]:
            status = path.stat()
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or status.st_size > PROFILE_BYTES_MAX:
                raise InvalidConfig("security.seccomp_directory", str(path), "expected a file only root can change")
            found[path.name.removesuffix(".seccomp")] = path
        if not Path(directory).is_dir():
            raise InvalidConfig("security.seccomp_directory", directory, "expected a directory")
    except OSError as error:
        raise InvalidConfig(
            "security.seccomp_directory", directory, f"expected it readable: {error.strerror}"
        ) from None
    return found


def _file_abilities(features: frozenset[Feature]) -> Iterator[str]:
    if "tmpfs" in features:
        yield "tmpfs"
    if "secrets" in features:
        yield "secrets"
    if "read_only_root" in features:
        yield "read-only-root"
    if "scratch" in features and scratch_obstacle() is None:
        yield "scratch"
    if "root_bytes" in features and scratch_obstacle() is None:
        yield "root-size"


def _security_abilities(features: frozenset[Feature]) -> Iterator[str]:
    if "capabilities" in features:
        yield "capabilities"
    if "masked_paths" in features:
        yield "masks"
    if "selinux" in features and SELINUX.exists():
        yield "selinux"
    if "selinux" in features and APPARMOR.exists():
        yield "apparmor"
