"""A cluster of fake nodes: real API, real peers and seals, fake jobs and containers, no sockets."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field

import httpx
import pytest
import trio
from starlette.types import ASGIApp

from cluster import KeyRing
from node.api import Bounds, Gate, Services, build
from node.errors import AgentUnreachable, InvalidValue, NotFound, UnknownImage
from node.host.errors import ImageError
from node.host.image_build import BuildOrder
from node.host.image_room import Idle
from node.host.images import Image
from node.peers import Peers, body_sealer
from node.tokens import Tokens
from scheduler.amendments import AmendmentView
from scheduler.ended import EndedPage, EndedTask
from scheduler.errors import NotPossible, UnknownJob
from scheduler.explain import Explanation, Short
from scheduler.forecast import Forecast
from scheduler.index import Membership
from scheduler.model import AllocationId, JobRecord, JobSpec, Report, Resources, State
from scheduler.settings import AnySetting, check
from scheduler.snapshot import JobCopy, NodeSnapshot
from scheduler.usage import JobUsage, UsageRow, Used
from scheduler.validate import validate
from scheduler.views import JobSummary, JobView, NodeStatus, TaskView, WaitingView

KEY = bytes(range(32))
NOW = 1_700_000_000.0


class FakeJobs:
    """Jobs in a dictionary; a test moves their tasks by hand."""

    def __init__(self, name: str, number: int, others: list[tuple[str, int]]) -> None:
        self.name, self.number, self.others = name, number, others
        self.specs: dict[int, tuple[str, JobSpec]] = {}
        self.tasks: dict[int, list[TaskView]] = {}
        self.changed = trio.Event()
        self.accepting = True
        self.cancelled: list[int] = []
        self.amended: list[tuple[int, JobSpec, int | None]] = []
        self.amend_refusals: tuple[str, ...] = ()
        self.set_things: dict[str, AnySetting] = {}
        self.used: list[UsageRow] = []
        self.line: list[WaitingView] = []
        self.keys: dict[tuple[str, str], int] = {}
        self.steered: list[tuple[str, int, bool]] = []
        self.drained: list[float | None] = []
        self.fail_with: Exception | None = None

    async def submit(self, owner: str, spec: JobSpec, key: str = "") -> int:
        await trio.lowlevel.checkpoint()
        if key and (owner, key) in self.keys:
            return self.keys[owner, key]
        if self.fail_with is not None:
            raise self.fail_with
        validate(spec)
        if spec.image == "nothing":
            raise UnknownImage(spec.image)
        job_id = (len(self.specs) + 1) * 1000 + self.number
        self.specs[job_id] = owner, spec
        if key:
            self.keys[owner, key] = job_id
        self.tasks[job_id] = [TaskView(index, State.PENDING, "", 0, None, "new") for index in spec.indices()]
        return job_id

    async def submit_all(self, owner: str, specs: Sequence[JobSpec], key: str = "") -> list[int]:
        for place, spec in enumerate(specs):
            if spec.image == "nothing":
                raise InvalidValue(f"[{place}].image", spec.image, UnknownImage(spec.image).expected)
        return [await self.submit(owner, spec, f"{key} [{place}]" if key else "") for place, spec in enumerate(specs)]

    async def cancel(self, job_id: int) -> None:
        await trio.lowlevel.checkpoint()
        self.job(job_id)
        self.cancelled.append(job_id)
        self.move(job_id, state=State.CANCELLED)

    async def amend(self, job_id: int, spec: JobSpec, index: int | None = None) -> AmendmentView:
        await trio.lowlevel.checkpoint()
        validate(spec)
        self.amended.append((job_id, spec, index))
        if not self.amend_refusals:
            self.specs[job_id] = self.specs[job_id][0], spec
        return AmendmentView(1, True, 1, self.amend_refusals)

    async def wait(self, job_id: int, wait_s: float) -> JobView:
        with trio.move_on_after(wait_s):
            while not self.job(job_id).state.final:
                await self.changed.wait()
        return self.job(job_id)

    async def hold(self, job_id: int, *, operator: bool) -> None:
        await trio.lowlevel.checkpoint()
        self.steered.append(("hold", job_id, operator))

    async def release(self, job_id: int, *, operator: bool) -> None:
        await trio.lowlevel.checkpoint()
        if not operator:
            raise NotPossible(f"job {job_id} is held by an operator")
        self.steered.append(("release", job_id, operator))

    async def requeue(self, job_id: int) -> None:
        await trio.lowlevel.checkpoint()
        self.steered.append(("requeue", job_id, False))

    async def drain(self, deadline_s: float | None) -> None:
        await trio.lowlevel.checkpoint()
        self.drained.append(deadline_s)

    async def set_setting(self, name: str, value: AnySetting | None) -> None:
        await trio.lowlevel.checkpoint()
        check(name, value)
        if value is None:
            del self.set_things[name]
        else:
            self.set_things[name] = value

    def settings(self) -> Sequence[tuple[str, AnySetting]]:
        return sorted(self.set_things.items())

    def usage(self) -> Sequence[UsageRow]:
        return self.used

    def ended_tasks(self, owner: str | None, after: tuple[int, int], count: int) -> EndedPage:
        tasks = [
            EndedTask(
                job=job, index=0, name=spec.name, owner=who, account="", kind="batch", state="succeeded",
                node=self.name, attempt=1, exit_code=0, submitted_unix_s=NOW, started_unix_s=NOW + 1,
                ended_unix_s=NOW + 3, time_limit_s=None, cpu_milli=1000, memory_bytes=1, gang=0, cpu_ns=0,
                memory_peak_bytes=0,
            )
            for job, (who, spec) in sorted(self.specs.items()) if owner in (None, who) and (job, 0) > after
        ]  # fmt: skip
        page = tuple(tasks[:count])
        return EndedPage(self.name, page, (page[-1].job, 0) if len(tasks) > count else None)

    def snapshot(self, after: int, count: int) -> NodeSnapshot:
        ids = sorted(job for job in self.specs if job > after)
        records = [JobRecord(job, *self.specs[job], NOW) for job in ids[:count]]
        return NodeSnapshot(self.name, NOW, tuple(map(JobCopy, records)), ids[count - 1] if len(ids) > count else None)

    def usage_of_jobs(self) -> Sequence[JobUsage]:
        return [JobUsage(job, "x", "", owner, Used(attempts=1)) for job, (owner, _) in self.specs.items()]

    def queue(self) -> Sequence[WaitingView]:
        return self.line

    async def forecast(self, owner: str, spec: JobSpec) -> Forecast:
        await trio.lowlevel.checkpoint()
        validate(spec)
        why = Explanation(0, State.PENDING, "it would run", 1, 1, 1)
        return Forecast({self.name: 1}, 0.0, 0, why)

    async def set_accepting(self, accepting: bool) -> None:
        await trio.lowlevel.checkpoint()
        self.accepting = accepting

    def move(self, job_id: int, state: State, node: str = "", attempt: int = 0, exit_code: int | None = None) -> None:
        self.tasks[job_id] = [TaskView(task.index, state, node, attempt, exit_code, "") for task in self.tasks[job_id]]
        self.changed.set()
        self.changed = trio.Event()

    def job(self, job_id: int, first: int = 0, count: int | None = None) -> JobView:
        if job_id not in self.specs:
            raise UnknownJob(f"no job {job_id} in this fake")
        owner, spec = self.specs[job_id]
        tasks = self.tasks[job_id]
        counts = Counter(task.state for task in tasks)
        shown = tuple(tasks[first : None if count is None else first + count])
        return JobView(job_id, spec.name, self.name, tasks[0].state, owner, NOW, dict(counts), spec, shown)

    def jobs(self, owner: str | None = None) -> Sequence[JobSummary]:
        views = [self.job(job_id) for job_id, (each, _) in self.specs.items() if owner in (None, each)]
        return [JobSummary(v.id, v.name, v.home, v.state, v.owner, v.submitted_unix_s, v.counts) for v in views]

    def explain(self, job_id: int) -> Explanation:
        short = Short("memory", 64 << 20, 0, 1, 1)
        return Explanation(job_id, self.job(job_id).state, "it waits", 1, 1, 0, (short,), (), 0, 0, self.name, 0, 1)

    def nodes(self) -> Sequence[NodeStatus]:
        room = Resources(2000, 2 << 30)
        report = Report(self.name, self.number, 1, 1, room, room, Resources(500, 1 << 30))
        mine = NodeStatus(self.name, self.number, Membership.ALIVE, report)
        return [mine, *(NodeStatus(name, number, Membership.ALIVE, None) for name, number in self.others)]

    @property
    def leader(self) -> str:
        return "n1"


@dataclass(frozen=True)
class Chunk:
    offset: int
    data: bytes
    size: int


class FakeLogs:
    """What containers wrote; `ended` names those that will write no more."""

    def __init__(self) -> None:
        self.written: dict[tuple[str, str], bytes] = {}
        self.ended: set[str] = set()

    async def read_log(
        self, allocation: AllocationId, stream: str, offset: int, limit: int, wait_s: float = 0.0, /
    ) -> tuple[Chunk, bool]:
        await trio.lowlevel.checkpoint()
        data = self.written.get((str(allocation), stream), b"")
        piece = data[offset : offset + limit]
        return Chunk(offset, piece, len(data)), str(allocation) in self.ended and offset + len(piece) >= len(data)


class FakeImages:
    """Images in a dictionary."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.stored: dict[tuple[str, str], bytes] = {}

    def list(self) -> Sequence[Image]:
        return [self._image(*key) for key in self.stored]

    async def put(self, name: str, tag: str, tar: AsyncIterator[bytes]) -> Image:
        self.stored[name, tag] = b"".join([piece async for piece in tar])
        return self._image(name, tag)

    async def remove(self, name: str, tag: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.stored.pop((name, tag), None) is None:
            raise NotFound(f"no image {name}:{tag}")

    async def build(self, name: str, tag: str, order: BuildOrder) -> AsyncGenerator[str | Image, None]:
        yield f"I: building {order.suite} with {', '.join(order.include)}"
        if order.suite == "nowhere":
            raise ImageError("no such suite")
        self.stored[name, tag] = b"built"
        yield self._image(name, tag)

    def outdated_names(self, keep_last: int) -> Sequence[str]:
        return [f"{name}:{tag}" for name, tag in sorted(self.stored)[keep_last:]]

    async def prune(self, unused_for_s: float, dry_run: bool) -> Sequence[Idle]:
        await trio.lowlevel.checkpoint()
        return [Idle(f"sha256:{self.node}", 7, 0.0, True)] if unused_for_s < 100 else []

    async def export(self, name: str, tag: str) -> AsyncIterator[bytes]:
        await trio.lowlevel.checkpoint()
        if (name, tag) not in self.stored:
            raise NotFound(f"no image {name}:{tag}")

        async def pieces() -> AsyncIterator[bytes]:
            yield self.stored[name, tag]

        return pieces()

    def _image(self, name: str, tag: str) -> Image:
        data = self.stored[name, tag]
        users = tuple(str(number) for number in range(120)) if name == "busy" else ()
        return Image(name, tag, f"sha256:{len(data)}", len(data), 0, users=users)


class Wire:
    """Carries peers' bodies; a node that is cut off can't be reached."""

    def __init__(self) -> None:
        self.peers: dict[str, Peers] = {}
        self.cut: set[str] = set()
        self.carried: list[bytes] = []

    async def post(
        self, address: str, body: bytes, timeout_s: float, answer_bytes_max: int, ticket: str | None = None
    ) -> tuple[int, bytes]:
        await trio.lowlevel.checkpoint()
        if address in self.cut or address not in self.peers:
            raise AgentUnreachable(address, "connection refused")
        self.carried.append(body)
        return await self.peers[address].handle(body)

    async def close(self) -> None:
        pass


@dataclass
class FakeNode:
    """One node of the fake cluster."""

    services: Services
    app: ASGIApp
    jobs: FakeJobs
    logs: FakeLogs
    images: FakeImages
    peers: Peers
    states: dict[str, str] = field(default_factory=dict)

    def client(self, user: str | None = "ana", role: str = "user", **headers: str) -> httpx.AsyncClient:
        """Return a client of this node that shows a token of this user (None: no token)."""
        if user is not None:
            token = Tokens(KEY).create(user, role, now_unix_s=_now(), lifetime_s=3600)
            headers["authorization"] = f"Bearer {token}"
        # What an application lets escape must fail the test.
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=True)
        return httpx.AsyncClient(transport=transport, base_url="http://n", headers=headers)


