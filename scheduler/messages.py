"""What nodes' scheduling machines say to each other: tagged items, many in one message, one codec.

Every message is a batch of items in order; a report that belongs to an answer goes before it in the same batch. Bounded
at decode: message size here, list lengths in the types. The sender's name comes from the sealed transport, never from
the message, so nobody can speak for another node. Items are idempotent; each may be lost, doubled or late.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf
from typing import Annotated

import msgspec

from scheduler.condition import Condition
from scheduler.errors import BadMessage
from scheduler.model import NOWHERE, AllocationId, Constraint, JobSpec, Reach, Report, Resources, Result
from scheduler.settings import Entry

BATCH_MAX = 1000
ITEMS_MAX = 4096
Ids = Annotated[tuple[AllocationId, ...], msgspec.Meta(max_length=BATCH_MAX)]
Tasks = Annotated[tuple[tuple[int, int], ...], msgspec.Meta(max_length=BATCH_MAX)]
Text = Annotated[str, msgspec.Meta(max_length=1000)]
Draws = Annotated[tuple[tuple[str, Resources], ...], msgspec.Meta(max_length=32)]
"""The quotas a job draws on, each with the amount of one task (or of a whole gang)."""
Nodes = Annotated[tuple[str, ...], msgspec.Meta(max_length=BATCH_MAX)]
RankKey = Annotated[tuple[float, ...], msgspec.Meta(max_length=16)]
"""A rank on its way: numbers that sort as the leader sorts; () is worse than any."""


class Item(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The base of everything said."""


class Admit(Item, frozen=True, tag="admit"):
    """Home to node: take these (index, attempt) of a job. `epoch` 0: by the home's own view, no leader's order.

    `boot_epoch` is the node's when this attempt was first asked for: a node that restarted since and does not hold it
    refuses, for it may have forgotten that it refused, ran or ended this very attempt. `reserve_s`: keep room
    for a member of a gang for so long, start nothing; the same without it then starts. `gang_nodes` is Allocation's.
    """

    job: int
    owner: str
    spec: JobSpec
    tasks: Tasks
    boot_epoch: int
    epoch: int = 0
    go: int = 0
    rank: RankKey = ()
    reserve_s: float = 0.0
    gang_nodes: Nodes = ()


class Reserved(Item, frozen=True, tag="reserved"):
    """Node to home: room for these members of a gang is kept for a moment."""

    job: int
    tasks: Tasks


class Admitted(Item, frozen=True, tag="admitted"):
    """Node to home: taken, durable, being started."""

    job: int
    tasks: Tasks


class Refused(Item, frozen=True, tag="refused"):
    """Node to home: not taken, and why: a dimension with amounts, or a cause without amounts."""

    job: int
    tasks: Tasks
    cause: Text
    need: int = 0
    free: int = 0


class Started(Item, frozen=True, tag="started"):
    """Node to home: the container runs, and is reached there."""

    id: AllocationId
    reach: Reach = NOWHERE


class ConditionIs(Item, frozen=True, tag="condition"):
    """Node to home: what it is doing just now; said when it changes, and with all that I hold."""

    id: AllocationId
    condition: Condition


class Ended(Item, frozen=True, tag="ended"):
    """Node to home: how it ended; repeated until taken."""

    id: AllocationId
    result: Result


class EndedTaken(Item, frozen=True, tag="taken"):
    """Home to node: these ends are in the ledger (or no longer matter); forget them."""

    ids: Ids


class Stop(Item, frozen=True, tag="stop"):
    """Home to node: end this attempt; answered by Ended, or by Gone."""

    id: AllocationId
    why: Text


class Census(Item, frozen=True, tag="census"):
    """Home to node: I believe that you hold these."""

    ids: Ids


class Gone(Item, frozen=True, tag="gone"):
    """Node to home: I don't hold these, and never will."""

    ids: Ids


