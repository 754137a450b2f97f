"""What goes wrong in a fault world, and what is asked of it: drawn from one seed, then fixed.

Swarm testing (Groce et al., ISSTA 2012): each seed draws its own small set of features, for a world in which everything
goes wrong at once hides the bugs that need some things to go right. The plan is data: it leaves nothing to chance
later, and can be shown, cut down and replayed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields, replace

import msgspec

from scheduler.abilities import FREEZE, LIMITS
from scheduler.config import SchedulerConfig
from scheduler.model import ArrayRange, Constraint, JobKind, JobSpec, OnLost, Operator, Resources
from scheduler.spec.gang import Gang
from scheduler.spec.queueing import After, Queueing, Unmet
from sim.network import Link

MIB = 1 << 20
LICENCE, LICENCES = "tool", 3
PARTITIONS = {"high": 10, "higher": 20}
"""Partitions with their tiers, in worlds with preemption."""
PREEMPTED_MAX = 2
LATER = ("preemption", "freezing")
"""Features that came after others, and are drawn from sequences of their own: old seeds keep their worlds but for them.
"""
LOSSES = (OnLost.REQUEUE, OnLost.REQUEUE, OnLost.FAIL)
UNIX_ZERO_S = 1_700_000_000.0
"""What the worlds' wall clocks show at their beginning, those that are right."""
CAPACITIES = (Resources(1000, 1024 * MIB), Resources(2000, 1024 * MIB), Resources(1000, 2048 * MIB, (("gpu", 2),)))


@dataclass(frozen=True, slots=True)
class Features:
    """Which kinds of trouble a world has. Each is drawn alone."""

    loss: bool = False
    duplicates: bool = False
    delays: bool = False
    partitions: bool = False
    one_way_cuts: bool = False
    agent_crashes: bool = False
    host_crashes: bool = False
    host_losses: bool = False
    disk_losses: bool = False
    leaves: bool = False
    slow_nodes: bool = False
    false_alarms: bool = False
    failing_starts: bool = False
    failing_exits: bool = False
    cancels: bool = False
    cordons: bool = False
    arrays: bool = False
    throttles: bool = False
    priorities: bool = False
    services: bool = False
    impossible_jobs: bool = False
    constraints: bool = False
    extras: bool = False
    wide_load: bool = False
    short_history: bool = False
    dependencies: bool = False
    holds: bool = False
    begin_times: bool = False
    singles: bool = False
    requeues: bool = False
    drains: bool = False
    licences: bool = False
    singletons: bool = False
    small_windows: bool = False
    clock_skew: bool = False
    gangs: bool = False
    time_limits: bool = False
    in_order: bool = False
    conservative: bool = False
    preemption: bool = False
    freezing: bool = False

    def names(self) -> list[str]:
        """Return the features that are on."""
        return [each.name for each in fields(self) if getattr(self, each.name)]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong at a time (virtual seconds), on some nodes, for a while.

    `steps`: a crash falls on the n-th step the agent takes from then on; a step is a commit or a single action.
    """

    at_s: float
    kind: str
    nodes: tuple[str, ...]
    lasts_s: float = 0.0
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Wish:
    """Something a client asks of a home: a job (`spec`), or something to be done to an earlier wish's job (`of`).

    `act`: cancel, requeue, or hold (and release a while later). `after`: how the job depends on earlier wishes'.
    """

    at_s: float
    home: str
    spec: JobSpec | None = None
    of: int | None = None
    act: str = "cancel"
    after: tuple[tuple[After, int], ...] = ()


@dataclass(frozen=True)
class Plan:
    """One world's whole fate."""

    seed: int
    nodes: tuple[str, ...]
    homes: tuple[str, ...]
    features: Features
    config: SchedulerConfig
    link: Link
    capacities: tuple[Resources, ...]
    labels: tuple[tuple[tuple[str, str], ...], ...]
    run_mean_s: float
    trouble_s: float
    calm_max_s: float
    faults: tuple[Fault, ...] = ()
    wishes: tuple[Wish, ...] = ()
    slow: tuple[str, ...] = field(default=())
    gossip: bool = False


