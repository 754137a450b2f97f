"""Who carries out which action of the scheduling machine: the switchboard between Effects and the rest of the node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from node.allocations import Allocations
from node.door.opening import NodeSites
from node.effects import Effects
from node.home import Home
from node.outbox import Outbox
from scheduler.events import (
    Action,
    AmendContainer,
    FreezeContainer,
    JobChanged,
    Publish,
    RemoveContainer,
    RenewLease,
    Send,
    StartContainer,
    StopContainer,
    ThawContainer,
)


@dataclass(slots=True)
class Hands:
    """Who carries out which action of the machine."""

    effects: Effects
    allocations: Allocations
    home: Home
    outbox: Outbox
    publish: Callable[[str, bytes, bool], None]
    sites: NodeSites

    def perform(self, action: Action) -> None:
        """Carry out one action; everything slow goes on in the background."""
        match action:
            case Send():
                self.outbox.send(action.to, action.message)
            case StartContainer():
                self.allocations.start(action.allocation, action.lease_until_s)
            case RenewLease():
                self.allocations.renew(action.id, action.until_s)
            case AmendContainer():
                self.allocations.change(action.allocation, action.revision)
            case FreezeContainer() | ThawContainer():
                self.allocations.freezer.perform(action)
            case StopContainer():
                self.allocations.stop(action.id, action.grace_s, action.why)
            case RemoveContainer():
                self.allocations.remove(action.id)
            case Publish():
                self.publish(action.key, action.value, action.load)
            case JobChanged():
                self.home.changed(action.job_id)
            case _:
                self.sites.perform(action)
