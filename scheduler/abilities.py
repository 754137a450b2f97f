"""What a spec asks of a node beside room: constraints that its parts imply, and how a node's lack is said.

One answer for home, leader, node and explanations. Nodes advertise what they can do in three labels, lists parted by
commas: `limits` (kernel and runtime), `disks` and `devices` (the operator's names); and their maxima as `max.NAME`, a
number each, absent where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator

from scheduler import company
from scheduler.company import rules
from scheduler.model import Constraint, JobSpec, Operator, Resources
from scheduler.spec import files, health, networking, security
from scheduler.spec.limits import UNLIMITED, Limits, members

LIMITS, DISKS, DEVICES, MAXIMUM = "limits", "disks", "devices", "max."
CORE, MEMORY_NODE = "core", "memory-node"
"""Numbers of cores and of memory nodes: a node says which one is its highest."""
EXCLUSIVE_CORES = "exclusive-cores"
"""The extra resource that exclusively pinned cores are counted by."""
_EVERYTHING = str(1 << 62)
FREEZE = "freeze"
"""The ability, among the limits, to have a container stand still; no spec asks for it, preemption does."""

WORDS = {
    "swap": "no limit on swap",
    "soft": "no soft limit on memory",
    "high": "no memory.high (cgroup v2)",
    "swappiness": "no swappiness by container (cgroup v1)",
    "oom-group": "no memory.oom.group (cgroup v2)",
    "cpu-period": "no CPU quota",
    "cpuset": "no cpuset controller",
    "disk": "no block I/O limits for its disk",
    "disk-weight": "no block I/O weight",
    "net-class": "no net_cls controller",
    "rlimits": "no rlimits in its runtime",
    FREEZE: "no freezer",
}
"""Ability to what is said of a node without it."""

GRANTS = {
    "volumes": "no volume",
    "volumes-writable": "no writable volume",
    "files": "it can't give",
    "seccomp": "no system call filter",
    "capabilities": "its operator does not allow the capability",
    "security": "its containers have no choice of",
    "network": "its network lacks",
    "networks": "it has no network",
    "classes": "it has no traffic class",
    "checks": "it can't check a task's health by",
}
"""Label of what an operator grants to what is said of a node that does not; the name asked for follows."""


def is_ability(label: str) -> bool:
    """Whether a label tells what a node can do or grants, and was not given by its operator to place by."""
    return label in (LIMITS, DISKS, DEVICES) or label in GRANTS or label.startswith(MAXIMUM)


def requirements(spec: JobSpec) -> tuple[Constraint, ...]:
    """Return the spec's own constraints and those its parts imply."""
    beside = rules(spec)
    shared = spec.network == networking.SHARED
    if not shared and (spec.limits, spec.files, spec.security, spec.networking, spec.life.health) == _PLAIN:
        return (*spec.constraints, *beside) if beside else spec.constraints
    granted = (*files.needs(spec.files), *security.needs(spec.security), *networking.needs(spec.networking))
    if shared:
        granted += (("network", networking.SHARED),)
    if spec.life.health is not None:
        granted += tuple(health.needs(spec.life.health))
    mtu = spec.networking.mtu
    within = [Constraint(f"{MAXIMUM}mtu", Operator.WITHIN, (str(mtu),))] if mtu else []
    granted_here = (_has(label, name) for label, name in granted)
    return (*spec.constraints, *_of_limits(spec.limits), *granted_here, *within, *beside)


def packed(request: Resources, limits: Limits) -> Resources:
    """Return the request with what the limits reserve: cores that a task owns are counted like any resource."""
    extra = {name: count for name, count in request.extra if name != EXCLUSIVE_CORES}
    if limits.exclusive_cores:
        extra[EXCLUSIVE_CORES] = limits.exclusive_cores
    return Resources(request.cpu_milli, request.memory_bytes, tuple(sorted(extra.items())))


_NONE = Limits()
_PLAIN = (_NONE, files.Files(), security.Security(), networking.Networking(), None)


def _of_limits(limits: Limits) -> Iterator[Constraint]:
    asked = {
        "swap": limits.swap_bytes,
        "soft": limits.memory_soft_bytes,
        "high": limits.memory_high_bytes,
        "swappiness": limits.swappiness is not None,
        "oom-group": limits.oom_group,
        "cpu-period": limits.cpu_period_us != _NONE.cpu_period_us,
        "cpuset": limits.cores or limits.exclusive_cores or limits.memory_nodes,
        "disk": any(not each.disk for each in limits.disks),
        "disk-weight": limits.disk_weight is not None,
        "net-class": limits.net_class,
        "rlimits": limits.rlimits,
    }
    yield from (_has(LIMITS, name) for name, wanted in asked.items() if wanted)
    yield from (_has(LIMITS, f"hugetlb-{each.page}") for each in limits.huge_pages)
    yield from (_has(DISKS, each.disk) for each in limits.disks if each.disk)
    yield from (_has(DEVICES, name) for name in limits.devices)
    yield from _maxima(limits)


def _maxima(limits: Limits) -> Iterator[Constraint]:
    if limits.swap_bytes:
        yield Constraint(f"{MAXIMUM}swap", Operator.WITHIN, (str(limits.swap_bytes),))
    for name, listed in ((CORE, limits.cores), (MEMORY_NODE, limits.memory_nodes)):
        if listed:
            yield Constraint(f"{MAXIMUM}{name}", Operator.WITHIN, (str(max(members(listed), default=0)),))
    for each in limits.rlimits:
        most = _EVERYTHING if each.ceiling == UNLIMITED else str(each.ceiling)
        yield Constraint(f"{MAXIMUM}{each.name}", Operator.WITHIN, (most,))


def _has(label: str, value: str) -> Constraint:
    return Constraint(label, Operator.HAS, (value,))


def describe(constraint: Constraint) -> str:
    """Write a constraint that a node does not meet, or of which it is said how many don't."""
    if constraint.label == company.RUNS:
        return company.describe(constraint)
    value = ",".join(constraint.values)
    match constraint.operator:
        case Operator.HAS if constraint.label == LIMITS:
            return WORDS.get(value) or f"no {value.replace('hugetlb-', 'hugetlb controller with pages of ')}"
        case Operator.HAS if constraint.label in GRANTS:
            return f"{GRANTS[constraint.label]} {value}"
        case Operator.HAS:
            return f"no {constraint.label.removesuffix('s')} {value} in its table"
        case Operator.EVEN:
            return f"the job's tasks are to be spread over {constraint.label}: first {value}"
        case Operator.WITHIN if constraint.label in (MAXIMUM + CORE, MAXIMUM + MEMORY_NODE):
            return f"it has no {constraint.label.removeprefix(MAXIMUM).replace('-', ' ')} {value}"
        case Operator.WITHIN:
            asked = "no bound" if value == _EVERYTHING else value
            return f"its maximum of {constraint.label.removeprefix(MAXIMUM)} is below what is asked ({asked})"
    return f"the constraint {constraint.label} {constraint.operator.value}{f' {value}' if value else ''}"
