"""What the API needs of the node beneath it, as protocols; the agent brings the real ones together, tests bring fakes.

What the API shows of jobs and nodes are the scheduler's views; node/api/render.py turns them into documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from node.api.auth import Gate
from node.door.catalogue import Catalogue
from node.errors import Busy
from node.host.image_build import BuildOrder
from node.host.image_room import Idle
from node.host.images import Image
from node.key_exchange import KeyTable
from node.runtime.protocol import Stream
from node.sessions import Control, Order, Output
from scheduler.amendments import AmendmentView
from scheduler.ended import EndedPage
from scheduler.explain import Explanation
from scheduler.forecast import Forecast
from scheduler.model import AllocationId, JobSpec
from scheduler.settings import AnySetting
from scheduler.sites.site import Site, SiteView
from scheduler.snapshot import NodeSnapshot
from scheduler.usage import JobUsage, UsageRow
from scheduler.views import JobSummary, JobView, NodeStatus, WaitingView


class JobService(Protocol):
    """The jobs of this home, and the cluster's nodes (node/home.py)."""

    async def submit(self, owner: str, spec: JobSpec, key: str = "") -> int:
        """Return the id once the job is durable; the same one for the same owner and key."""

    async def submit_all(self, owner: str, specs: Sequence[JobSpec], key: str = "") -> list[int]:
        """Take all jobs of a list or none; each one's key is `key` with its place."""

    async def cancel(self, job_id: int) -> None:
        """End a job's tasks."""

    async def amend(self, job_id: int, spec: JobSpec, index: int | None = None) -> AmendmentView:
        """Give a live job, or one of its tasks, the limits of this spec; return how it went."""

    async def hold(self, job_id: int, *, operator: bool) -> None:
        """Keep a job from starting anything more; NotPossible."""

    async def release(self, job_id: int, *, operator: bool) -> None:
        """Undo a hold; NotPossible."""

    async def requeue(self, job_id: int) -> None:
        """Stop what runs of a job, and line it up again; NotPossible."""

    async def drain(self, deadline_s: float | None) -> None:
        """Have this node take nothing new and send away what it has; batch tasks after the deadline, if any."""

    async def set_setting(self, name: str, value: AnySetting | None) -> None:
        """Set (None: remove) one of the cluster's settings; InvalidSpec."""

    def settings(self) -> Sequence[tuple[str, AnySetting]]:
        """Return the cluster's settings by name."""

    def usage(self) -> Sequence[UsageRow]:
        """Return what this home's users used, by day."""

    def usage_of_jobs(self) -> Sequence[JobUsage]:
        """Return what each job that this home remembers used."""

    def queue(self) -> Sequence[WaitingView]:
        """Return the line of waiting jobs, if this node leads."""

    def ended_tasks(self, owner: str | None, after: tuple[int, int], count: int) -> EndedPage:
        """Return a page of this home's ended tasks, after that (job, index)."""

    def snapshot(self, after: int, count: int) -> NodeSnapshot:
        """Return a page of what this node knows for good, from the jobs after that id on."""

    async def forecast(self, owner: str, spec: JobSpec) -> Forecast:
        """Return what would become of a job; raises what a submission would."""

    async def wait(self, job_id: int, wait_s: float) -> object:
        """Return when the job is final, or after `wait_s`."""

    async def set_accepting(self, accepting: bool) -> None:
        """Let this node take allocations, or not."""

    def job(self, job_id: int, first: int = 0, count: int | None = None) -> JobView:
        """Return a job of this home with `count` of its tasks (None: all) from the `first`-th on; UnknownJob."""

    def jobs(self, owner: str | None = None) -> Sequence[JobSummary]:
        """Return this home's jobs."""

    def explain(self, job_id: int) -> Explanation:
        """Return why a job waits."""

    def nodes(self) -> Sequence[NodeStatus]:
        """Return all nodes this one has heard of."""

    @property
    def leader(self) -> str:
        """The node that keeps the queue's order, as this one sees it."""


class Chunk(Protocol):
    """Bytes of a stream: at which offset, and how long the stream is by now."""

    @property
    def offset(self) -> int: ...
    @property
    def data(self) -> bytes: ...
    @property
    def size(self) -> int: ...


class LogService(Protocol):
    """The output of this node's containers (node/allocations.py)."""

    async def read_log(
        self, allocation: AllocationId, stream: Stream, offset: int, limit: int, wait_s: float = 0.0, /
    ) -> tuple[Chunk, bool]:
        """Return a piece, and whether the container ended and nothing follows the piece."""


class InsideService(Protocol):
    """What runs inside this node's containers besides their own commands (node/sessions.py)."""

    async def open(self, user: str, container: str, order: Order) -> str:
        """Run something inside; return the session's token. NotFound, InvalidValue, Busy, CallerError."""

    async def write(self, user: str, token: str, offset: int, data: bytes, ended: bool) -> int:
        """Pass input on; return how much was taken in all. NotFound."""

    async def read(self, user: str, token: str, stdout: int, stderr: int, wait_s: float) -> Output:
        """Return what came after these offsets. NotFound."""

    async def control(self, user: str, token: str, control: Control) -> None:
        """Resize the terminal, send a signal. NotFound, InvalidValue."""

    async def close(self, user: str, token: str) -> None:
        """End a session. NotFound."""

    async def set_frozen(self, container: str, frozen: bool) -> None:
        """Freeze a container or let it go on. NotFound, CallerError."""