class Holding(Item, frozen=True, tag="holding"):
    """Node to home: these of yours I hold and have not ended; `running` tells which run already.

    `conditions`: left out when there is nothing to say of any.
    """

    ids: Ids
    running: Annotated[tuple[bool, ...], msgspec.Meta(max_length=BATCH_MAX)]
    reach: Annotated[tuple[Reach, ...], msgspec.Meta(max_length=BATCH_MAX)] = ()
    conditions: Annotated[tuple[Condition, ...], msgspec.Meta(max_length=BATCH_MAX)] = ()


class Fresh(Item, frozen=True, tag="fresh"):
    """Node to home and leader: my newest report, and the highest leader's epoch I have seen.

    `push`: the leader is to say that it knows.
    """

    report: Report
    epoch: int = 0
    push: bool = False


class Noted(Item, frozen=True, tag="noted"):
    """Leader to node: I know your report of this sequence, and what you said with it."""

    boot_epoch: int
    sequence: int


class Settled(Item, frozen=True, tag="settled"):
    """Node to leader: I answered for this many tasks of this order; my report covers what I took."""

    epoch: int
    go: int
    count: int


class Parting(Item, frozen=True, tag="parting"):
    """Node to leader: a member of a gang of `members` ended here, and others elsewhere at this moment.

    Said with the report that shows the room: who is tried before all is known would slip past the first in line.
    """

    job: int
    index: int
    members: int


class Wait(Item, frozen=True, tag="wait"):
    """Home to leader: `wanted` tasks of this job wait for a place (0: none any more).

    `go_seen` is the leader's newest order for this job that `wanted` reflects. `since_s` and `clock_s` are on the
    home's own monotonic clock, so only ages travel. Newer means a higher (boot_epoch, version). `estimate_s`: how long
    a task is taken to run. A gang has `nodes` above 0: it waits as one (`wanted` is 1) for `per_node` tasks on each of
    so many nodes, and `attempt` will be the number of its next attempt. `images`: what it needs of them, as nodes tell
    what they have (`scheduler.images`). `draws`: the quotas of each of what is wanted; `owner` and `account`: whose
    share it uses.
    """

    job: int
    boot_epoch: int
    version: int
    wanted: int
    epoch: int
    go_seen: int
    priority: int
    since_s: float
    clock_s: float
    request: Resources
    constraints: tuple[Constraint, ...] = ()
    estimate_s: float = inf
    nodes: int = 0
    per_node: int = 1
    attempt: int = 0
    images: tuple[bytes, ...] = ()
    draws: Draws = ()
    owner: Text = ""
    account: Text = ""
    tier: int = 0


class WaitHeard(Item, frozen=True, tag="heard"):
    """Leader to home: I know of this job's version; its position among `waiting` jobs (0: next, -1: not in line).

    `quota`: the one that has no room for it. `making_room`: on how many nodes lower tiers are giving way to it.
    `start_in_s`: when its reservation begins, below 0 without one.
    """

    job: int
    boot_epoch: int
    version: int
    position: int
    waiting: int
    quota: Text = ""
    making_room: int = 0
    start_in_s: float = -1.0


class Tell(Item, frozen=True, tag="tell"):
    """Leader to home: I lead with this epoch; tell me all that waits."""

    epoch: int


class Told(Item, frozen=True, tag="told"):
    """Home to leader: you have heard all of it."""

    epoch: int


