"""The names of tasks: who may ask, and which addresses they have. Pure.

    task-INDEX.job-ID.fofoca    a task; rank-INDEX is the same, as gangs say it
    jobID-INDEX.fofoca          the same by the host name that it has unless its job says otherwise (FOFOCA_PEERS)
    job-ID.fofoca               all running tasks of a job

In a job's own containers `.job-ID.fofoca` is added by their resolv.conf, so there the first word will do.

Containers see the names of their owner's tasks alone; another's are names that do not exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

DOMAIN = "fofoca"
_NAME = re.compile(rf"(?:(?:task|rank)-(\d{{1,10}})\.)?job-(\d{{1,18}})\.{DOMAIN}")
_HOST_NAME = re.compile(rf"job(\d{{1,18}})-(\d{{1,10}})(?:\.job-\1)?\.{DOMAIN}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a name means; index None: all tasks of the job."""

    job: int
    index: int | None


@dataclass(frozen=True, slots=True)
class Asker:
    """Who wants to know a name: a task of this owner's job; `gang_size` 0: it is in no gang."""

    owner: str
    job: int
    gang_size: int = 0

    def is_mate(self, wanted: Wanted) -> bool:
        """Whether that is a member of its own gang, which runs, is about to, or has ended."""
        return wanted.job == self.job and wanted.index is not None and wanted.index < self.gang_size

    def may_come(self, wanted: Wanted) -> bool:
        """Whether it may be there in a moment: a task of one's own job, or of its gang where it is one."""
        return self.is_mate(wanted) or (wanted.job == self.job and not self.gang_size)


class Resident(msgspec.Struct, frozen=True, order=True, array_like=True):
    """A running task somewhere: whose, which, and where it is reached."""

    owner: str
    job: int
    index: int
    addresses: tuple[str, ...]


def is_ours(name: str) -> bool:
    """Whether the name is in our domain, so that nobody else is asked for it."""
    return name == DOMAIN or name.endswith(f".{DOMAIN}")


def parse(name: str) -> Wanted | None:
    """Read a name in small letters."""
    if match := _HOST_NAME.fullmatch(name):
        return Wanted(int(match[1]), int(match[2]))
    match = _NAME.fullmatch(name)
    return Wanted(int(match[2]), int(match[1]) if match[1] else None) if match else None


def find(wanted: Wanted, owner: str, residents: Iterable[Resident]) -> list[str]:
    """Return the addresses of this owner's tasks that the name means, by index, each once: tasks may share one."""
    found = [
        each
        for each in residents
        if (each.owner, each.job) == (owner, wanted.job) and wanted.index in (None, each.index)
    ]
    return list(dict.fromkeys(address for each in sorted(found) for address in each.addresses))