@dataclass
class FakeCluster:
    """Nodes by name, and the wire between them."""

    nodes: dict[str, FakeNode]
    wire: Wire

    def __getitem__(self, name: str) -> FakeNode:
        return self.nodes[name]


def _now() -> float:
    import time

    return time.time()


def make_cluster(count: int = 3, key: bytes | None = KEY, **bounds: float) -> FakeCluster:
    """Return nodes n1, n2, ... that know each other."""
    wire = Wire()
    numbers = [(f"n{number}", number) for number in range(1, count + 1)]
    nodes = {name: _make_node(wire, name, number, numbers, key, bounds) for name, number in numbers}
    return FakeCluster(nodes, wire)


def _make_node(
    wire: Wire, name: str, number: int, numbers: list[tuple[str, int]], key: bytes | None, bounds: dict[str, float]
) -> FakeNode:
    jobs, logs, images = (
        FakeJobs(name, number, [each for each in numbers if each[0] != name]),
        FakeLogs(),
        FakeImages(name),
    )
    peers = Peers(name, body_sealer(name, KeyRing(key, label="test") if key else None), wire)  # type: ignore[arg-type]
    wire.peers[f"{name}:8642"] = peers
    for other, other_number in numbers:
        peers.set_member(other, other_number, f"{other}:8642")
    states: dict[str, str] = {}
    services = Services(
        node=name,
        number=lambda: number,
        cluster="test",
        version="0",
        gate=Gate(None if key is None else KeyRing(key)),
        jobs=jobs,
        logs=logs,
        images=images,
        peers=peers,
        members=lambda: [{"name": each, "state": state} for each, state in states.items()],
        bounds=Bounds(**bounds),  # type: ignore[arg-type]
    )
    return FakeNode(services, build(services), jobs, logs, images, peers, states)


@pytest.fixture
def cluster() -> FakeCluster:
    return make_cluster()


@pytest.fixture
def new_cluster() -> object:
    return make_cluster