def draw_plan(
    seed: int,
    nodes: int | None = None,
    homes: int | None = None,
    jobs: int | None = None,
    features: Features | None = None,
) -> Plan:
    """Draw a world; what is given is kept as given."""
    rng = random.Random(f"world {seed}")
    # Drawn in any case, so that naming what would have been drawn anyway gives the same world.
    drawn_nodes, drawn_jobs, homes_share = rng.choice((1, 2, 3, 3, 4, 5, 5, 7)), rng.choice((3, 10, 25)), rng.random()
    count = nodes or drawn_nodes
    names = tuple(f"n{number}" for number in range(1, count + 1))
    drawn = Features(**{each.name: rng.random() < 0.4 for each in fields(Features) if each.name not in LATER})
    tiers = random.Random(f"preemption {seed}")
    preemption = tiers.random() < 0.3
    frost = random.Random(f"freezing {seed}")
    drawn = replace(drawn, preemption=preemption, freezing=preemption and frost.random() < 0.5)
    features = features or drawn
    chosen = names[: homes or 1 + int(homes_share * count)]
    trouble_s = rng.choice((20.0, 40.0, 60.0))
    count_jobs = jobs or drawn_jobs
    return Plan(
        seed=seed,
        nodes=names,
        homes=chosen,
        features=features,
        config=_config(rng, features),
        link=_link(rng, features),
        capacities=tuple(rng.choice(CAPACITIES) if features.extras else CAPACITIES[0] for _ in names),
        labels=tuple((("zone", rng.choice("ab")), *_freezer(frost, features)) for _ in names),
        # Long runs only where few jobs are: one node may have to run everything, one after the other.
        run_mean_s=rng.choice((0.5, 3.0, 3.0, 20.0 if count_jobs <= 3 else 0.5)),
        trouble_s=trouble_s,
        calm_max_s=3000.0,
        faults=_faults(rng, features, names, chosen, trouble_s),
        wishes=_in_tiers(tiers, features, _wishes(rng, features, chosen, trouble_s, count_jobs)),
        slow=tuple(name for name in names if features.slow_nodes and rng.random() < 0.4),
    )


def _freezer(rng: random.Random, features: Features) -> tuple[tuple[str, str], ...]:
    """Where tasks can be frozen: on most nodes, if anywhere."""
    return ((LIMITS, FREEZE),) if features.freezing and rng.random() < 0.8 else ()


def _config(rng: random.Random, features: Features) -> SchedulerConfig:
    return SchedulerConfig(
        policy=rng.choice(("best-fit", "spread")),
        queue_policy="fcfs" if features.in_order else "conservative" if features.conservative else "easy",
        estimate_s=10.0,
        hold_ttl_s=3.0,
        handover_s=4.0,
        cpu_ratio_permille=rng.choice((1000, 1500)),
        lost_grace_s=rng.choice((1.0, 5.0)),
        left_grace_s=12.0,
        holding_interval_s=3.0,
        census_interval_s=7.0,
        retry_s=0.4,
        retry_max_s=4.0,
        restart_max_s=5.0,
        lease_s=rng.choice((2.0, 20.0)),
        window=2 if features.small_windows else 1000,
        order_batch=3 if features.small_windows else 1000,
        history_jobs=2 if features.short_history else 10_000,
    )


def _link(rng: random.Random, features: Features) -> Link:
    return Link(
        delay_min_s=0.0005,
        delay_max_s=0.3 if features.delays else 0.002,
        loss=rng.choice((0.02, 0.1, 0.3)) if features.loss else 0.0,
        duplicate=0.2 if features.duplicates else 0.0,
        reorder=0.3 if features.delays else 0.0,
        reorder_delay_s=1.0,
    )


def _faults(
    rng: random.Random, features: Features, names: tuple[str, ...], homes: tuple[str, ...], trouble_s: float
) -> tuple[Fault, ...]:
    kinds = [
        kind
        for kind, on in (
            ("partition", features.partitions and len(names) > 1),
            ("cut", features.one_way_cuts and len(names) > 1),
            ("agent crash", features.agent_crashes),
            ("host crash", features.host_crashes),
            ("host loss", features.host_losses and len(names) > 1),
            ("disk loss", features.disk_losses and len(names) > len(homes)),
            ("leave", features.leaves),
            ("false alarm", features.false_alarms and len(names) > 1),
            ("cordon", features.cordons),
            ("drain", features.drains),
        )
        if on
    ]
    if not kinds:
        return ()
    faults = []
    for _ in range(rng.randint(1, 12)):
        kind = rng.choice(kinds)
        # A home whose disk is gone has lost its jobs: nobody promised otherwise.
        victims = names[len(homes) :] if kind == "disk loss" else names
        faults.append(_fault(rng, kind, victims, trouble_s))
    return tuple(sorted(faults, key=lambda fault: fault.at_s))


def _fault(rng: random.Random, kind: str, names: tuple[str, ...], trouble_s: float) -> Fault:
    at_s = rng.uniform(0.5, trouble_s)
    lasts_s = rng.choice((0.2, 2.0, 8.0, 20.0))
    if kind == "partition":
        size = rng.randint(1, len(names) - 1)
        return Fault(at_s, kind, tuple(sorted(rng.sample(names, size))), lasts_s)
    if kind in ("cut", "false alarm"):
        return Fault(at_s, kind, tuple(rng.sample(names, 2)), lasts_s)
    return Fault(at_s, kind, (rng.choice(names),), lasts_s, steps=rng.choice((0, 0, 1, 2, 3, 5, 8)))


