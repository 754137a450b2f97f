"""The parts of one node's deciding, put together: home, leader, executing node, keeper, and what they share.

Owns: who is given what. May not know: events, messages, alarms (`routing.py`, `mail.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from scheduler.admission import Admission
from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.dispatch import Home
from scheduler.explain import Explanation, explain
from scheduler.horizon import Horizon
from scheduler.index import ClusterView
from scheduler.leader import Leader
from scheduler.rules import Rules
from scheduler.score import POLICIES
from scheduler.settings import Settings
from scheduler.settings_exchange import SettingsExchange
from scheduler.sites.keeper import Keeper
from scheduler.sites.kept import Jobs
from scheduler.survey import Surveys
from scheduler.wall import WallClock


@dataclass(frozen=True, slots=True)
class Parts:
    """Each owns its own facts; the view, the wall clock, the rules and the alarms are shared."""

    node: str
    config: SchedulerConfig
    alarms: Alarms
    view: ClusterView
    surveys: Surveys
    wall: WallClock
    shared: SettingsExchange
    rules: Rules
    home: Home
    horizon: Horizon
    leader: Leader
    admission: Admission
    keeper: Keeper

    def alive(self) -> list[str]:
        """Return the nodes that are, as far as is known here."""
        return _alive(self.view)

    def explain(self, job_id: int, now: float = inf) -> Explanation:
        """Say why a job of this home waits, or where and why it runs; raises UnknownJob."""
        return _explain(self.home, self.leader, self.surveys, job_id, now)


def assembled(config: SchedulerConfig, node: str, number: int, boot_epoch: int) -> Parts:
    """Return new parts that know nothing yet."""
    alarms, wall = Alarms(), WallClock()
    view = ClusterView(node, number, POLICIES[config.policy], config.near_equal_permille)
    shared = SettingsExchange(config, view, alarms, number, Settings(), wall)
    surveys, horizon, rules = Surveys(view), Horizon(view), Rules(shared.settings, wall)
    home = Home(config, view, alarms, number, boot_epoch, rules)
    leader = Leader(config, view, horizon, alarms, number, shared.settings)
    admission = Admission(config, view, alarms, number, boot_epoch, rules)
    jobs = Jobs(home.on_submit, home.on_cancel, home.jobs.get, _explaining(home, leader, surveys))
    keeper = Keeper(config, alarms, jobs, node, lambda: _alive(view), wall.unix_s)
    home.moves.replaced = keeper.on_evict
    admission.reporting.pushing.parted_here = leader.on_parting
    return Parts(
        node, config, alarms, view, surveys, wall, shared, rules, home, horizon, leader, admission, keeper
    )  # fmt: skip


def _alive(view: ClusterView) -> list[str]:
    return [node.name for node in view.nodes() if node.alive]


def _explaining(home: Home, leader: Leader, surveys: Surveys) -> Callable[[int], Explanation]:
    return lambda job_id: _explain(home, leader, surveys, job_id, inf)


def _explain(home: Home, leader: Leader, surveys: Surveys, job_id: int, now: float) -> Explanation:
    job = home.job(job_id)
    if leader.leading:
        return explain(job, surveys, leader.position(job_id), leader.waiting, now)
    return explain(job, surveys, job.told.position, job.told.waiting, now)
