"""What goes into one node's scheduling machine, and what comes out.

The whole of a node's deciding (home, queue leader, executing node) is one machine with one mutating entry,
`Scheduler.handle(now, event) -> Outcome`. `now` is the node's own monotonic clock in seconds. The caller first makes
`changes` durable, all at once, and only then carries out `actions`: so nothing is promised or asked for that a crash
could forget. Every send may be lost, doubled or late; the machine repeats what matters.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduler.condition import Condition
from scheduler.model import NOWHERE, Allocation, AllocationId, JobSpec, Reach, Resources, Result
from scheduler.settings import AnySetting
from scheduler.sites.claims import Keeping
from scheduler.sites.site import Site

# --- events


@dataclass(frozen=True, slots=True)
class Submit:
    """A client's job; `Outcome.answer` is its id. Raises InvalidSpec and changes nothing when it can't be taken.

    `key`: the client's own name for this submission; the owner's second one of the same key gets the first one's id.
    """

    owner: str
    spec: JobSpec
    unix_s: float
    key: str = ""


@dataclass(frozen=True, slots=True)
class SubmitAll:
    """A client's list of jobs: all are taken, or none. `Outcome.answer` has their ids, in order.

    An InvalidSpec names the job, too: its field begins with the place in the list, as in `[3].cpu`.
    """

    jobs: tuple[Submit, ...]
    unix_s: float


@dataclass(frozen=True, slots=True)
class Cancel:
    """End all tasks of a job of this home that have not ended."""

    job_id: int
    unix_s: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep a job of this home from starting anything more; what runs goes on. `operator`: the owner can't undo it."""

    job_id: int
    operator: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """Undo a hold; NotPossible where an operator's is undone by somebody else."""

    job_id: int
    operator: bool = False


@dataclass(frozen=True, slots=True)
class Requeue:
    """Stop what runs of a job of this home and line it up again; NotPossible when nothing runs."""

    job_id: int


@dataclass(frozen=True, slots=True)
class Drain:
    """An operator: take nothing new, send services away now and batch tasks after `deadline_s` (None: let them end)."""

    deadline_s: float | None
    unix_s: float


@dataclass(frozen=True, slots=True)
class SetSetting:
    """An operator: set (or, without a value, remove) one of the cluster's settings, `KIND/NAME`; InvalidSpec."""

    name: str
    value: AnySetting | None
    unix_s: float


@dataclass(frozen=True, slots=True)
class MemberUp:
    """Gossip: this node is alive (again)."""

    node: str
    number: int
    boot_epoch: int


@dataclass(frozen=True, slots=True)
class MemberDown:
    """Gossip: the node's agent is gone, its host answers; containers may run, nothing is rescheduled."""

    node: str


@dataclass(frozen=True, slots=True)
class MemberFailed:
    """Gossip: the node's host is unreachable; after a grace period its tasks start elsewhere."""

    node: str


@dataclass(frozen=True, slots=True)
class MemberLeft:
    """Gossip: the node said goodbye; its containers may run on."""

    node: str


@dataclass(frozen=True, slots=True)
class MemberForgotten:
    """Gossip: the node was away for so long that nobody remembers it."""

    node: str


@dataclass(frozen=True, slots=True)
class Heard:
    """Gossip: something another node published (`Publish` of the same key)."""

    node: str
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Received:
    """A message of another node's (or our own) scheduling machine, and `more` that came with it, in order.

    BadMessage if any of them can't be read.
    """

    sender: str
    message: bytes
    more: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """This node's own capacity and use, sampled by the shell."""

    capacity: Resources
    allocatable: Resources
    used: Resources
    labels: tuple[tuple[str, str], ...] = ()
    room: bool = True
    """Whether its disk has room for another container."""


@dataclass(frozen=True, slots=True)
class ContainerStarted:
    """The runtime: the container's process runs."""

    id: AllocationId
    unix_s: float
    reach: Reach = NOWHERE


