"""v1's device filter: a root group that is closed to all but a few, and containers that may open less than it.

On v2 a BPF program does this, which LXC loads; there only the list of rules is taken from here. A v1 group never allows
what its parent denies, so the root group allows what any container of the node may be granted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from node.host.cgroups.files import CgroupError, read, write

DEVICES = ("c 1:3", "c 1:5", "c 1:7", "c 1:8", "c 1:9", "c 5:0", "c 5:1", "c 5:2", "c 136:*")
"""null zero full random urandom tty console ptmx pts/*: all else is denied."""
_ALL = "a *:* rwm"


def close_root(path: Path, grantable: Sequence[str]) -> None:
    """v1 takes "all" only before there are groups below; with them it has been done. Rules: "c 10:229 rwm"."""
    if _ALL in read(path / "devices.list"):
        write(path / "devices.deny", "a")
        for device in DEVICES:
            write(path / "devices.allow", f"{device} rwm")
    for rule in grantable:
        write(path / "devices.allow", rule)


def restrict(path: Path, granted: Sequence[str]) -> None:
    """Leave a container's group the usual devices and what it is granted. Raises CgroupError."""
    wanted = {f"{device} rwm" for device in DEVICES} | set(granted)
    try:
        write(path / "devices.deny", "a")
        for rule in sorted(wanted):
            write(path / "devices.allow", rule)
        found = set(read(path / "devices.list").splitlines())
    except OSError as error:
        raise CgroupError(f"devices.allow refused: {error.strerror}") from error
    if found != wanted:
        raise CgroupError(f"devices.list is {sorted(found)} after writing {sorted(wanted)}")
