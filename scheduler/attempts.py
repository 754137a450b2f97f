"""The attempts of this home that are bound to a node: asked for, stopped, counted, until they are over.

Owns which attempt is bound to which node, the claims on this node's view, and what is said to nodes about attempts and
not answered yet. Does not know why an attempt is made or what its end means; that is dispatch.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from scheduler.alarms import Alarms
from scheduler.company import tagged
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.estimate import estimate_s
from scheduler.index import ClusterView
from scheduler.jobs import Job
from scheduler.lifecycle import Phase, phase_of
from scheduler.messages import BATCH_MAX, Admit, Census, Stop
from scheduler.model import AllocationId
from scheduler.repeat import Repeat


class Terms(NamedTuple):
    """How an attempt is asked for: the leader's order (0, 0: none) and rank, and what a gang needs to be told."""

    epoch: int = 0
    go: int = 0
    rank: tuple[float, ...] = ()
    reserve_s: float = 0.0
    gang_nodes: tuple[str, ...] = ()


NO_TERMS = Terms()


class Attempts:
    """Live attempts by node; `jobs` is the home's book, read only here."""

    def __init__(self, config: SchedulerConfig, view: ClusterView, alarms: Alarms, jobs: Mapping[int, Job]) -> None:
        self._config = config
        self._view = view
        self._alarms = alarms
        self._jobs = jobs
        self._by_node: dict[str, dict[AllocationId, None]] = {}
        self._terms: dict[AllocationId, Terms] = {}
        self._asks: Repeat[AllocationId] = Repeat(
            "asks", config, alarms, view.alive, self._speak_asks, config.quick_retry_s
        )
        self._musters: Repeat[AllocationId] = Repeat(
            "musters", config, alarms, view.alive, self._speak_asks, min(config.quick_retry_s, config.reserve_s / 10)
        )
        self._stops: Repeat[AllocationId] = Repeat(
            "stops", config, alarms, view.alive, self._speak_stops, config.quick_retry_s
        )

    def on_node(self, node: str) -> list[AllocationId]:
        """Return the live attempts bound to a node, oldest first."""
        return list(self._by_node.get(node, ()))

    def ask(self, fx: Effects, id_: AllocationId, node: str, terms: Terms = NO_TERMS) -> None:
        """Bind a durable attempt to a node and ask for it until the node answers."""
        self._bind(fx, id_, node)
        spec = self._jobs[id_.job].spec
        end_s = fx.now + estimate_s(spec, self._config)
        self._view.claim(("ask", id_), node, spec.request, end_s, tagged(id_.job, spec))
        self.ask_again(id_, node, terms)

    def ask_again(self, id_: AllocationId, node: str, terms: Terms) -> None:
        """Ask for a bound attempt on other terms: a reserved one is to start now."""
        if terms != NO_TERMS:
            self._terms[id_] = terms
        (self._musters if terms.reserve_s or terms.gang_nodes else self._asks).say(node, id_)

    def bind(self, fx: Effects, id_: AllocationId, node: str) -> None:
        """Bind an attempt that may be at the node already (after a restart), and ask the node for it."""
        self._bind(fx, id_, node)
        self._asks.say(node, id_)

    def _bind(self, fx: Effects, id_: AllocationId, node: str) -> None:
        self._by_node.setdefault(node, {})[id_] = None
        self._alarms.set_if_unset(("census", node), fx.now + self._config.census_interval_s)

    def answered(self, node: str, id_: AllocationId) -> None:
        """The node answered for it: its report speaks for it from now on."""
        self._asks.answered(node, id_)
        self._musters.answered(node, id_)
        self._view.release(("ask", id_))
        self._terms.pop(id_, None)

    def over(self, node: str, id_: AllocationId) -> None:
        """The attempt is over; nothing more is asked about it."""
        self.answered(node, id_)
        bound = self._by_node.get(node, {})
        bound.pop(id_, None)
        if not bound:
            self._by_node.pop(node, None)
            self._alarms.cancel(("census", node))

    def stop(self, node: str, id_: AllocationId) -> None:
        """Tell the node to stop it, until it says that it has ended or is not there."""
        self._stops.say(node, id_)

    def stopped(self, node: str, id_: AllocationId) -> None:
        """The node said so."""
        self._stops.answered(node, id_)

    # --- members and alarms

    def on_up(self, fx: Effects, node: str) -> None:
        """A node is back: repeat what it did not answer, ask what it has."""
        self._asks.back(node)
        self._musters.back(node)
        self._stops.back(node)
        if node in self._by_node:
            self._alarms.set(("census", node), fx.now)

    def on_lost(self, node: str) -> None:
        """A node is given up: what it was to stop, it will be told when it is back and shows what it holds."""
        self._stops.forget(node)

    def on_forgotten(self, node: str) -> None:
        """A node is gone for good."""
        self._asks.forget(node)
        self._musters.forget(node)
        self._stops.forget(node)

    def ring_asks(self, fx: Effects, node: str) -> None:
        """Repeat asks."""
        self._asks.ring(fx, node)

    def ring_musters(self, fx: Effects, node: str) -> None:
        """Repeat what was said to gather a gang."""
        self._musters.ring(fx, node)

    def ring_stops(self, fx: Effects, node: str) -> None:
        """Repeat stops."""
        self._stops.ring(fx, node)

    def ring_census(self, fx: Effects, node: str) -> None:
        """Ask a node for what it admitted and should still hold."""
        if node not in self._by_node:
            return
        if self._view.alive(node):
            ids = [id_ for id_ in self._by_node[node] if self._phase(id_) is not Phase.ASKED]
            for start in range(0, len(ids), BATCH_MAX):
                fx.say(node, Census(tuple(ids[start : start + BATCH_MAX])))
        self._alarms.set(("census", node), fx.now + self._config.census_interval_s)

    def flush(self, fx: Effects) -> None:
        """At the end of an event: say what is fresh."""
        self._asks.flush(fx)
        self._musters.flush(fx)
        self._stops.flush(fx)

    # --- inside

    def _phase(self, id_: AllocationId) -> Phase:
        return phase_of(self._jobs[id_.job].tasks[id_.index])

    def _speak_asks(self, fx: Effects, node: str, ids: list[AllocationId]) -> None:
        """A job's spec travels once for all its tasks of the same order."""
        groups: dict[tuple[int, int, Terms], list[tuple[int, int]]] = {}
        for id_ in ids:
            boot_epoch = self._jobs[id_.job].tasks[id_.index].boot_epoch
            group = (id_.job, boot_epoch, self._terms.get(id_, NO_TERMS))
            groups.setdefault(group, []).append((id_.index, id_.attempt))
        for (job_id, boot_epoch, terms), tasks in groups.items():
            job = self._jobs[job_id]
            record, (epoch, go, rank, reserve_s, gang_nodes) = job.record, terms
            if job.spec.gang is not None and not reserve_s:
                gang_nodes = gang_nodes or _gang_nodes(job)
            for start in range(0, len(tasks), BATCH_MAX):
                batch = tuple(tasks[start : start + BATCH_MAX])
                order = Admit(
                    job_id, record.owner, record.spec, batch, boot_epoch, epoch, go, rank, reserve_s, gang_nodes
                )
                fx.say(node, order)

    def _speak_stops(self, fx: Effects, node: str, ids: list[AllocationId]) -> None:
        for id_ in ids:
            job = self._jobs.get(id_.job)
            leaving = job.task(id_.index).leaving if job is not None and job.current(id_, node) else ""
            fx.say(node, Stop(id_, leaving or "cancelled"))


def _gang_nodes(job: Job) -> tuple[str, ...]:
    """Where the members of a gang are bound, in the order of their ranks; () when some are not."""
    gang = job.spec.gang
    assert gang is not None
    nodes = tuple(job.task(first).node for first in range(0, gang.size, gang.tasks_per_node))
    return nodes if all(nodes) else ()
