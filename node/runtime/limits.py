"""What a container is confined to beyond memory, CPU and process count, as its node resolved it, and its rlimits.

Owns the values, and the setting and reading back of rlimits on live processes. May not know: who asked, LXC.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from node.host.cgroups import MoreLimits
from scheduler.spec.limits import UNLIMITED, Rlimit


@dataclass(frozen=True, slots=True)
class Device:
    """A device file of the host that the container may use: `rule` as in "c 10:229 rwm"."""

    path: Path
    rule: str


@dataclass(frozen=True, slots=True)
class FurtherLimits:
    """By its control groups, by the device filter, and of each process."""

    groups: MoreLimits = field(default_factory=MoreLimits)
    devices: tuple[Device, ...] = ()
    rlimits: tuple[Rlimit, ...] = ()


def differing(rlimits: Iterable[Rlimit], pid: int) -> str | None:
    """Return what is wrong with a process's rlimits, if anything; a process that is gone has nothing wrong."""
    with suppress(ProcessLookupError):
        for each in rlimits:
            found = resource.prlimit(pid, _number(each.name))
            if found != _pair(each):
                return f"rlimit {each.name} is {found[0]}:{found[1]} after asking for {each.soft}:{each.ceiling}"
    return None


def set_rlimits(rlimits: Iterable[Rlimit], pids: Iterable[int]) -> None:
    """Set them on each process; those that have just ended are passed over. Raises PermissionError with what could not
    be set, ValueError."""
    for pid in pids:
        with suppress(ProcessLookupError):
            for each in rlimits:
                _set(pid, each)


def _set(pid: int, rlimit: Rlimit) -> None:
    try:
        resource.prlimit(pid, _number(rlimit.name), _pair(rlimit))
    except PermissionError:
        hard = resource.prlimit(pid, _number(rlimit.name))[1]
        raise PermissionError(
            f"{rlimit.name} is {hard} at most for what runs already, and the agent has no CAP_SYS_RESOURCE to raise it"
        ) from None


def hard_maximum(name: str) -> int:
    """The agent's own hard limit, which no container can pass; UNLIMITED where there is none."""
    return resource.getrlimit(_number(name))[1]


def _number(name: str) -> int:
    return int(_NUMBERS[name])


_NUMBERS = {"locks": 10, "rttime": 15} | {
    name: getattr(resource, f"RLIMIT_{name.upper()}")
    for name in (
        *("as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio"),
        *("sigpending", "stack"),
    )
}
"""As in the kernel; Python knows no names for the first two."""


def _pair(rlimit: Rlimit) -> tuple[int, int]:
    def of(value: int) -> int:
        return resource.RLIM_INFINITY if value == UNLIMITED else value

    return of(rlimit.soft), of(rlimit.ceiling)
