"""The leader's line as users see it. A pure reading."""

from __future__ import annotations

from scheduler.leader import Leader
from scheduler.views import WaitingView


def views(leader: Leader, now: float) -> list[WaitingView]:
    """Return the waiting jobs in order, if this node leads; those set aside come last, with position -1."""
    starts_s = leader.starts_s()
    return [
        WaitingView(
            job=job_id,
            home=entry.home,
            wanted=entry.wait.wanted * (entry.wait.nodes or 1) * entry.wait.per_node,
            priority=entry.wait.priority,
            position=leader.position(job_id),
            owner=entry.wait.owner,
            account=entry.wait.account,
            waiting_s=max(0.0, now - entry.wish.rank.since_s),
            quota=leader.waitlist.quota_of(job_id),
            start_in_s=max(0.0, starts_s[job_id] - now) if job_id in starts_s else None,
            making_room=leader.preemption.nodes(job_id),
        )
        for job_id, entry in leader.waitlist.in_order()
    ]
