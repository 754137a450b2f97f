"""What is shown of nodes, jobs and images: the API's JSON is exactly these structs.

Numbers keep their units; what is unknown is null. Fields are only ever added, so that older clients go on working.
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


class NodeDocument(msgspec.Struct, frozen=True, kw_only=True):
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
    draining: bool = False


class PortDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A published port: `port` of the task is reached at `host_port` of its node."""

    protocol: str
    host_port: int
    port: int


class ResultDocument(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended, as its node measured it; times are 0 where it never ran.

    `unhealthy`: what its last check said, where it was stopped for that.
    """

    exit_code: int | None
    signal: int | None
    oom_killed: bool
    timed_out: bool
    error: str | None
    memory_peak_bytes: int
    cpu_ns: int
    started_unix_s: float
    ended_unix_s: float
    unhealthy: str = ""


class TaskDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A task; `attempt` 0 and an empty `node` mean that nothing was tried yet.

    `health`: starting, healthy or unhealthy where it is checked, and what its last check that counted said. A `frozen`
    task is running, but stands still; by preemption for the job `frozen_for`. Before, and until it ended, preemption
    froze it `frozen_times` and for `frozen_s` in all.
    """

    index: int
    state: str
    node: str = ""
    attempt: int = 0
    exit_code: int | None = None
    reason: str = ""
    addresses: tuple[str, ...] = ()
    ports: tuple[PortDocument, ...] = ()
    health: str = ""
    health_reason: str = ""
    frozen: bool = False
    frozen_for: int | None = None
    frozen_times: int = 0
    frozen_s: float = 0.0
    result: ResultDocument | None = None


class JobDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its home knows it: how many tasks are in each state, and the tasks asked for (10,000 at most)."""

    id: int
    name: str
    home: str
    state: str
    owner: str
    submitted_unix_s: float
    counts: dict[str, int]
    tasks: list[TaskDocument]


class JobSummaryDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A job with its tasks counted by state; `frozen` and `unhealthy` ones are running, too."""

    id: int
    name: str
    home: str
    owner: str
    state: str
    submitted_unix_s: float
    tasks: dict[str, int]
    frozen: int = 0
    unhealthy: int = 0


class ExplanationDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job waits, or where its tasks are and why there.

    `reasons` have a `kind`: short (of a dimension, on so many nodes), constraint, not-accepting, unreachable; or what
    keeps the whole job out of the line: hold, begin, dependency; or preemption: lower tiers give way to it.
    `position` is the place in the leader's line, 1 being next; null when the job is not in line. `start_in_s`: when its
    reservation begins, null without one.
    """

    id: int
    state: str
    summary: str
    reasons: list[dict[str, Any]]
    pending_tasks: int
    nodes: int
    fitting: int
    position: int | None
    waiting: int
    start_in_s: float | None
    leader: str
    tasks: list[dict[str, Any]]


class SiteDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A site: where it answers while it is awake (node, address, port), else why not and when to ask again."""

    key: str
    owner: str
    phase: str
    hosts: list[str]
    application: str
    keeper: str
    job: int | None
    node: str
    address: str
    port: int
    weight: int
    reason: str
    retry_s: float
    idle_for_s: float
    open: int


class ApplicationDocument(msgspec.Struct, frozen=True, kw_only=True):
    """An application of the catalogue, as its file has it."""

    name: str
    about: str
    image: str
    port: str
    options: dict[str, list[str]]
    command: list[str]
    env: dict[str, str]
    memory: str
    cpu: str
    cpu_limit: str
    pids: int
    home: str
    idle: str
    frozen: str
    ready_timeout: str
    ready_path: str
    health_path: str
    health_interval: str
    min_instances: int


class NodeKeysDocument(msgspec.Struct, frozen=True):
    """The ids of the keys a node holds, and of the one that seals; none where `why` says why not."""

    name: str
    seals: str | None
    ids: tuple[str, ...]
    why: str


class KeysDocument(msgspec.Struct, frozen=True):
    """The cluster's keys. `id`: the one ordered about; `lacking`: live nodes that hold others than the asked one."""

    id: str
    version: int
    nodes: list[NodeKeysDocument]
    lacking: tuple[str, ...]


class ImageCopyDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One node's copy of an image; `percent` below 100: on its way there.

    `fetched`: from another node, which keeps it. `used_by`: at most 100 of those who use it now, `uses`: how many do.
    """

    node: str
    percent: int
    imported_unix_s: int
    last_used_unix_s: float
    fetched: bool
    uses: int
    used_by: list[str]


class ImageDocument(msgspec.Struct, frozen=True, kw_only=True):
    """An image, the nodes that have it, what they know of their copies, and how it says it is run."""

    name: str
    tag: str
    digest: str
    size_bytes: int
    nodes: list[str] = msgspec.field(default_factory=list)
    copies: list[ImageCopyDocument] = msgspec.field(default_factory=list)
    config: dict[str, Any] = msgspec.field(default_factory=dict)


class PrunedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What a node removed, or would."""

    node: str
    digest: str
    size_bytes: int


class PruneDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The names and the copies that were removed, or would be."""

    names: list[str]
    copies: list[PrunedDocument]