class Go(Item, frozen=True, tag="go"):
    """Leader to home: place `count` waiting tasks of this job on this node. `go` only grows within an epoch.

    `why`: what spoke for that node, for who asks.
    """

    epoch: int
    go: int
    job: int
    node: str
    count: int
    rank: RankKey = ()
    why: Text = ""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Where to."""
        return (self.node,)


class Muster(Item, frozen=True, tag="muster"):
    """Leader to home: place this gang on these nodes, all of it or nothing. Numbered like `Go`."""

    epoch: int
    go: int
    job: int
    nodes: Nodes
    rank: RankKey = ()
    why: Text = ""

    @property
    def count(self) -> int:
        """A gang waits as one."""
        return 1


class HoldRoom(Item, frozen=True, tag="hold"):
    """Leader to node: keep this much for a waiting job from `shadow_in_s` from now on; nothing: no longer.

    One for each node and job; a newer (epoch, sequence) takes the place of an older one. `owner` is the job's home,
    `attempt` the attempt it is for (0: any). Whoever is ranked worse, is not the owner, and may run past the shadow
    time leaves the amount free.
    """

    epoch: int
    sequence: int
    owner: str
    job: int
    attempt: int
    rank: RankKey
    shadow_in_s: float
    amount: Resources


class HoldNoted(Item, frozen=True, tag="hold noted"):
    """Node to leader: I know your word of this sequence on a hold."""

    epoch: int
    sequence: int
    job: int


class Declined(Item, frozen=True, tag="declined"):
    """Home to leader: so many tasks of that order had no use for it."""

    epoch: int
    go: int
    count: int


class Follow(Item, frozen=True, tag="follow"):
    """Home to home: tell me how this job of that owner stands, and when it changes; repeated until it can't any more.

    `task_by_task`: with the indices above `past` that have succeeded.
    """

    job: int
    owner: Text
    task_by_task: bool = False
    past: int = -1


class News(Item, frozen=True, tag="news"):
    """Home to home: facts about a job of mine; one not `known` is none, or another owner's.

    `begun_ago_s`: for how long all its tasks have begun, -1 if they have not. `ranges`: (first, last) of the indices
    above `past` that have succeeded, `more` of which follow when asked for.
    """

    job: int
    known: bool
    begun_ago_s: float = -1.0
    ended: bool = False
    succeeded: bool = False
    ranges: Tasks = ()
    past: int = -1
    more: bool = False


class RivalAsk(Item, frozen=True, tag="rival?"):
    """Home to home: have you an unfinished job of this owner and name that this one has to wait for?"""

    job: int
    owner: Text
    name: Text
    submitted_unix_s: float


class RivalIs(Item, frozen=True, tag="rival"):
    """Home to home: this one; 0 for none."""

    job: int
    rival: int


class LeaseAsk(Item, frozen=True, tag="lease?"):
    """Node to home: may these single attempts run on? Asked at `clock_s` on my monotonic clock, in this boot."""

    ids: Ids
    boot_epoch: int
    clock_s: float


class Lease(Item, frozen=True, tag="lease"):
    """Home to node: they may, for `lease_s` from the moment you asked."""

    ids: Ids
    boot_epoch: int
    clock_s: float
    lease_s: float


class Evict(Item, frozen=True, tag="evict"):
    """Node to home: I am being drained, take these elsewhere, `within_s`; repeated until told to stop them."""

    ids: Ids
    within_s: float = inf


class Preempt(Item, frozen=True, tag="preempt"):
    """Leader to node: have tasks below this tier leave until so much is free for a job that you hold room for.

    Numbered like `Go`; repeated until answered.
    """

    epoch: int
    go: int
    job: int
    tier: int
    amount: Resources


class Preempting(Item, frozen=True, tag="preempting"):
    """Node to leader: they were asked to, with so long a grace; or there is not `enough`, ask after `within_s`."""

    epoch: int
    go: int
    job: int
    enough: bool
    within_s: float


class GiveWay(Item, frozen=True, tag="give way"):
    """Node to home: have these leave for a job of this tier; repeated until told to stop or keep them."""

    job: int
    tier: int
    ids: Ids


class Keeps(Item, frozen=True, tag="keeps"):
    """Home to node: these don't give way now, or (`ever`) never again."""

    ids: Ids
    ever: bool = False


class Amend(Item, frozen=True, tag="amend"):
    """Home to node: give these running tasks the limits of this spec; `revision` only grows."""

    job: int
    revision: int
    spec: JobSpec
    tasks: Tasks


class Amended(Item, frozen=True, tag="amended"):
    """Node to home: done, or (with a cause) refused, and then the former limits hold."""

    job: int
    revision: int
    tasks: Tasks
    cause: Text = ""
    need: int = 0
    free: int = 0