@dataclass(frozen=True, slots=True)
class ContainerCondition:
    """The shell: what a container that has not ended is doing. An unhealthy one is ended, where its job says so."""

    id: AllocationId
    condition: Condition


@dataclass(frozen=True, slots=True)
class ContainerEnded:
    """The runtime: the container ended, or never started (`result.error`). Also what recovery found."""

    id: AllocationId
    result: Result


@dataclass(frozen=True, slots=True)
class AmendJob:
    """Give a job's running tasks (or one of them) the limits of this spec, and with all of them the job.

    `Outcome.answer` is the revision; JobChanged follows when `Scheduler.amendment` says that it is done. Raises
    InvalidSpec, UnknownJob or NotPossible with nothing changed.
    """

    job_id: int
    spec: JobSpec
    index: int | None = None


@dataclass(frozen=True, slots=True)
class ContainerChanged:
    """The runtime: a container's limits are those of this revision of its spec, or, with `why`, the former ones."""

    id: AllocationId
    revision: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class ContainerFrozen:
    """The runtime: nothing of what FreezeContainer named runs any more; or, with `why`, it goes on as before."""

    id: AllocationId
    why: str = ""


@dataclass(frozen=True, slots=True)
class ContainerThawed:
    """The runtime: what ThawContainer named goes on."""

    id: AllocationId


@dataclass(frozen=True, slots=True)
class HomeUntil:
    """The shell: before this moment nobody else can be this home; told again and again as it moves on."""

    until_s: float


@dataclass(frozen=True, slots=True)
class Accepting:
    """An operator: whether this node takes new allocations (cordon)."""

    accepting: bool


@dataclass(frozen=True, slots=True)
class SiteWanted:
    """A door: somebody asks for this site (`wake`), or it is to be known. `Outcome.answer` is its SiteView.

    Raises NotPossible (somebody else's), Overloaded, InvalidSpec with nothing changed.
    """

    site: Site
    wake: bool = True


@dataclass(frozen=True, slots=True)
class SiteUsed:
    """A door: so many connections to a site are open, the last one was used `age_s` ago, it is busy for `busy_s`."""

    key: str
    door: str
    open: int
    age_s: float = 0.0
    busy_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SiteReady:
    """The shell: the container that ProbeSite named answers."""

    key: str
    id: AllocationId


@dataclass(frozen=True, slots=True)
class SiteUnready:
    """The shell: the container that ProbeSite named did not answer in time; or a door (no `id`): it does no more."""

    key: str
    why: str
    id: AllocationId | None = None


@dataclass(frozen=True, slots=True)
class SiteSlept:
    """Its owner: end the site's container now; UnknownSite, NotPossible for one that is always on."""

    key: str


@dataclass(frozen=True, slots=True)
class SitesElsewhere:
    """Another node tells what it keeps; of two keepers of a site one gives up. `Outcome.answer`: what both keep."""

    node: str
    kept: tuple[Keeping, ...]


@dataclass(frozen=True, slots=True)
class SiteDropped:
    """Forget a site and end its container; UnknownSite. `moved`: another node keeps it from now on."""

    key: str
    moved: bool = False


@dataclass(frozen=True, slots=True)
class TaskFrozen:
    """The shell: FreezeTask was carried out, or can't be."""

    key: str
    job: int
    worked: bool


@dataclass(frozen=True, slots=True)
class TaskThawed:
    """The shell: ThawTask was carried out."""

    key: str
    job: int


@dataclass(frozen=True, slots=True)
class Timer:
    """The time `Scheduler.next_timer()` named has come (or any later time)."""


SiteEvent = (
    SiteWanted | SiteUsed | SiteReady | SiteUnready | SiteSlept | SitesElsewhere | SiteDropped | TaskFrozen | TaskThawed
)

Event = (
    Submit
    | SubmitAll
    | Cancel
    | Hold
    | Release
    | Requeue
    | Drain
    | SetSetting
    | MemberUp
    | MemberDown
    | MemberFailed
    | MemberLeft
    | MemberForgotten
    | Heard
    | Received
    | Measured
    | ContainerStarted
    | ContainerCondition
    | ContainerEnded
    | AmendJob
    | ContainerChanged
    | ContainerFrozen
    | ContainerThawed
    | Accepting
    | HomeUntil
    | Timer
    | SiteEvent
)

