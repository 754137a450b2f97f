"""The nouns of scheduling: resources, specs, tasks, allocations, reports.

Immutable values only: whoever holds one may pass it on. They are msgspec structs, so that one definition serves
memory, ledger and wire. Resources are integers (millicores, bytes), so admission never drifts by rounding.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Annotated

import msgspec

from scheduler.condition import Stood
from scheduler.spec.files import Files
from scheduler.spec.gang import Gang
from scheduler.spec.life import Life
from scheduler.spec.limits import Limits
from scheduler.spec.networking import Networking
from scheduler.spec.placement import Placement
from scheduler.spec.queueing import Queueing
from scheduler.spec.security import Security

MAX_TASKS_PER_JOB = 1_000_000
NODE_NUMBER_MAX = 999
JOB_ID_STRIDE = NODE_NUMBER_MAX + 1


class Resources(msgspec.Struct, frozen=True, array_like=True):
    """An amount in every dimension: millicores, bytes, and named extras as sorted (name, count) pairs."""

    cpu_milli: int = 0
    memory_bytes: int = 0
    extra: tuple[tuple[str, int], ...] = ()

    def items(self) -> Iterator[tuple[str, int]]:
        """Yield (dimension, amount), cpu and memory first; the names are those users see."""
        yield "cpu", self.cpu_milli
        yield "memory", self.memory_bytes
        yield from self.extra

    def get(self, dimension: str) -> int:
        """Return the amount in one dimension, 0 where there is none."""
        if dimension == "cpu":
            return self.cpu_milli
        if dimension == "memory":
            return self.memory_bytes
        return next((amount for name, amount in self.extra if name == dimension), 0)

    def __add__(self, other: Resources) -> Resources:
        return self._combine(other, 1)

    def __sub__(self, other: Resources) -> Resources:
        return self._combine(other, -1)

    def __mul__(self, count: int) -> Resources:
        return Resources(
            self.cpu_milli * count, self.memory_bytes * count, tuple((name, n * count) for name, n in self.extra)
        )

    def _combine(self, other: Resources, sign: int) -> Resources:
        extra = self.extra
        if len(extra) == 1 and len(other.extra) == 1 and extra[0][0] == other.extra[0][0]:
            extra = ((extra[0][0], extra[0][1] + sign * other.extra[0][1]),)
        elif other.extra:
            amounts = dict(extra)
            for name, amount in other.extra:
                amounts[name] = amounts.get(name, 0) + sign * amount
            extra = tuple(sorted(amounts.items()))
        return Resources(
            self.cpu_milli + sign * other.cpu_milli,
            self.memory_bytes + sign * other.memory_bytes,
            extra,
        )


class JobKind(enum.StrEnum):
    """What happens when a task's process ends: the job's end, or a restart."""

    BATCH = "batch"
    SERVICE = "service"


class OnLost(enum.StrEnum):
    """What the loss of a node means for the tasks on it."""

    REQUEUE = "requeue"
    FAIL = "fail"
    SINGLE = "single"  # as requeue, but only once the lost attempt has surely been stopped by its lease


class State(enum.StrEnum):
    """Where a job or a task is; the last four are final."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def final(self) -> bool:
        """Whether nothing follows this state."""
        return self not in (State.PENDING, State.RUNNING)


class Operator(enum.StrEnum):
    """How a constraint compares a node's label with its values. Those from `has` on are implied by what a spec asks:
    the label, a list parted by commas, has the value; the value is within the label's number, where there is one.
    """

    IN = "in"
    NOT_IN = "not-in"
    EXISTS = "exists"
    ABSENT = "absent"
    HAS = "has"
    WITHIN = "within"
    EVEN = "even"  # the value is one of those with the fewest tasks of the job
    NEAR = "near"  # a task with that tag runs there (scheduler.company)
    AT_MOST = "at-most"  # no more tasks with that tag run there

    @property
    def passing(self) -> bool:
        """Whether what it says of a node changes with what runs, so that it is no property of the node."""
        return self in (Operator.EVEN, Operator.NEAR, Operator.AT_MOST)


