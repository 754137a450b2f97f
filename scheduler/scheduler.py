"""One node's whole deciding: home, queue leader and executing node as one machine.

Owns the order in which the parts hear of an event; each part owns its own facts. One mutating entry,
`handle(now, event) -> Outcome`: first make the changes durable, then carry out the actions. Pure: no clock, no I/O;
time is an argument, randomness a seed. An event that raises has changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from scheduler import images, line_views
from scheduler.admission import Admission
from scheduler.alarms import Alarms
from scheduler.amendments import AmendmentView
from scheduler.config import SchedulerConfig
from scheduler.dispatch import Home
from scheduler.effects import Effects
from scheduler.ended import EndedPage, ended_tasks
from scheduler.errors import BadMessage
from scheduler.events import (
    Accepting,
    AmendJob,
    Cancel,
    ContainerChanged,
    ContainerCondition,
    ContainerEnded,
    ContainerFrozen,
    ContainerStarted,
    ContainerThawed,
    Drain,
    Event,
    Heard,
    Hold,
    HomeUntil,
    Measured,
    MemberDown,
    MemberFailed,
    MemberForgotten,
    MemberLeft,
    MemberUp,
    Outcome,
    Received,
    Release,
    Requeue,
    SetSetting,
    SiteDropped,
    SiteEvent,
    SiteReady,
    SitesElsewhere,
    SiteSlept,
    SiteUnready,
    SiteUsed,
    SiteWanted,
    Submit,
    SubmitAll,
    TaskFrozen,
    TaskThawed,
    Timer,
)
from scheduler.explain import Explanation, explain
from scheduler.forecast import Forecast, start_in_s
from scheduler.horizon import Horizon
from scheduler.index import ClusterView, Membership
from scheduler.jobs import Job
from scheduler.leader import Leader
from scheduler.messages import (
    REPORT_KEY,
    Admit,
    Admitted,
    Amend,
    Amended,
    AnyItem,
    Census,
    ConditionIs,
    Declined,
    Ended,
    EndedTaken,
    Evict,
    Follow,
    Fresh,
    GiveWay,
    Go,
    Gone,
    Holding,
    HoldNoted,
    HoldRoom,
    Keeps,
    Lease,
    LeaseAsk,
    Muster,
    News,
    Noted,
    Preempt,
    Preempting,
    Refused,
    Reserved,
    RivalAsk,
    RivalIs,
    SettingsAre,
    Settled,
    Spent,
    Started,
    Stop,
    Tally,
    TallyHeard,
    Tell,
    Told,
    Wait,
    WaitHeard,
    decode,
    decode_leads,
    decode_report,
)
from scheduler.model import Allocation, AllocationId, JobRecord, JobSpec, State
from scheduler.records import Rows, get_number
from scheduler.rules import Rules
from scheduler.score import POLICIES
from scheduler.settings import AnySetting, Settings
from scheduler.settings_exchange import GOSSIP_KEY, SettingsExchange
from scheduler.sites.claims import Keeping
from scheduler.sites.keeper import Keeper
from scheduler.sites.kept import Jobs
from scheduler.sites.site import Site, SiteView
from scheduler.snapshot import NodeSnapshot, copy_jobs, copy_node
from scheduler.survey import Surveys
from scheduler.usage import JobUsage, UsageRow
from scheduler.validate import validate
from scheduler.views import JobSummary, JobView, NodeStatus, WaitingView, summary, view
from scheduler.wall import WallClock


class Scheduler:
    """The machine. `boot_epoch` must be higher at each start of this node's agent."""

    def __init__(self, config: SchedulerConfig, node: str, number: int, boot_epoch: int, seed: int) -> None:
        self.node = node
        self._config = config
        self._alarms = Alarms()
        self._view = ClusterView(node, number, POLICIES[config.policy], config.near_equal_permille)
        self._surveys = Surveys(self._view)
        self._wall = WallClock()
        self._shared = SettingsExchange(config, self._view, self._alarms, number, Settings(), self._wall)
        self._rules = rules = Rules(self._shared.settings, self._wall)
        self._home = Home(config, self._view, self._alarms, number, boot_epoch, rules)
        self._horizon = Horizon(self._view)
        self._leader = Leader(config, self._view, self._horizon, self._alarms, number, self._shared.settings)
        self._admission = Admission(config, self._view, self._alarms, number, boot_epoch, rules)
        self._keeper = Keeper(
            config,
            self._alarms,
            Jobs(self._home.on_submit, self._home.on_cancel, self._home.jobs.get, self.explain),
            node,
            self._alive,
            self._wall.unix_s,
        )
        self._home.moves.replaced = self._keeper.on_evict
        self._settings_seen = 0
        self._seed = seed
        self._items = self._item_handlers()
        self._rings = self._alarm_handlers()

    # --- the one entry, and its alarm clock

    def restore(self, now: float, unix_s: float, rows: Rows) -> Outcome:
        """Begin: with empty rows at the first start, with the ledger's rows at any later one. Call it once, first."""
        fx = Effects(now)
        self._leader.epoch_seen = self._admission.reporting.epoch = get_number(rows, "epoch")
        self._wall.see(now, unix_s)
        self._shared.restore(fx, rows)
        self._settings_seen = self._shared.changes
        self._admission.restore(fx, rows)
        self._admission.draining.restore(fx, rows, unix_s)
        self._home.restore(fx, rows, unix_s)
        self._keeper.restore(fx, rows)
        self._leader.start(fx)
        return self._finish(fx)

    def handle(self, now: float, event: Event) -> Outcome:
        """Take one event; everything due by `now` is done too. Raises SchedulerError and then has changed nothing."""
        fx = Effects(now)
        self._wall.see(now, getattr(event, "unix_s", 0.0))
        self._dispatch(fx, event)
        mark = self._alarms.mark
        while (key := self._alarms.pop_due(now, mark)) is not None:
            self._ring(fx, key[0], key[1])
        return self._finish(fx)

    def next_timer(self) -> float | None:
        """Return when `handle(now, Timer())` is due next, if ever."""
        return self._alarms.next()

    def _finish(self, fx: Effects) -> Outcome:
        for job_id in fx.jobs_changed():
            self._keeper.on_job(fx, job_id)
        if self._settings_seen != self._shared.changes:
            self._settings_seen = self._shared.changes
            self._home.on_settings(fx)
            self._leader.on_settings()
        self._shared.flush(fx)
        self._admission.flush(fx)
        self._leader.flush(fx)
        self._home.flush(fx)
        return fx.outcome(self._config.message_bytes_max)

    # --- events

    def _dispatch(self, fx: Effects, event: Event) -> None:
        match event:
            case Received():
                self._received(fx, event)
            case Heard():
                self._heard(fx, event)
            case Submit() | SubmitAll() | Cancel() | Hold() | Release() | Requeue() | AmendJob():
                self._wish(fx, event)
            case ContainerStarted() | ContainerCondition() | ContainerEnded() | ContainerChanged():
                self._container(fx, event)
            case ContainerFrozen() | ContainerThawed():
                self._admission.on_frost(fx, event)
            case Measured():
                self._admission.reporting.measure(event)
            case Accepting() | Drain() | SetSetting():
                self._operator(fx, event)
            case MemberUp() | MemberDown() | MemberFailed() | MemberLeft():
                self._member(fx, event)
            case MemberForgotten():
                self._forget(fx, event.node)
            case HomeUntil():
                self._home.leases.home_until_s = event.until_s
            case Timer():
                pass
            case _:
                self._site(fx, event)

    def _container(
        self, fx: Effects, event: ContainerStarted | ContainerCondition | ContainerEnded | ContainerChanged
    ) -> None:
        """What the runtime says of this node's containers."""
        match event:
            case ContainerStarted():
                self._admission.on_started(fx, event)
            case ContainerCondition():
                self._admission.on_condition(fx, event)
            case ContainerEnded():
                self._admission.on_ended(fx, event)
            case ContainerChanged():
                self._admission.amendments.on_changed(fx, event)

    def _site(self, fx: Effects, event: SiteEvent) -> None:
        """What doors and shell say of the sites kept here."""
        keeper = self._keeper
        match event:
            case SiteWanted():
                fx.answer = keeper.on_wanted(fx, event)
            case SiteUsed():
                keeper.on_used(fx, event)
            case SiteReady():
                keeper.on_ready(fx, event)
            case SiteUnready():
                keeper.on_unready(fx, event)
            case SiteSlept():
                keeper.on_slept(fx, event.key)
            case SiteDropped():
                keeper.on_drop(fx, event.key, moved=event.moved)
            case SitesElsewhere():
                fx.answer = keeper.on_elsewhere(fx, event)
            case TaskFrozen():
                keeper.on_frozen(fx, event.key, event.job, event.worked)
            case TaskThawed():
                keeper.on_thawed(fx, event.key, event.job)

    def _alive(self) -> list[str]:
        return [node.name for node in self._view.nodes() if node.alive]

    def _wish(self, fx: Effects, event: Submit | SubmitAll | Cancel | Hold | Release | Requeue | AmendJob) -> None:
        """What users ask of their jobs' home."""
        match event:
            case Submit():
                fx.answer = self._home.on_submit(fx, event)
            case SubmitAll():
                fx.answer = self._home.on_submit_all(fx, event.jobs)
            case Cancel():
                self._home.on_cancel(fx, event)
            case Hold():
                self._home.on_hold(fx, event)
            case Release():
                self._home.on_release(fx, event)
            case Requeue():
                self._home.moves.on_requeue(fx, self._home.job(event.job_id))
            case AmendJob():
                fx.answer = self._home.on_amend_job(fx, event)

    def _operator(self, fx: Effects, event: Accepting | Drain | SetSetting) -> None:
        """What operators ask of this node, or through it of the cluster."""
        match event:
            case Accepting():
                self._admission.draining.on_accepting(fx, event)
            case Drain():
                self._admission.draining.on_drain(fx, event)
            case SetSetting():
                self._shared.on_set(fx, event)

    def _member(self, fx: Effects, event: MemberUp | MemberDown | MemberFailed | MemberLeft) -> None:
        if event.node == self.node:
            return
        if isinstance(event, MemberUp):
            self._view.heard_of(event.node, Membership.ALIVE, event.number)
            self._leader.on_home_up(fx, event.node)
            self._home.on_up(fx, event.node)
            self._admission.on_up(fx, event.node)
        else:
            self._away(fx, event)
        self._leader.on_members(fx)
        self._keeper.on_members(fx)
        if not isinstance(event, MemberUp):
            self._keeper.on_door_gone(event.node)

    def _away(self, fx: Effects, event: MemberDown | MemberFailed | MemberLeft) -> None:
        match event:
            case MemberDown():
                self._view.heard_of(event.node, Membership.DOWN)
                self._home.on_down(fx, event.node)
            case MemberFailed():
                self._view.heard_of(event.node, Membership.FAILED)
                self._home.on_gone_away(fx, event.node, self._config.lost_grace_s)
            case MemberLeft():
                self._view.heard_of(event.node, Membership.LEFT)
                self._home.on_gone_away(fx, event.node, self._config.left_grace_s)
        self._leader.on_home_away(fx, event.node)
        self._admission.holds.on_away(event.node)

    def _forget(self, fx: Effects, node: str) -> None:
        """Gossip has forgotten a node for good, and so do we, once no task of ours is bound to it."""
        if node != self.node and not self._view.alive(node):
            self._home.on_forgotten(fx, node)
            self._leader.on_forgotten(node)
            self._admission.on_forgotten(node)
            self._view.forget(node)
            self._horizon.forget(node)

    def _heard(self, fx: Effects, event: Heard) -> None:
        if event.key == images.KEY:
            self._view.hear_images(event.node, images.decode(event.value))
            return
        if event.node == self.node:
            return
        if event.key == REPORT_KEY:
            report = decode_report(event.value)
            if report.node != event.node:
                raise BadMessage(f"{event.node} published a report of {report.node}")
            self._view.hear(report)
            self._horizon.heard(fx.now, report, pushed=False)
        elif event.key == GOSSIP_KEY:
            self._shared.on_heard(fx, event.node, event.value)
        elif event.key == "leader":
            leads = decode_leads(event.value)
            self._epoch(fx, leads.epoch)
            self._home.lineup.on_leads(event.node, leads)

    def _epoch(self, fx: Effects, epoch: int) -> None:
        reporting = self._admission.reporting
        reporting.epoch = max(reporting.epoch, epoch)
        self._leader.on_epoch(fx, epoch)

    # --- messages

    def _received(self, fx: Effects, event: Received) -> None:
        size_max = self._config.message_bytes_max
        for items in [decode(message, size_max) for message in (event.message, *event.more)]:
            for item in items:
                self._items[type(item)](fx, event.sender, item)

    def _item_handlers(self) -> dict[type[AnyItem], Callable[[Effects, str, Any], None]]:
        home, leader, node = self._home, self._leader, self._admission
        return {
            Admit: self._on_admit,
            Stop: node.on_stop,
            Census: node.on_census,
            EndedTaken: node.on_taken,
            Admitted: home.on_admitted,
            Reserved: home.on_reserved,
            Refused: home.on_refused,
            Started: lambda fx, sender, item: home.on_started(fx, sender, item.id, item.reach),
            ConditionIs: lambda fx, sender, item: home.on_condition(fx, sender, item.id, item.condition),
            Ended: home.on_ended,
            Gone: home.on_gone,
            Holding: home.on_holding,
            Fresh: self._on_fresh,
            Noted: self._on_noted,
            Go: home.on_go,
            Muster: home.on_muster,
            HoldRoom: self._on_hold_room,
            HoldNoted: lambda _, sender, item: leader.on_hold_noted(sender, item),
            WaitHeard: home.lineup.on_heard,
            Tell: self._on_tell,
            Follow: home.gate.following.on_follow,
            News: home.on_news,
            SettingsAre: self._shared.on_told,
            Tally: leader.on_tally,
            Spent: lambda fx, sender, item: leader.on_spent(sender, item),
            TallyHeard: lambda fx, sender, item: home.quotas.on_heard(sender, item.quota, item.version),
            RivalAsk: home.on_news,
            RivalIs: home.on_news,
            LeaseAsk: home.on_lease_ask,
            Evict: home.moves.on_evict,
            GiveWay: home.moves.on_give_way,
            Keeps: node.yielding.on_keeps,
            Preempt: node.yielding.on_preempt,
            Preempting: leader.on_preempting,
            Amended: home.amendments.on_amended,
            Amend: node.amendments.on_amend,
            Lease: node.leases.on_lease,
            Wait: leader.on_wait,
            Told: lambda fx, sender, item: leader.on_told(sender, item.epoch),
            Settled: lambda fx, sender, item: leader.on_settled(sender, item),
            Declined: lambda fx, sender, item: leader.on_declined(item),
        }

    def _on_admit(self, fx: Effects, sender: str, item: Admit) -> None:
        if item.epoch:
            self._epoch(fx, item.epoch)
        self._admission.on_admit(fx, sender, item)

    def _on_noted(self, fx: Effects, sender: str, item: Noted) -> None:
        if item.boot_epoch == self._admission.reporting.boot_epoch:
            self._admission.reporting.pushing.on_noted(sender, item.sequence)

    def _on_hold_room(self, fx: Effects, sender: str, item: HoldRoom) -> None:
        self._epoch(fx, item.epoch)
        if item.epoch == self._admission.reporting.epoch:
            self._admission.holds.on_hold(fx.now, item)
            fx.say(sender, HoldNoted(item.epoch, item.sequence, item.job))

    def _on_tell(self, fx: Effects, sender: str, item: Tell) -> None:
        self._epoch(fx, item.epoch)
        if sender == self._view.leader:
            self._admission.on_reign(fx, sender, item.epoch)
        self._home.tell_spent(fx)
        self._home.lineup.on_tell(fx, sender, item.epoch)

    def _on_fresh(self, fx: Effects, sender: str, item: Fresh) -> None:
        if item.report.node == sender:
            self._view.hear(item.report)
            self._horizon.heard(fx.now, item.report, pushed=True)
            if item.push:
                fx.say(sender, Noted(item.report.boot_epoch, item.report.sequence))
            self._leader.on_epoch(fx, item.epoch)

    # --- alarms

    def _ring(self, fx: Effects, kind: str, detail: Any) -> None:
        handler = self._rings.get(kind)
        if handler is not None:
            handler(fx, detail)
        else:
            self._ring_leader(fx, kind, detail)

    def _alarm_handlers(self) -> dict[str, Callable[[Effects, Any], None]]:
        home, node, following = self._home, self._admission, self._home.gate.following
        return {
            "asks": home.attempts.ring_asks,
            "stops": home.attempts.ring_stops,
            "pushes": node.reporting.pushing.ring,
            "musters": home.attempts.ring_musters,
            "gather": home.gangs.ring_gather,
            "waits": home.lineup.ring,
            "ends": node.ring_ends,
            "grace": home.ring_grace,
            "census": home.attempts.ring_census,
            "again": lambda fx, detail: home.ring_again(fx, *detail),
            "gate": home.ring_gate,
            "follow": lambda fx, _: following.ring_follow(fx),
            "news": following.ring_news,
            "amend": home.amendments.ring,
            "site": self._keeper.ring,
            "retire": self._keeper.ring_retire,
            "sweep": lambda fx, _: home.ring_sweep(fx),
            "rivals": lambda fx, _: home.ring_rivals(fx),
            "settings": lambda fx, _: self._shared.ring(fx),
            "tallies": home.quotas.ring,
            "spent": lambda fx, _: home.tell_spent(fx),
            "lease": home.ring_lease,
            "leases": lambda fx, _: node.ring_leases(fx),
            "drain": lambda fx, _: node.draining.ring(fx),
            "evicts": node.draining.ring_evicts,
            "giveways": node.yielding.ring,
            "handover": home.handovers.ring,
            "ripe": lambda _fx, _: node.yielding.changed(),
            "thaw": lambda fx, _: node.frost.look(fx),
            "preempts": self._leader.preemption.ring,
            "preempt": lambda fx, _: self._leader.ring_preempt(),
            "holding": node.ring_holding,
            "keep": node.ring_keep,
            "room": node.ring_room,
            "report": lambda fx, _: node.reporting.ring(fx),
        }

    def _ring_leader(self, fx: Effects, kind: str, detail: Any) -> None:
        match kind:
            case "elect":
                self._leader.ring_elect(fx)
            case "settle":
                self._leader.ring_settle(fx)
            case "order":
                self._leader.ring_order(fx, detail)
            case "holdings":
                self._leader.ring_holdings(fx, detail)
            case "gos":
                self._leader.ring_gos(fx, detail)
            case "tells":
                self._leader.ring_tells(fx, detail)
            case "pass":
                self._leader.ring_pass()
            case "holds":
                self._leader.ring_holds(fx)
            case "publish":
                self._leader.ring_publish(fx)
            case _:
                raise AssertionError(f"an alarm nobody owns: {kind}")

    # --- questions; none changes anything

    def job(self, job_id: int, first: int = 0, count: int | None = None) -> JobView:
        """Return a job of this home with `count` of its tasks from the `first`-th on; raises UnknownJob."""
        job = self._home.job(job_id)
        reason = "" if job.finished else self.explain(job_id).summary
        return view(job, self.node, reason, first, count)

    def jobs(self, owner: str | None = None) -> list[JobSummary]:
        """Return a line on each job of this home, oldest first; only `owner`'s if given."""
        return [summary(job, self.node) for job in self._home.jobs.values() if owner in (None, job.record.owner)]

    def amendment(self, job_id: int) -> AmendmentView:
        """Return how the last change of a job's limits goes, or went; raises NotPossible where there was none."""
        return self._home.amendments.outcome(job_id)

    def site(self, key: str, now: float) -> SiteView:
        """Return a site kept here; raises UnknownSite."""
        return self._keeper.view(key, now)

    def sites(self, now: float) -> list[SiteView]:
        """Return all sites kept here."""
        return [self._keeper.view(key, now) for key in self._keeper.names()]

    def sites_answering(self, host: str, now: float) -> list[SiteView]:
        """Return the sites kept here that answer for a host name."""
        return [self._keeper.view(key, now) for key in self._keeper.answering(host)]

    def keeps(self, key: str) -> bool:
        """Whether this node keeps a site."""
        return self._keeper.has(key)

    def keepings(self) -> list[Keeping]:
        """Return the sites kept here, for comparing with what another node keeps."""
        return self._keeper.keepings()

    def keepers(self) -> list[str]:
        """Return the nodes that sites may be kept by now."""
        return self._alive()

    def site_spec(self, key: str) -> Site:
        """Return what a site kept here is; raises UnknownSite."""
        return self._keeper.site(key)

    def job_state(self, job_id: int) -> State:
        """Return a job's state, at the cost of one look; raises UnknownJob."""
        return self._home.job(job_id).state

    def nodes(self) -> list[NodeStatus]:
        """Return all nodes this one has heard of, itself included, by name."""
        found = [NodeStatus(node.name, node.number, node.membership, node.report) for node in self._view.nodes()]
        return sorted(found, key=lambda each: each.name)

    def explain(self, job_id: int, now: float = inf) -> Explanation:
        """Say why a job of this home waits, or where and why it runs; raises UnknownJob."""
        job = self._home.job(job_id)
        if self._leader.leading:
            return explain(job, self._surveys, self._leader.position(job_id), self._leader.waiting, now)
        return explain(job, self._surveys, job.told.position, job.told.waiting, now)

    def waiting(self, now: float = 0.0) -> list[WaitingView]:
        """Return the leader's line in order, if this node leads; those set aside come last, with position -1."""
        return line_views.views(self._leader, now)

    def ended_tasks(self, owner: str | None, after: tuple[int, int], count: int) -> EndedPage:
        """Return a page of the ended tasks of this home, after that (job, index); only `owner`'s if given."""
        return EndedPage(self.node, *ended_tasks(self._home.jobs, owner, after, count))

    def snapshot(self, now: float, after: int, count: int) -> NodeSnapshot:
        """Return a page of what this node knows for good, from the jobs after that id on; `after` 0 is the first."""
        page = copy_jobs(self.node, self._wall.unix_s(now), self._home.jobs, after, count)
        if after:
            return page
        return copy_node(page, self._config, self._admission, self._shared.settings, self._home.usage, now)

    def usage(self) -> list[UsageRow]:
        """Return what this home's users used, by day."""
        return self._home.usage.rows()

    def usage_of_jobs(self) -> list[JobUsage]:
        """Return what each job that this home remembers used."""
        return list(self._home.usage.of_jobs(self._home.jobs))

    def settings(self) -> list[tuple[str, AnySetting]]:
        """Return the cluster's settings as this node knows them, by name."""
        return sorted((each.name, each.value) for each in self._shared.settings.entries() if each.value is not None)

    def allocations(self) -> list[Allocation]:
        """Return what this node holds and has not seen end: after a restart, the shell makes it so."""
        return [held.allocation for held in self._admission.held().values() if held.result is None]

    def frozen(self) -> dict[AllocationId, int]:
        """Return what this node froze for jobs of higher tiers, or is about to, and the jobs."""
        held = self._admission.held().items()
        return {id_: each.frozen_for.job for id_, each in held if each.frozen_for is not None}

    def validate(self, spec: JobSpec) -> None:
        """Raise InvalidSpec unless the spec could be taken."""
        validate(spec, self._config.spec_bytes_max)

    def forecast(self, owner: str, spec: JobSpec, now: float) -> Forecast:
        """Return what would become of this job; raises InvalidSpec unless it could be taken of this owner."""
        unix_s = self._wall.unix_s(now)
        spec = self.validate_for(owner, spec, unix_s)
        job = Job(JobRecord(0, owner, spec, unix_s), now)
        job.blocks = tuple(block for block, _ in self._rules.blocks(job, now))
        constraints = self._rules.constraints(spec, now)
        waiting = self._leader.waiting if self._leader.leading else self._home.lineup.waiting
        places = {}
        if not job.blocks and not waiting and spec.gang is None:
            places = self._view.place(spec.request, constraints, job.wanted, self._seed)
        in_s = None if job.blocks else start_in_s(spec, constraints, self._view, self._horizon, now)
        return Forecast(places, in_s, waiting, explain(job, self._surveys, -1, waiting))

    def validate_for(self, owner: str, spec: JobSpec, unix_s: float) -> JobSpec:
        """Return the job as it would be queued; raises InvalidSpec unless it could be taken of this owner."""
        self.validate(spec)
        return self._rules.applied(owner, spec, unix_s)

    def claims(self) -> list[str]:
        """Return what this node still claims on others without an answer, for those who look for leaks."""
        return self._view.claims()

    @property
    def leader(self) -> str:
        """The node that should keep the queue's order, as this node sees it."""
        return self._view.leader
