"""The rows of the ledger: tables, keys and encodings. One row a job, one a task that was ever attempted.

jobs         JOB                 JobRecord: written when taken and when cancelled
tasks        JOB.INDEX           TaskRecord: written for each attempt and each end, not for progress in between,
                                 which node and home tell each other anew after a restart
allocations  JOB.INDEX.ATTEMPT   HeldRecord: written when admitted, frozen by preemption, thawed, and ended, removed
                                 when its home took the end
settings     KIND/NAME           Entry: the cluster's settings, the same on every node
sites        KEY                 SiteRecord: written when made, woken, frozen, thawed and asleep again
usage        DAY/ACCOUNT/USER    Used: what attempts of this home's jobs used that ended that day; also job/JOB
meta         sequence            highest job sequence among dropped jobs, so that ids are never reused
meta         epoch               highest epoch this node has led with
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from scheduler.condition import FrozenFor, Stood
from scheduler.effects import Effects
from scheduler.model import Allocation, AllocationId, JobRecord, Result, TaskRecord

JOBS = "jobs"
TASKS = "tasks"
ALLOCATIONS = "allocations"
META = "meta"
SETTINGS = "settings"
SITES = "sites"
USAGE = "usage"
TABLES = (JOBS, TASKS, ALLOCATIONS, META, SETTINGS, SITES, USAGE)
LOST_WITH_THE_HOST = frozenset({ALLOCATIONS})
"""Tables that must survive the agent, but not the host: when a host loses power its containers are gone too, and their
homes find out by asking (Census)."""

Rows = Mapping[str, Mapping[str, bytes]]
T = TypeVar("T")


class HeldRecord(msgspec.Struct, frozen=True):
    """What a node keeps of an allocation: the order, and the result once there is one.

    `unhealthy`: why it is being ended, if its checks are the reason. `frozen_for`: the job of a higher tier for which
    it was frozen, or is about to be, or thaws; written before, and forgotten after, when it counts as `stood`.
    """

    allocation: Allocation
    result: Result | None = None
    unhealthy: str = ""
    frozen_for: FrozenFor | None = None
    stood: Stood | None = None


_encoder = msgspec.msgpack.Encoder()


def put_job(fx: Effects, record: JobRecord) -> None:
    """Write a job's row."""
    fx.put(JOBS, str(record.id), _encoder.encode(record))


def put_task(fx: Effects, job: int, index: int, record: TaskRecord) -> None:
    """Write a task's row."""
    fx.put(TASKS, f"{job}.{index}", _encoder.encode(record))


def delete_task(fx: Effects, job: int, index: int) -> None:
    """Remove a task's row."""
    fx.delete(TASKS, f"{job}.{index}")


def put_held(fx: Effects, record: HeldRecord) -> None:
    """Write an allocation's row."""
    fx.put(ALLOCATIONS, str(record.allocation.id), _encoder.encode(record))


def delete_held(fx: Effects, id_: AllocationId) -> None:
    """Remove an allocation's row."""
    fx.delete(ALLOCATIONS, str(id_))


def put_number(fx: Effects, key: str, value: int) -> None:
    """Write a number into meta."""
    fx.put(META, key, str(value).encode())


def get_number(rows: Rows, key: str) -> int:
    """Read a number from meta; 0 when it was never written."""
    return int(rows.get(META, {}).get(key, b"0"))


def read_table(rows: Rows, table: str, kind: type[T]) -> dict[str, T]:
    """Decode a whole table; raises msgspec.DecodeError on a row this version can't read."""
    decoder = msgspec.msgpack.Decoder(kind)
    return {key: decoder.decode(value) for key, value in rows.get(table, {}).items()}


def task_key(key: str) -> tuple[int, int]:
    """Split a task's key into (job, index)."""
    job, index = key.split(".")
    return int(job), int(index)
