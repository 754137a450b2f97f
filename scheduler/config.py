"""The settings of one node's scheduling machine: each with meaning, trade-off, default and bound.

Relations between settings are checked at construction, so a machine never runs with a combination that can't work.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from scheduler.errors import InvalidSpec
from scheduler.score import POLICIES


def setting(default: Any, low: float, high: float, text: str) -> Any:
    """Declare a numeric setting: its default, its bounds (inclusive) and what an operator should know of it."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "text": text})


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """What an operator may set. Construction raises InvalidSpec, naming the field."""

    policy: str = dataclasses.field(
        default="best-fit",
        metadata={
            "text": "best-fit packs tasks on few nodes; spread gives each the emptiest node; scheduler.score has more"
        },
    )
    near_equal_permille: int = setting(
        5, 0, 1000, "scores closer than this are drawn among by the job's seed: more avoids clashes, less packs tighter"
    )
    cpu_ratio_permille: int = setting(1000, 1, 100_000, "permitted commitment of this node's CPU, per 1000 allocatable")
    memory_ratio_permille: int = setting(
        1000, 1, 100_000, "permitted commitment of this node's memory, per 1000 allocatable; above 1000 risks OOM kills"
    )
    report_interval_s: float = setting(
        10.0, 0.1, 3600, "a report is gossiped at least this often: less is fresher, more is quieter"
    )
    report_change_permille: int = setting(
        50, 0, 1000, "a change of this share of allocatable is gossiped at once rather than at the interval"
    )
    retry_s: float = setting(
        1.0, 0.01, 60, "first wait for an answer before a message is repeated; far above a round trip"
    )
    retry_max_s: float = setting(30.0, 0.1, 3600, "the wait doubles up to this")
    quick_retry_s: float = setting(
        0.05,
        0.001,
        60,
        "the same for what the queue moves by (waiting jobs, orders, room that came free): above a round trip, or all "
        "is said twice",
    )
    window: int = setting(1000, 1, 100_000, "most unanswered entries of one kind towards one peer")
    lost_grace_s: float = setting(
        30.0, 0, 86_400, "a failed node's tasks start elsewhere after this: less is faster, more runs fewer tasks twice"
    )
    left_grace_s: float = setting(
        600.0, 0, 86_400, "the same for a node that said goodbye or was not heard of since this node's start"
    )
    holding_interval_s: float = setting(
        10.0, 0.1, 3600, "how often a node tells homes what it holds of them: bounds how long an outdated one runs"
    )
    census_interval_s: float = setting(60.0, 0.1, 3600, "how often a home asks nodes for what it believes them to hold")
    follow_interval_s: float = setting(
        5.0, 0.1, 3600, "how often a home asks another for a job its own jobs depend on; changes are pushed besides"
    )
    settings_interval_s: float = setting(
        10.0, 0.1, 3600, "how often a node whose settings differ is told again; changes are told at once besides"
    )
    usage_interval_s: float = setting(
        30.0, 0.1, 3600, "how often homes tell the leader what was used: bounds how old fair shares are"
    )
    lease_s: float = setting(
        60.0,
        1,
        86_400,
        "a single job runs this long without its home: less restarts it sooner elsewhere, more bears longer cuts",
    )
    ended_keep_s: float = setting(
        604_800.0,
        1,
        31_536_000,
        "a result its home does not take is forgotten after this; a restart counts anew",
    )
    fence_keep: int = setting(
        100_000, 100, 10_000_000, "how many ended or refused tasks a node remembers, so that late doubles start nothing"
    )
    election_delay_s: float = setting(
        0.5,
        0,
        60,
        "the lowest node takes the leader's role after being lowest this long: less starts more short reigns",
    )
    sites_max: int = setting(10_000, 1, 1_000_000, "most sites this node keeps, asleep ones included")
    sites_per_owner_max: int = setting(1000, 1, 1_000_000, "most sites of one user")
    sites_up_per_owner_max: int = setting(1000, 1, 1_000_000, "most sites of one user that this node keeps up at once")
    site_tries_max: int = setting(5, 1, 1000, "a site whose container ends this often before it was used is given up")
    site_tries_told: int = setting(2, 1, 1000, "after this many such ends nobody is kept waiting for it any more")
    site_break_s: float = setting(10.0, 0.1, 3600, "for this long; twice as long each further time")
    site_break_max_s: float = setting(600.0, 0.1, 86_400, "and never longer than this")
    site_linger_s: float = setting(
        5.0, 0, 3600, "a container runs on this long after another took its site over: requests under way may end"
    )
    site_retry_s: float = setting(30.0, 0.1, 3600, "how often another node is asked again to take a sleeping site")
    settle_s: float = setting(1.0, 0, 60, "a new leader waits at most this long for the homes' waiting jobs")
    queue_policy: str = dataclasses.field(
        default="easy",
        metadata={
            "text": "fcfs: the first that finds no room holds up all behind it; easy: it gets a reservation and others "
            "may slip past without delaying it (backfilling); conservative: the first reservations_max all get one"
        },
    )
    estimate_s: float = setting(
        3600.0,
        1,
        315_360_000,
        "a job without a time limit is planned as if it ran this long: less lets more of them slip past, and delays "
        "the one they slip past when they run longer",
    )
    reservations_max: int = setting(
        20, 1, 1000, "most waiting jobs that get a reservation with queue_policy conservative: bounds one pass's time"
    )
    tries_per_pass: int = setting(
        1000, 10, 1_000_000, "most sizes of waiting jobs tried in one pass: bounds how long an agent is busy with it"
    )
    gather_s: float = setting(
        0.12,
        0,
        1,
        "while a gang is ending, the leader waits so long for the word of all its nodes before it places; four "
        "times as long where most have told by then",
    )
    contended_s: float = setting(
        2.0,
        0,
        3600,
        "after a refusal a home leaves placing to the leader for this long: others place faster than gossip tells",
    )
    hold_ttl_s: float = setting(
        10.0, 0.5, 86_400, "a hold on a node ends after this unless the leader renews it, at a third of this"
    )
    reserve_s: float = setting(
        1.0, 0.05, 60, "a node keeps room for a member of a gang this long while the home gathers the others"
    )
    go_timeout_s: float = setting(
        2.0, 0.05, 600, "an order to a home without any effect is given up after this and its space offered again"
    )
    order_batch: int = setting(1000, 1, 100_000, "most tasks the leader places in one pass: bounds one pass's time")
    leader_publish_s: float = setting(1.0, 0.05, 60, "the number waiting is gossiped at most this often")
    restart_s: float = setting(1.0, 0.01, 3600, "first wait before a service or a failed set-up is tried again")
    restart_max_s: float = setting(300.0, 0.01, 86_400, "that wait doubles up to this")
    service_stable_s: float = setting(60.0, 0, 86_400, "a service that ran this long starts its waits anew")
    handover_s: float = setting(
        300.0,
        0,
        86_400,
        "a drained node's service runs on this long at most while it starts elsewhere (0: it stops first)",
    )
    history_jobs: int = setting(10_000, 0, 10_000_000, "finished jobs kept; the oldest are dropped first")
    history_tasks: int = setting(1_000_000, 0, 100_000_000, "finished tasks kept with them: bounds memory and disk")
    jobs_max: int = setting(1_000_000, 1, 100_000_000, "unfinished jobs this home takes; more are refused")
    spec_bytes_max: int = setting(65_536, 1024, 1_048_576, "largest encoded job spec; it travels with every admission")
    message_bytes_max: int = setting(1_048_576, 131_072, 67_108_864, "largest message between nodes")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            self._check(field.name, getattr(self, field.name), dict(field.metadata))
        if self.queue_policy not in ("fcfs", "easy", "conservative"):
            raise InvalidSpec("queue_policy", self.queue_policy, "use fcfs, easy or conservative")
        _at_least("go_timeout_s", self.go_timeout_s, "reserve_s", self.reserve_s)
        if self.policy not in POLICIES:
            raise InvalidSpec("policy", self.policy, f"use one of {', '.join(POLICIES)}")
        _at_least("retry_max_s", self.retry_max_s, "retry_s", self.retry_s)
        _at_least("left_grace_s", self.left_grace_s, "lost_grace_s", self.lost_grace_s)
        _at_least("restart_max_s", self.restart_max_s, "restart_s", self.restart_s)
        _at_least("message_bytes_max", self.message_bytes_max, "twice spec_bytes_max", 2 * self.spec_bytes_max)

    @staticmethod
    def _check(name: str, value: object, metadata: dict[str, Any]) -> None:
        if "low" not in metadata:
            return
        low, high = metadata["low"], metadata["high"]
        if not isinstance(value, int | float) or not low <= value <= high:
            raise InvalidSpec(name, value, f"use a number from {low} to {high}")


def _at_least(name: str, value: float, other: str, bound: float) -> None:
    if value < bound:
        raise InvalidSpec(name, value, f"must be at least {other}, which is {bound}")