class SiteService(Protocol):
    """The sites of the cluster (node/door/cluster_sites.py). UnknownSite where there is none of a key."""

    async def want(self, site: Site, wait_s: float) -> SiteView:
        """Make a site or change it, and wake it. Busy, NotNow."""

    async def wake(self, key: str, wait_s: float) -> SiteView:
        """Wake a site."""

    async def all_of(self, owner: str) -> tuple[list[SiteView], list[str]]:
        """Return a user's sites ("": all), and the nodes that did not say what they keep."""

    async def show(self, key: str) -> SiteView:
        """Return a site."""

    async def sleep(self, key: str) -> SiteView:
        """End a site's container. NotNow."""

    async def drop(self, key: str) -> SiteView:
        """Remove a site; return what it was."""

    async def busy(self, key: str, for_s: float) -> SiteView:
        """Count a site as used for so long."""


class ImageService(Protocol):
    """The images of this node."""

    def list(self) -> Sequence[Image]:
        """Return the images this node has."""

    async def put(self, name: str, tag: str, tar: AsyncIterator[bytes]) -> Image:
        """Take an image in; InvalidValue if it is no root file system."""

    async def remove(self, name: str, tag: str) -> None:
        """Remove an image; NotFound, or Busy while containers use it."""

    async def export(self, name: str, tag: str) -> AsyncIterator[bytes]:
        """Return the image as a tar stream; NotFound."""

    def build(self, name: str, tag: str, order: BuildOrder) -> AsyncGenerator[str | Image, None]:
        """Yield lines of progress, then the image; ImageError."""

    def outdated_names(self, keep_last: int) -> Sequence[str]:
        """Return of every NAME all but its newest tags."""

    async def prune(self, unused_for_s: float, dry_run: bool) -> Sequence[Idle]:
        """Remove what nobody uses from this node; return it."""


class KeyService(Protocol):
    """The cluster's keys (node/key_exchange.py)."""

    async def table(self) -> KeyTable:
        """Return what the live nodes hold."""

    async def add(self, key: bytes | None) -> tuple[str, KeyTable]:
        """Add a key on every node (None: a new one); its id. InvalidValue."""

    async def use(self, key_id: str) -> KeyTable:
        """Have every node seal under a key; InvalidValue, KeysNotSettled."""

    async def remove(self, key_id: str) -> KeyTable:
        """Have every node forget a key; InvalidValue."""


class PeerService(Protocol):
    """Calls to other nodes (node/peers.py)."""

    async def call(self, node: str, method: str, payload: bytes, timeout_s: float) -> bytes:
        """Have a node carry out a method."""

    def address_of(self, name: str) -> str | None:
        """Return the address of a node's API, if known."""

    def name_of(self, number: int) -> str | None:
        """Return the name of a node by its number."""

    def register(self, method: str, handler: Callable[[str, bytes], Awaitable[bytes]]) -> None:
        """Carry out a method for other nodes."""

    def body_bytes_max(self, ticket: str | None) -> int:
        """Return how large a call's body may be."""

    async def handle(self, body: bytes) -> tuple[int, bytes]:
        """Carry out a sealed call."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What one caller may take of the node; the configuration's [api]."""

    body_bytes_max: int = 8 << 20
    image_bytes_max: int = 16 << 30
    stall_timeout_s: float = 30.0


class LongPolls:
    """Counts the requests that wait for something to happen; Busy when there are too many, in all or of one user."""

    def __init__(self, count_max: int = 2_000, per_user_max: int = 200) -> None:
        self._count_max = count_max
        self._per_user_max = per_user_max
        self._by_user: Counter[str] = Counter()

    @contextmanager
    def by(self, user: str) -> Iterator[None]:
        """Count a long poll of this user for as long as it lasts."""
        if self._by_user.total() >= self._count_max:
            raise Busy(f"this node already answers {self._count_max:,} long polls")
        if self._by_user[user] >= self._per_user_max:
            raise Busy(f"this node already answers {self._per_user_max:,} long polls of {user}")
        self._by_user[user] += 1
        try:
            yield
        finally:
            self._by_user[user] -= 1
            if not self._by_user[user]:
                del self._by_user[user]


@dataclass(frozen=True, kw_only=True)
class Services:
    """All that the API is a face of."""

    node: str
    number: Callable[[], int | None]
    cluster: str
    version: str
    gate: Gate
    jobs: JobService
    logs: LogService
    images: ImageService
    peers: PeerService
    members: Callable[[], Sequence[Mapping[str, object]]]
    keys: KeyService | None = None
    inside: InsideService | None = None
    sites: SiteService | None = None
    applications: Catalogue = field(default_factory=Catalogue)
    bounds: Bounds = Bounds()
    address: str = ""
    long_polls: LongPolls = field(default_factory=LongPolls)
