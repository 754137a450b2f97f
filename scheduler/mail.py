"""What becomes of the messages of other nodes' machines, and of epochs, which nearly all of them carry.

Owns: which part gets which item. May not know: how they travel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scheduler.effects import Effects
from scheduler.events import (
    Received,
)
from scheduler.messages import (
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
    Parting,
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
)
from scheduler.parts import Parts


class Mail:
    """For the parts of one node."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._items = self._item_handlers()

    def received(self, fx: Effects, event: Received) -> None:
        size_max = self._parts.config.message_bytes_max
        for items in [decode(message, size_max) for message in (event.message, *event.more)]:
            for item in items:
                self._items[type(item)](fx, event.sender, item)

    def _item_handlers(self) -> dict[type[AnyItem], Callable[[Effects, str, Any], None]]:
        home, leader, node = self._parts.home, self._parts.leader, self._parts.admission
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
            SettingsAre: self._parts.shared.on_told,
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
            Parting: lambda fx, sender, item: leader.on_parting(fx, item),
            Declined: lambda fx, sender, item: leader.on_declined(item),
        }

    def _on_admit(self, fx: Effects, sender: str, item: Admit) -> None:
        if item.epoch:
            self.epoch(fx, item.epoch)
        self._parts.admission.on_admit(fx, sender, item)

    def _on_noted(self, fx: Effects, sender: str, item: Noted) -> None:
        if item.boot_epoch == self._parts.admission.reporting.boot_epoch:
            self._parts.admission.reporting.pushing.on_noted(sender, item.sequence)

    def _on_hold_room(self, fx: Effects, sender: str, item: HoldRoom) -> None:
        self.epoch(fx, item.epoch)
        if item.epoch == self._parts.admission.reporting.epoch:
            self._parts.admission.holds.on_hold(fx.now, item)
            fx.say(sender, HoldNoted(item.epoch, item.sequence, item.job))

    def _on_tell(self, fx: Effects, sender: str, item: Tell) -> None:
        self.epoch(fx, item.epoch)
        if sender == self._parts.view.leader:
            self._parts.admission.on_reign(fx, sender, item.epoch)
        self._parts.home.tell_spent(fx)
        self._parts.home.lineup.on_tell(fx, sender, item.epoch)

    def _on_fresh(self, fx: Effects, sender: str, item: Fresh) -> None:
        if item.report.node == sender:
            self._parts.view.hear(item.report)
            self._parts.horizon.heard(fx.now, item.report, pushed=True)
            if item.push:
                fx.say(sender, Noted(item.report.boot_epoch, item.report.sequence))
            self._parts.leader.on_epoch(fx, item.epoch)

    def epoch(self, fx: Effects, epoch: int) -> None:
        reporting = self._parts.admission.reporting
        reporting.epoch = max(reporting.epoch, epoch)
        self._parts.leader.on_epoch(fx, epoch)