def _wishes(
    rng: random.Random, features: Features, homes: tuple[str, ...], trouble_s: float, jobs: int
) -> tuple[Wish, ...]:
    wishes: list[Wish] = []
    for number in range(jobs):
        at_s = rng.uniform(0.1, trouble_s * rng.choice((0.2, 0.9)))
        spec = _spec(rng, features, number)
        earlier = [at for at, each in enumerate(wishes) if each.spec is not None]
        after = _after(rng, earlier) if features.dependencies and earlier and rng.random() < 0.6 else ()
        wishes.append(Wish(at_s, rng.choice(homes), spec, after=after))
        if features.holds and rng.random() < 0.4:
            wishes.append(Wish(at_s + rng.choice((0.0, 0.5, 5.0)), "", of=len(wishes) - 1, act="hold"))
        if features.requeues and rng.random() < 0.4:
            of = max(at for at, each in enumerate(wishes) if each.spec is not None)
            wishes.append(Wish(at_s + rng.choice((0.5, 2.0, 10.0)), "", of=of, act="requeue"))
        if spec.kind is JobKind.SERVICE or (features.cancels and rng.random() < 0.3):
            later_s = trouble_s + 1 if spec.kind is JobKind.SERVICE else at_s + rng.choice((0.05, 1.0, 10.0))
            of = max(at for at, each in enumerate(wishes) if each.spec is not None)
            wishes.append(Wish(later_s, "", of=of))
    return tuple(wishes)


def _in_tiers(rng: random.Random, features: Features, wishes: tuple[Wish, ...]) -> tuple[Wish, ...]:
    """Put some jobs into the partitions of higher tiers."""
    if not features.preemption:
        return wishes
    found = []
    for wish in wishes:
        partition = rng.choice(("", "", *PARTITIONS))
        if wish.spec is not None and partition:
            queueing = msgspec.structs.replace(wish.spec.queueing, partition=partition)
            wish = replace(wish, spec=msgspec.structs.replace(wish.spec, queueing=queueing))
        found.append(wish)
    return tuple(found)


def _after(rng: random.Random, earlier: list[int]) -> tuple[tuple[After, int], ...]:
    chosen = rng.sample(earlier, min(len(earlier), rng.choice((1, 1, 2))))
    kinds = [rng.choice(tuple(After)) for _ in chosen]
    if kinds.count(After.CORRESPONDING) > 1:
        kinds[0] = After.ANY
    return tuple(zip(kinds, chosen, strict=True))


def _spec(rng: random.Random, features: Features, number: int) -> JobSpec:
    array = None
    if features.arrays and rng.random() < 0.5:
        last = rng.choice((3, 10, 30))
        array = ArrayRange(0, last, rng.choice((1, 1, 3)), rng.choice((1, 4)) if features.throttles else 0)
    constraints: tuple[Constraint, ...] = ()
    if features.constraints and rng.random() < 0.4:
        constraints = (Constraint("zone", Operator.IN, (rng.choice("ab"),)),)
    kind = JobKind.SERVICE if features.services and rng.random() < 0.2 else JobKind.BATCH
    gang = None
    if features.gangs and array is None and kind is JobKind.BATCH and rng.random() < 0.4:
        gang = Gang(nodes=rng.choice((2, 2, 3, 4)), tasks_per_node=rng.choice((1, 1, 2)))
    return JobSpec(
        name=f"job{number % 3 if features.singletons else number}",
        argv=("true",),
        request=_request(rng, features),
        array=array,
        kind=kind,
        gang=gang,
        time_limit_s=rng.choice((1.0, 5.0, 20.0)) if features.time_limits and kind is JobKind.BATCH else None,
        priority=rng.choice((0, 0, 5)) if features.priorities else 0,
        attempts_max=rng.choice((1, 3, 20)),
        on_lost=OnLost.SINGLE if features.singles and not gang and rng.random() < 0.6 else rng.choice(LOSSES),
        stop_grace_s=rng.choice((0.0, 1.0)),
        constraints=constraints,
        queueing=Queueing(
            unmet=Unmet.CANCEL,
            hold=features.holds and rng.random() < 0.1,
            licences={LICENCE: rng.choice((1, 2))} if features.licences and rng.random() < 0.4 else {},
            singleton=features.singletons and not features.dependencies and rng.random() < 0.3,
            begin_unix_s=UNIX_ZERO_S + rng.uniform(0, 30.0) if features.begin_times and rng.random() < 0.3 else 0.0,
        ),
    )


def _request(rng: random.Random, features: Features) -> Resources:
    if features.impossible_jobs and rng.random() < 0.2:
        return Resources(100, 1 << 50)
    extra = (("gpu", rng.choice((1, 2))),) if features.extras and rng.random() < 0.3 else ()
    heavy = features.wide_load and rng.random() < 0.5
    cpu = rng.choice((500, 900)) if heavy else rng.choice((50, 100, 250))
    return Resources(cpu, rng.choice((32, 128, 700 if heavy else 256)) * MIB, extra)
