"""What the writers of an LXC configuration are given beside the spec: paths made by the runtime, facts of the host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Line = tuple[str, object]
OPEN_FILES_SOFT, OPEN_FILES_HARD = 1024, 65_536


@dataclass(frozen=True, slots=True)
class Places:
    """Where the runtime has put things, all absolute."""

    lowers: tuple[Path, ...]
    """The images, topmost first, idmapped if there is a user namespace."""
    delta: Path
    """Of this container alone; LXC puts overlayfs's work directory beside it."""
    ready: Path
    """Opened for writing when the container is set up and its command is about to run."""
    seccomp: Path
    cgroup: str
    """Below the hierarchies' root: "fofoca/n1/12001.3.1"."""
    cgroup_pivot: str
    own_limits: tuple[tuple[str, str], ...] = ()
    """Control group files, and values, that LXC is to write to its own group."""
    devices: Path = Path("/dev")
    """Of the container's own device files."""
    mounts: tuple[tuple[Path, str], ...] = ()
    """Directories made ready on the host, each with where it goes inside."""
    masked_files: tuple[str, ...] = ()
    masked_folders: tuple[str, ...] = ()
    """Below /proc and /sys, as far as this kernel has them: LXC complains on a job's output of those that are not."""
    network_of: int | None = None
    """A process whose network and user namespaces it shares."""
    network_up: Path | None = None
    """A script for the host's end of eth0, which LXC runs before the container starts."""


@dataclass(frozen=True, slots=True)
class Host:
    """What the host has."""

    devices_v2: tuple[str, ...] = ()
    """Devices to allow by LXC's BPF filter; empty where a v1 controller does it."""
    apparmor_profile: str | None = None
    """None: no AppArmor in the kernel."""
    open_files_max: int = OPEN_FILES_HARD
    lxcfs: tuple[Path, ...] = ()
    """Files that show a container its own limits where the kernel shows the host's; empty without lxcfs."""
