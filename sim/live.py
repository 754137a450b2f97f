"""A copy of the live cluster in a file: its nodes, and every home's unfinished jobs, as `fofoca sim snapshot` takes it.

Owns the file's format and what makes it whole. Knows what `GET /v1/nodes` and `GET /v1/nodes/NAME/snapshot` answer, not
how they are asked. The structs of jobs, reports and settings are the scheduler's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from scheduler.model import JobKind, Resources, State
from scheduler.snapshot import JobCopy, NodeSnapshot
from sim.cluster import MIB, Cluster, NodeType
from sim.errors import BadTrace, BadValue

FORMAT = 1
BYTES_MAX = 1 << 30


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster at one moment. `states` has every node heard of; `missing` those of which nothing is known."""

    fofoca_snapshot: int = FORMAT
    taken_unix_s: float
    states: dict[str, str]
    missing: tuple[str, ...] = ()
    nodes: tuple[NodeSnapshot, ...] = ()

    def jobs(self) -> Iterator[tuple[str, JobCopy]]:
        """Yield every unfinished job with its home."""
        for node in self.nodes:
            for job in node.jobs:
                yield node.node, job

    @property
    def counts(self) -> Mapping[str, int]:
        """How much there is of everything, for a line to people."""
        tasks = [task for _, job in self.jobs() for _, task in job.tasks]
        running = sum(task.state is State.RUNNING for task in tasks)
        pending = 0
        for _, job in self.jobs():
            ended = sum(last - first + 1 for _, first, last in job.ended)
            held = sum(bool(task.node) for _, task in job.tasks)
            pending += len(job.record.spec.indices()) - ended - held - job.tasks_left_out
        return {
            "nodes": len(self.nodes),
            "jobs": sum(1 for _ in self.jobs()),
            "running_tasks": running,
            "pending_tasks": pending,
            "services": sum(job.record.spec.kind is JobKind.SERVICE for _, job in self.jobs()),
        }


_decode_page = msgspec.json.Decoder(NodeSnapshot).decode
_decode_live = msgspec.json.Decoder(Live).decode


def decode_page(body: bytes) -> NodeSnapshot:
    """Read one answer of a node; raises BadValue for one of another version."""
    try:
        return _decode_page(body)
    except msgspec.DecodeError as error:
        raise BadValue("snapshot", error, "an answer of this version of fofoca") from None


def joined(pages: list[NodeSnapshot]) -> NodeSnapshot:
    """Return one node's pages as one."""
    jobs = tuple(job for page in pages for job in page.jobs)
    return msgspec.structs.replace(pages[0], jobs=jobs, next=None)


def write_live(path: str | Path, live: Live) -> None:
    """Write it as JSON; raises OSError."""
    Path(path).write_bytes(encode_live(live))


def encode_live(live: Live) -> bytes:
    """Return it as JSON with a line end."""
    return msgspec.json.format(msgspec.json.encode(live), indent=1) + b"\n"


def read_live(path: str | Path) -> Live:
    """Read what `write_live` wrote; raises BadTrace, naming what is wrong."""
    try:
        if Path(path).stat().st_size > BYTES_MAX:
            raise BadTrace(str(path), f"is larger than {BYTES_MAX >> 20} MiB")
        live = _decode_live(Path(path).read_bytes())
    except OSError as error:
        raise BadTrace(str(path), (error.strerror or str(error)).lower()) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadTrace(str(path), f"is no snapshot of `fofoca sim snapshot`: {error}") from None
    if live.fofoca_snapshot != FORMAT:
        raise BadTrace(str(path), f"is of format {live.fofoca_snapshot}; this version reads {FORMAT}")
    names = [node.node for node in live.nodes]
    if len(set(names)) < len(names):
        raise BadTrace(str(path), "has a node twice")
    for node in live.nodes:
        if node.report is None or node.rules is None:
            raise BadTrace(str(path), f"node {node.node}: has no report")
    return live


def to_cluster(live: Live) -> Cluster:
    """Return the living nodes as types for replays: those alike, labels and all, are one; raises BadValue if none."""
    kinds: dict[tuple[Resources, tuple[tuple[str, str], ...]], list[str]] = {}
    for node in live.nodes:
        if live.states.get(node.node) == "alive" and node.report is not None:
            kinds.setdefault((node.report.allocatable, node.report.labels), []).append(node.node)
    if not kinds:
        raise BadValue("snapshot", "no node that is alive", "at least one")
    return Cluster(
        tuple(
            NodeType(
                name=names[0],
                cpu=f"{has.cpu_milli}m",
                memory=has.memory_bytes // MIB * MIB,
                count=len(names),
                labels=dict(labels),
            )
            for (has, labels), names in kinds.items()
        )
    )
