"""What is shown of nodes, jobs, logs and images: the API's JSON is exactly these structs.

The floors below the API fill them in, and other nodes read them back. Numbers keep their units; whatever is unknown
is null.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Amounts(msgspec.Struct, frozen=True):
    """Resources as users see them."""

    cpu_milli: int
    memory_bytes: int


class Ratios(msgspec.Struct, frozen=True):
    """A ratio for each resource, such as committed / allocatable."""

    cpu: float
    memory: float


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """A node as this one knows it. `state`: alive, suspect, down, failed or left."""

    name: str
    number: int | None
    state: str
    capacity: Amounts
    allocatable: Amounts
    committed: Amounts
    used: Amounts
    overcommit: Ratios
    permitted: Ratios
    containers: int
    labels: dict[str, str]
    leader: bool
    address: str
    accepting: bool


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A task; `attempt` 0 and an empty `node` mean that nothing was tried yet."""

    index: int
    state: str
    node: str = ""
    attempt: int = 0
    exit_code: int | None = None
    reason: str = ""


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job with its tasks, as its home knows it."""

    id: int
    name: str
    home: str
    state: str
    owner: str
    submitted_unix_s: float
    tasks: list[TaskView]


class JobSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A job with its tasks counted by state."""

    id: int
    name: str
    home: str
    owner: str
    state: str
    submitted_unix_s: float
    tasks: dict[str, int]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job waits (by dimension and count of nodes), or why its tasks are where they are."""

    id: int
    state: str
    summary: str
    reasons: list[dict[str, Any]] = []
    position: int | None = None
    waiting: int | None = None
    leader: str | None = None
    tasks: list[dict[str, Any]] = []


class LogChunk(msgspec.Struct, frozen=True, array_like=True):
    """A piece of a task's output; `ended`: nothing will follow `next_offset`."""

    data: bytes
    next_offset: int
    ended: bool


class ImageView(msgspec.Struct, frozen=True, kw_only=True):
    """An image and the nodes that have it."""

    name: str
    tag: str
    digest: str
    size_bytes: int
    nodes: list[str] = []
