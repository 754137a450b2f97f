"""Which parts hear of an event, and in which order.

Owns: the order, for what one part learns another may need. May not know: what they make of it.
"""

from __future__ import annotations

from scheduler import images
from scheduler.effects import Effects
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
from scheduler.index import Membership
from scheduler.mail import Mail
from scheduler.messages import (
    REPORT_KEY,
    decode_leads,
    decode_report,
)
from scheduler.parts import Parts
from scheduler.settings_exchange import GOSSIP_KEY


class Routing:
    """For the parts of one node."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._mail = Mail(parts)

    def event(self, fx: Effects, event: Event) -> None:
        match event:
            case Received():
                self._mail.received(fx, event)
            case Heard():
                self._heard(fx, event)
            case Submit() | SubmitAll() | Cancel() | Hold() | Release() | Requeue() | AmendJob():
                self._wish(fx, event)
            case ContainerStarted() | ContainerCondition() | ContainerEnded() | ContainerChanged():
                self._container(fx, event)
            case ContainerFrozen() | ContainerThawed():
                self._parts.admission.on_frost(fx, event)
            case Measured():
                self._parts.admission.reporting.measure(event)
            case Accepting() | Drain() | SetSetting():
                self._operator(fx, event)
            case MemberUp() | MemberDown() | MemberFailed() | MemberLeft():
                self._member(fx, event)
            case MemberForgotten():
                self._forget(fx, event.node)
            case HomeUntil():
                self._parts.home.leases.home_until_s = event.until_s
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
                self._parts.admission.on_started(fx, event)
            case ContainerCondition():
                self._parts.admission.on_condition(fx, event)
            case ContainerEnded():
                self._parts.admission.on_ended(fx, event)
            case ContainerChanged():
                self._parts.admission.amendments.on_changed(fx, event)

    def _site(self, fx: Effects, event: SiteEvent) -> None:
        """What doors and shell say of the sites kept here."""
        keeper = self._parts.keeper
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

    def _wish(self, fx: Effects, event: Submit | SubmitAll | Cancel | Hold | Release | Requeue | AmendJob) -> None:
        """What users ask of their jobs' home."""
        match event:
            case Submit():
                fx.answer = self._parts.home.on_submit(fx, event)
            case SubmitAll():
                fx.answer = self._parts.home.on_submit_all(fx, event.jobs)
            case Cancel():
                self._parts.home.on_cancel(fx, event)
            case Hold():
                self._parts.home.on_hold(fx, event)
            case Release():
                self._parts.home.on_release(fx, event)
            case Requeue():
                self._parts.home.moves.on_requeue(fx, self._parts.home.job(event.job_id))
            case AmendJob():
                fx.answer = self._parts.home.on_amend_job(fx, event)

    def _operator(self, fx: Effects, event: Accepting | Drain | SetSetting) -> None:
        """What operators ask of this node, or through it of the cluster."""
        match event:
            case Accepting():
                self._parts.admission.draining.on_accepting(fx, event)
            case Drain():
                self._parts.admission.draining.on_drain(fx, event)
            case SetSetting():
                self._parts.shared.on_set(fx, event)

    def _member(self, fx: Effects, event: MemberUp | MemberDown | MemberFailed | MemberLeft) -> None:
        if event.node == self._parts.node:
            return
        if isinstance(event, MemberUp):
            self._parts.view.heard_of(event.node, Membership.ALIVE, event.number)
            self._parts.leader.on_home_up(fx, event.node)
            self._parts.home.on_up(fx, event.node)
            self._parts.admission.on_up(fx, event.node)
        else:
            self._away(fx, event)
        self._parts.leader.on_members(fx)
        self._parts.keeper.on_members(fx)
        if not isinstance(event, MemberUp):
            self._parts.keeper.on_door_gone(event.node)

    def _away(self, fx: Effects, event: MemberDown | MemberFailed | MemberLeft) -> None:
        match event:
            case MemberDown():
                self._parts.view.heard_of(event.node, Membership.DOWN)
                self._parts.home.on_down(fx, event.node)
            case MemberFailed():
                self._parts.view.heard_of(event.node, Membership.FAILED)
                self._parts.home.on_gone_away(fx, event.node, self._parts.config.lost_grace_s)
            case MemberLeft():
                self._parts.view.heard_of(event.node, Membership.LEFT)
                self._parts.home.on_gone_away(fx, event.node, self._parts.config.left_grace_s)
        self._parts.leader.on_home_away(fx, event.node)
        self._parts.admission.holds.on_away(event.node)

    def _forget(self, fx: Effects, node: str) -> None:
        """Gossip has forgotten a node for good, and so do we, once no task of ours is bound to it."""
        if node != self._parts.node and not self._parts.view.alive(node):
            self._parts.home.on_forgotten(fx, node)
            self._parts.leader.on_forgotten(node)
            self._parts.admission.on_forgotten(node)
            self._parts.view.forget(node)
            self._parts.horizon.forget(node)

    def _heard(self, fx: Effects, event: Heard) -> None:
        if event.key == images.KEY:
            self._parts.view.hear_images(event.node, images.decode(event.value))
            return
        if event.node == self._parts.node:
            return
        if event.key == REPORT_KEY:
            report = decode_report(event.value)
            if report.node != event.node:
                raise BadMessage(f"{event.node} published a report of {report.node}")
            self._parts.view.hear(report)
            self._parts.horizon.heard(fx.now, report, pushed=False)
        elif event.key == GOSSIP_KEY:
            self._parts.shared.on_heard(fx, event.node, event.value)
        elif event.key == "leader":
            leads = decode_leads(event.value)
            self._mail.epoch(fx, leads.epoch)
            self._parts.home.lineup.on_leads(event.node, leads)
