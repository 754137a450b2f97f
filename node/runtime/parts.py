"""Parts of a ContainerSpec that a node resolved from what a job asks and its operator allows: files and privileges.

Owns the values alone. May not know: who asked, or how a runtime carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from node.host.volumes import VolumeRoot
from scheduler.spec.files import Scratch, Tmpfs
from scheduler.spec.security import CAPABILITIES_DEFAULT

CAPABILITIES = tuple(sorted(CAPABILITIES_DEFAULT))


@dataclass(frozen=True, slots=True)
class VolumeMount:
    """A folder below a root; of a root by owner, below that owner's folder."""

    root: VolumeRoot
    owner: str
    folder: str
    target: str
    writable: bool


@dataclass(frozen=True, slots=True)
class FileMounts:
    """What a container has beside its root file system. Targets never lie in one another."""

    volumes: tuple[VolumeMount, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    scratch: Scratch | None = None
    secrets: Path | None = None
    """A directory of files in memory, made by the caller; shown read-only at /run/secrets."""
    read_only_root: bool = False
    root_bytes: int = 0
    """The most that it may write over its image; 0: as much as the host's disk has."""


@dataclass(frozen=True, slots=True)
class Privileges:
    """What its processes may do at most."""

    capabilities: tuple[str, ...] = CAPABILITIES
    seccomp: Path | None = None
    """A profile in LXC's format; None: the runtime's own."""
    masked_paths: tuple[str, ...] = ()
    """Below /proc and /sys, beside those that are masked anyway."""
    selinux_context: str | None = None