class SettingsAre(Item, frozen=True, tag="settings"):
    """Node to node: entries of the cluster's settings as I have them, and the digest of all; `answer` with yours."""

    entries: Annotated[tuple[Entry, ...], msgspec.Meta(max_length=BATCH_MAX)]
    digest: bytes
    answer: bool


class Tally(Item, frozen=True, tag="tally"):
    """Home to leader: what my live attempts draw on a quota. Newer means a higher (boot_epoch, version)."""

    quota: Text
    boot_epoch: int
    version: int
    amount: Resources


class Spent(Item, frozen=True, tag="spent"):
    """Home to leader: (account, user, core seconds) that my jobs used of late, decayed; the largest, if too many."""

    charges: Annotated[tuple[tuple[str, str, float], ...], msgspec.Meta(max_length=BATCH_MAX)]


class TallyHeard(Item, frozen=True, tag="tally!"):
    """Leader to home: I know."""

    quota: Text
    version: int


AnyItem = (
    Admit
    | Admitted
    | Reserved
    | Refused
    | Started
    | ConditionIs
    | Ended
    | EndedTaken
    | Stop
    | Census
    | Gone
    | Holding
    | Fresh
    | Noted
    | Settled
    | Parting
    | Wait
    | WaitHeard
    | Tell
    | Told
    | Go
    | Muster
    | HoldRoom
    | HoldNoted
    | Declined
    | Amend
    | Amended
    | Follow
    | News
    | SettingsAre
    | Tally
    | TallyHeard
    | Spent
    | RivalAsk
    | RivalIs
    | LeaseAsk
    | Lease
    | Evict
    | Preempt
    | Preempting
    | GiveWay
    | Keeps
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Annotated[tuple[AnyItem, ...], msgspec.Meta(max_length=ITEMS_MAX)])


def encode(items: Iterable[AnyItem], size_max: int) -> Iterator[bytes]:
    """Yield messages that hold all items in order, none above `size_max` bytes unless one item alone is."""
    batch: list[msgspec.Raw] = []
    size = 8
    for item in items:
        raw = _encoder.encode(item)
        if batch and (size + len(raw) > size_max or len(batch) == ITEMS_MAX):
            yield _encoder.encode(batch)
            batch, size = [], 8
        batch.append(msgspec.Raw(raw))
        size += len(raw)
    if batch:
        yield _encoder.encode(batch)


def decode(message: bytes, size_max: int) -> tuple[AnyItem, ...]:
    """Return a message's items; raises BadMessage for anything else."""
    if len(message) > size_max:
        raise BadMessage(f"a message of {len(message)} bytes; at most {size_max} are read")
    try:
        items: tuple[AnyItem, ...] = _decoder.decode(message)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BadMessage(f"not a message of this protocol: {error}") from error
    return items


class Leads(msgspec.Struct, frozen=True, array_like=True):
    """What the queue leader gossips of itself (key "leader")."""

    epoch: int
    waiting: int


_leads_decoder = msgspec.msgpack.Decoder(Leads)
_report_decoder = msgspec.msgpack.Decoder(Report)
REPORT_KEY = "report"
REPORT_BYTES_MAX = 1_000  # with its name it has to fit into what gossip takes as one entry


def encode_gossip(value: Leads | Report) -> bytes:
    """Encode what a node publishes."""
    return _encoder.encode(value)


def decode_leads(value: bytes) -> Leads:
    """Decode a leader's gossip; raises BadMessage."""
    try:
        return _leads_decoder.decode(value)
    except msgspec.MsgspecError as error:
        raise BadMessage(f"no leader's gossip: {error}") from error


def decode_report(value: bytes) -> Report:
    """Decode a report; raises BadMessage."""
    if len(value) > REPORT_BYTES_MAX:
        raise BadMessage(f"a report of {len(value)} bytes; at most {REPORT_BYTES_MAX} are read")
    try:
        return _report_decoder.decode(value)
    except msgspec.MsgspecError as error:
        raise BadMessage(f"no report: {error}") from error
