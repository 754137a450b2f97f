"""Who hears which alarm: one table for all parts of one node's machine.

Alarms are named by kind and detail (`alarms.py`); a kind that is not here is a bug of whoever set it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scheduler.effects import Effects
from scheduler.parts import Parts


def handlers(parts: Parts) -> dict[str, Callable[[Effects, Any], None]]:
    """Return what each alarm, by its kind, is to be given to, with its detail."""
    home, leader, node, following = parts.home, parts.leader, parts.admission, parts.home.gate.following
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
        "site": parts.keeper.ring,
        "retire": parts.keeper.ring_retire,
        "sweep": lambda fx, _: home.ring_sweep(fx),
        "rivals": lambda fx, _: home.ring_rivals(fx),
        "settings": lambda fx, _: parts.shared.ring(fx),
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
        "preempts": leader.preemption.ring,
        "preempt": lambda _fx, _: leader.ring_preempt(),
        "elect": lambda fx, _: leader.ring_elect(fx),
        "settle": lambda fx, _: leader.ring_settle(fx),
        "order": leader.ring_order,
        "holdings": leader.ring_holdings,
        "gos": leader.ring_gos,
        "tells": leader.ring_tells,
        "pass": lambda _fx, _: leader.ring_pass(),
        "holds": lambda fx, _: leader.ring_holds(fx),
        "publish": lambda fx, _: leader.ring_publish(fx),
        "holding": node.ring_holding,
        "keep": node.ring_keep,
        "room": node.ring_room,
        "report": lambda fx, _: node.reporting.ring(fx),
    }
