"""The scheduler's views, and gossip's, as the documents that users see."""

from __future__ import annotations

import msgspec

from node.api.documents import (
    Amounts,
    ExplanationDocument,
    JobDocument,
    JobSummaryDocument,
    NodeDocument,
    PortDocument,
    Ratios,
    ResultDocument,
    TaskDocument,
)
from node.api.services import Services
from scheduler.explain import Explanation, amount
from scheduler.model import Report, Resources, Result
from scheduler.survey import Short
from scheduler.views import JobSummary, JobView, NodeStatus

UNKNOWN = Report(node="", number=0, boot_epoch=0, sequence=0, capacity=Resources(), allocatable=Resources())
NODE_STATES = ("alive", "suspect", "down", "failed", "left")


def summary(job: JobSummary) -> JobSummaryDocument:
    """Return a line of the list of jobs."""
    return JobSummaryDocument(
        id=job.id,
        name=job.name,
        home=job.home,
        owner=job.owner,
        state=job.state,
        submitted_unix_s=job.submitted_unix_s,
        tasks={state.value: count for state, count in job.counts.items() if count},
        frozen=job.frozen,
        unhealthy=job.unhealthy,
    )


def job(view: JobView) -> JobDocument:
    """Return a job with the tasks that the view has."""
    return JobDocument(
        id=view.id,
        name=view.name,
        home=view.home,
        state=view.state,
        owner=view.owner,
        submitted_unix_s=view.submitted_unix_s,
        counts={state.value: count for state, count in view.counts.items() if count},
        tasks=[
            TaskDocument(
                index=task.index,
                state=task.state,
                node=task.node,
                attempt=task.attempt,
                exit_code=task.exit_code,
                reason=task.reason,
                addresses=task.reach.addresses,
                ports=tuple(PortDocument(protocol=p, host_port=at, port=port) for p, at, port in task.reach.ports),
                health=task.condition.health,
                health_reason=task.condition.why,
                frozen=task.condition.frozen,
                frozen_for=task.condition.frozen_for.job if task.condition.frozen_for is not None else None,
                frozen_times=task.stood.times,
                frozen_s=round(task.stood.sum_s, 3),
                result=_result(task.result),
            )
            for task in view.tasks
        ],
    )


def _result(result: Result | None) -> ResultDocument | None:
    if result is None:
        return None
    return ResultDocument(**{name: getattr(result, name) for name in ResultDocument.__struct_fields__})


def explanation(explained: Explanation) -> ExplanationDocument:
    """Return an explanation, its parts as a list of reasons."""
    return ExplanationDocument(
        id=explained.job,
        state=explained.state,
        summary=explained.summary,
        reasons=reasons(explained),
        pending_tasks=explained.pending_tasks,
        nodes=explained.nodes,
        fitting=explained.fitting,
        position=explained.position + 1 if explained.position >= 0 else None,
        waiting=explained.waiting,
        start_in_s=None if explained.start_in_s is None else round(explained.start_in_s, 3),
        leader=explained.leader,
        tasks=[
            {"index": task.index, "node": task.node, "state": task.state, "reason": task.reason}
            for task in explained.placed
        ],
    )


def reasons(explained: Explanation) -> list[dict[str, object]]:
    """Return why a job waits, reason by reason; what keeps the whole job out of the line comes alone."""
    found: list[dict[str, object]] = [{"kind": each.kind, "text": each.text} for each in explained.blocks]
    if found:
        return found
    if explained.quota:
        found = [
            {"kind": "limit", "text": f"nothing is left of the limit of {explained.quota}", "limit": explained.quota}
        ]
    found += [
        {"kind": "short", "text": _short_text(short, explained.nodes), **msgspec.structs.asdict(short)}
        for short in explained.short
    ]
    for text, count in explained.constraints:
        said = f"{count} of {explained.nodes} nodes excluded: {text}"
        found.append({"kind": "constraint", "text": said, "constraint": text, "nodes": count})
    for kind, words, count in (
        ("not-accepting", "take nothing new", explained.not_accepting),
        ("unreachable", "not in reach", explained.unreachable),
    ):
        if count:
            found.append({"kind": kind, "text": f"{count} of {explained.nodes} nodes {words}", "nodes": count})
    if count := explained.making_room:
        said = f"lower tiers give way to it on {count} node{'s' * (count != 1)}"
        found.append({"kind": "preemption", "text": said, "nodes": count})
    return found


def _short_text(short: Short, nodes: int) -> str:
    need, free = (amount(short.dimension, value) for value in (short.need, max(0, short.most_free)))
    never = f"; {short.never} could not take it even empty" if short.never else ""
    return f"{short.dimension} short on {short.nodes} of {nodes} nodes: asks {need}, {free} free at best{never}"


def states(services: Services) -> dict[str, str]:
    """Return the state of every node by name: gossip's word where it has one, else the scheduler's."""
    heard = {str(member["name"]): str(member["state"]) for member in services.members()}
    return {node.name: heard.get(node.name, _state(node)) for node in services.jobs.nodes()} | heard


def nodes(services: Services) -> list[NodeDocument]:
    """Return every node this one has heard of."""
    state_of, leader = states(services), services.jobs.leader
    return [_node(services, node, state_of[node.name], leader) for node in services.jobs.nodes()]


def _node(services: Services, node: NodeStatus, state: str, leader: str) -> NodeDocument:
    report = node.report or UNKNOWN
    return NodeDocument(
        name=node.name,
        number=node.number or None,
        state=state,
        capacity=_amounts(report.capacity),
        allocatable=_amounts(report.allocatable),
        committed=_amounts(report.committed),
        used=_amounts(report.used),
        overcommit=Ratios(
            cpu=_ratio(report.committed.cpu_milli, report.allocatable.cpu_milli),
            memory=_ratio(report.committed.memory_bytes, report.allocatable.memory_bytes),
        ),
        permitted=Ratios(cpu=report.cpu_ratio_permille / 1000, memory=report.memory_ratio_permille / 1000),
        containers=report.containers,
        labels=dict(report.labels),
        leader=node.name == leader,
        address=services.peers.address_of(node.name) or (services.address if node.name == services.node else ""),
        accepting=report.accepting,
        draining=report.draining,
    )


def _state(node: NodeStatus) -> str:
    return node.state.value if node.state.value in NODE_STATES else "down"


def _amounts(resources: Resources) -> Amounts:
    return Amounts(cpu_milli=resources.cpu_milli, memory_bytes=resources.memory_bytes)


def _ratio(committed: int, allocatable: int) -> float:
    return round(committed / allocatable, 3) if allocatable else 0.0