class Constraint(msgspec.Struct, frozen=True, array_like=True):
    """A condition on one label of a node; a `soft` one is left when no node meets it."""

    label: str
    operator: Operator = Operator.EXISTS
    values: tuple[str, ...] = ()
    soft: bool = False


class ArrayRange(msgspec.Struct, frozen=True, array_like=True):
    """Task indices first, first+step, ... up to last; at most `throttle` of them run at once (0: no limit)."""

    first: int = 0
    last: int = 0
    step: int = 1
    throttle: int = 0

    def __len__(self) -> int:
        return (self.last - self.first) // self.step + 1

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and index in self.indices()

    def indices(self) -> range:
        """Return the task indices, in order."""
        return range(self.first, self.last + 1, self.step)


class JobSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a user submits. `request` is packed, `limit` is enforced (0 in a dimension: no limit beyond the request).

    `image` is what the user wrote, `image_digest` what the home resolved it to when the job was taken, so that every
    attempt runs the same bytes. Both may be a stack of images, topmost first, parted by ";". Without `argv` the image's
    own command runs.
    """

    name: str
    argv: tuple[str, ...]
    request: Resources
    limit: Resources = Resources()
    image: str = ""
    image_digest: str = ""
    env: tuple[tuple[str, str], ...] = ()
    array: ArrayRange | None = None
    kind: JobKind = JobKind.BATCH
    priority: int = 0
    time_limit_s: float | None = None
    stop_grace_s: float = 5.0
    attempts_max: int = 3
    on_lost: OnLost = OnLost.REQUEUE
    constraints: tuple[Constraint, ...] = ()
    pids_max: int = 512
    network: str = "bridge"
    limits: Limits = Limits()
    networking: Networking = Networking()
    files: Files = Files()
    security: Security = Security()
    life: Life = Life()
    gang: Gang | None = None
    queueing: Queueing = Queueing()
    placement: Placement = Placement()

    def indices(self) -> range:
        """Return the task indices of this job; a plain job has the single task 0, a gang one for each rank."""
        if self.gang is not None:
            return range(self.gang.size)
        return self.array.indices() if self.array else range(1)


class AllocationId(msgspec.Struct, frozen=True, array_like=True, order=True):
    """One attempt of one task; as text `JOB.INDEX.ATTEMPT`, which also names its container."""

    job: int
    index: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.job}.{self.index}.{self.attempt}"

    @classmethod
    def parse(cls, text: str) -> AllocationId:
        """Read the text form; ValueError for anything else."""
        job, index, attempt = text.split(".")
        return cls(int(job), int(index), int(attempt))


class Allocation(msgspec.Struct, frozen=True):
    """One attempt bound to a node, with all that the node needs to run it without asking again.

    `gang_nodes`: where the whole gang is, in the order of its ranks; empty for a task that is in none.
    """

    id: AllocationId
    home: str
    owner: str
    spec: JobSpec
    gang_nodes: tuple[str, ...] = ()


class Reach(msgspec.Struct, frozen=True, array_like=True):
    """Where a running task is reached: its addresses, and what it publishes as (protocol, its node's port, its own).

    `host`: its node's address, where the task's own ones mean nothing to other nodes.
    """

    addresses: tuple[str, ...] = ()
    ports: tuple[tuple[str, int, int], ...] = ()
    host: str = ""


NOWHERE = Reach()


class Result(msgspec.Struct, frozen=True):
    """How an attempt ended, as its node measured it. `error` is set when it never ran, in an operator's words.

    `unhealthy`: why its node ended it, where its checks were the reason. `stopped`: its node had been told to end it.
    `stood`: how often and how long it stood still for higher tiers; None: never.
    """

    exit_code: int | None = None
    signal: int | None = None
    oom_killed: bool = False
    timed_out: bool = False
    error: str | None = None
    memory_peak_bytes: int = 0
    cpu_ns: int = 0
    started_unix_s: float = 0.0
    ended_unix_s: float = 0.0
    unhealthy: str = ""
    stopped: bool = False
    stood: Stood | None = None

    @property
    def success(self) -> bool:
        """Whether the process ended by itself with code 0."""
        return self.exit_code == 0 and not (self.timed_out or self.oom_killed or self.error or self.unhealthy)


class TaskRecord(msgspec.Struct, frozen=True):
    """What the home knows of one task. A task without a record is pending and was never attempted.

    `attempt` is the newest one; `node` is set while it is asked for or held there, and kept when it ended there;
    `boot_epoch` is that node's when the attempt was first asked for: a node that restarted since must not start it.
    `tries` counts the attempts that a node took and that ended or got lost; a refused attempt is no try, nor is one
    that its home stopped to have it run elsewhere or later (`leaving` says why; `again`: whatever the job's on_lost;
    `preempted`: how often it had to give way to a higher tier).
    """

    state: State = State.PENDING
    attempt: int = 0
    node: str = ""
    admitted: bool = False
    reason: str = ""
    result: Result | None = None
    tries: int = 0
    boot_epoch: int = 0
    leaving: str = ""
    again: bool = False
    preempted: int = 0


class JobRecord(msgspec.Struct, frozen=True):
    """What the home keeps of a job beside its tasks' records.

    `held`: who keeps it from starting ("", "owner" or "operator"). `met`: positions of its dependencies that are met
    for good. `released`: ranges of indices that a corresponding task's success has freed, once that job has ended.
    """

    id: int
    owner: str
    spec: JobSpec
    submitted_unix_s: float
    cancelled: bool = False
    held: str = ""
    met: tuple[int, ...] = ()
    released: tuple[tuple[int, int], ...] = ()
    why_cancelled: str = ""
    key: str = ""


class End(msgspec.Struct, frozen=True, array_like=True):
    """So much is expected to come free at that time, on the node's own clock, by the estimates."""

    at_ms: int
    amount: Resources


class Tier(msgspec.Struct, frozen=True, array_like=True):
    """What would be free on a node if all its tasks of this tier and of those below gave way."""

    tier: int
    free: Resources


Runs = Annotated[str, msgspec.Meta(max_length=512)]


class Report(msgspec.Struct, frozen=True):
    """What a node says of itself. Newer means a higher (boot_epoch, sequence), by whatever way it came.

    Ratios are in permille of allocatable: 1500 permits committing one and a half times what is there. `ends` tells, in
    order of time, when what is committed comes free; what never ends by itself is not in it. `clock_ms` is the node's
    own clock when it said so, or says it again. `runs`: tags of what it runs, as far as there is room
    (scheduler.company). `tiers`: what could give way to jobs of a higher one, lowest first; empty while none may.
    """

    node: str
    number: int
    boot_epoch: int
    sequence: int
    capacity: Resources
    allocatable: Resources
    committed: Resources = Resources()
    used: Resources = Resources()
    cpu_ratio_permille: int = 1000
    memory_ratio_permille: int = 1000
    containers: int = 0
    accepting: bool = True
    labels: tuple[tuple[str, str], ...] = ()
    ends: tuple[End, ...] = ()
    clock_ms: int = 0
    draining: bool = False
    runs: Runs = ""
    tiers: tuple[Tier, ...] = ()

    @property
    def permitted(self) -> Resources:
        """The most that may be committed: allocatable times the permitted ratio; extras are never overcommitted."""
        return Resources(
            self.allocatable.cpu_milli * self.cpu_ratio_permille // 1000,
            self.allocatable.memory_bytes * self.memory_ratio_permille // 1000,
            self.allocatable.extra,
        )

    @property
    def free(self) -> Resources:
        """What can still be committed."""
        return self.permitted - self.committed