# --- changes of the ledger


@dataclass(frozen=True, slots=True)
class Put:
    """Store a row. Keys are text; the machine owns the encoding of the value."""

    table: str
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a row, if it is there."""

    table: str
    key: str


Change = Put | Delete

# --- actions


@dataclass(frozen=True, slots=True)
class Send:
    """Give a message to a node's scheduling machine (`Received` there); `to` may be this node itself."""

    to: str
    message: bytes


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Set up and start; answer with ContainerStarted, then ContainerEnded. Idempotent by id.

    With `lease_until_s`, on this node's monotonic clock, only before then, and stopped then unless renewed.
    """

    allocation: Allocation
    lease_until_s: float | None = None


@dataclass(frozen=True, slots=True)
class RenewLease:
    """Let the container run until this moment of this node's monotonic clock."""

    id: AllocationId
    until_s: float


@dataclass(frozen=True, slots=True)
class AmendContainer:
    """Give a running container its changed allocation's limits; answer with ContainerChanged."""

    allocation: Allocation
    revision: int


@dataclass(frozen=True, slots=True)
class FreezeContainer:
    """Have a container stand still for a job of a higher tier; answer with ContainerFrozen once the kernel says so.

    `again`: a former agent may have done it, so that one which stands does so for that job.
    """

    id: AllocationId
    job: int
    again: bool = False


@dataclass(frozen=True, slots=True)
class ThawContainer:
    """Let it go on, however often that has to be tried; answer with ContainerThawed."""

    id: AllocationId


@dataclass(frozen=True, slots=True)
class StopContainer:
    """End the container (signal, grace, kill); answer with ContainerEnded, also when there is none."""

    id: AllocationId
    grace_s: float
    why: str


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """Remove what is left of an ended container; its kept output stays for as long as the shell's bound allows."""

    id: AllocationId


@dataclass(frozen=True, slots=True)
class Publish:
    """Gossip this under the node's name (`Heard` elsewhere). `load`: only how full the node is has changed."""

    key: str
    value: bytes
    load: bool = False


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A job of this home changed: wake those who wait for it."""

    job_id: int


@dataclass(frozen=True, slots=True)
class ProbeSite:
    """Try until a site's container answers there, or `ready_s` is over; tell by SiteReady or SiteUnready."""

    key: str
    id: AllocationId
    address: str
    port: int
    path: str
    ready_s: float


@dataclass(frozen=True, slots=True)
class FreezeTask:
    """Freeze the container of a site's task on that node; answer with TaskFrozen."""

    key: str
    id: AllocationId
    node: str


@dataclass(frozen=True, slots=True)
class ThawTask:
    """Let it go on; answer with TaskThawed, also when it was not frozen."""

    key: str
    id: AllocationId
    node: str


@dataclass(frozen=True, slots=True)
class SiteChanged:
    """A site kept here changed: wake those who wait for it, tell doors that know it.

    `everywhere`: it is new, gone or has other hosts, which doors that never heard of it must know, too.
    """

    key: str
    everywhere: bool = False


@dataclass(frozen=True, slots=True)
class SiteMoved:
    """A sleeping site should be kept by another node: tell it (SiteWanted without `wake`), then SiteDropped here."""

    site: Site
    keeper: str


Action = (
    Send
    | StartContainer
    | RenewLease
    | AmendContainer
    | FreezeContainer
    | ThawContainer
    | StopContainer
    | RemoveContainer
    | Publish
    | JobChanged
    | ProbeSite
    | FreezeTask
    | ThawTask
    | SiteChanged
    | SiteMoved
)


@dataclass(slots=True)
class Outcome:
    """First make `changes` durable, then carry out `actions`, in order. `answer`: what the event's sender is told."""

    changes: list[Change] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    answer: object = None
