"""The names of tasks: who may ask, and which addresses they have. Pure.

    task-INDEX.job-ID.fofoca    a task; rank-INDEX is the same, as gangs say it
    job-ID.fofoca               all running tasks of a job

Containers see the names of their owner's tasks alone; another's are names that do not exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

DOMAIN = "fofoca"
_NAME = re.compile(rf"(?:(?:task|rank)-(\d{{1,10}})\.)?job-(\d{{1,18}})\.{DOMAIN}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a name means; index None: all tasks of the job."""

    job: int
    index: int | None


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
    match = _NAME.fullmatch(name)
    return Wanted(int(match[2]), int(match[1]) if match[1] else None) if match else None


def find(wanted: Wanted, owner: str, residents: Iterable[Resident]) -> list[str]:
    """Return the addresses of this owner's tasks that the name means, by index."""
    found = [
        each
        for each in residents
        if (each.owner, each.job) == (owner, wanted.job) and wanted.index in (None, each.index)
    ]
    return [address for each in sorted(found) for address in each.addresses]
