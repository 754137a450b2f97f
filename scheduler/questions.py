"""What one may ask one node's machine; no question changes anything."""

from __future__ import annotations

from math import inf

from scheduler import line_views
from scheduler.amendments import AmendmentView
from scheduler.ended import EndedPage, ended_tasks
from scheduler.explain import Explanation, explain
from scheduler.forecast import Forecast, start_in_s
from scheduler.jobs import Job
from scheduler.model import Allocation, AllocationId, JobRecord, JobSpec, State
from scheduler.parts import Parts
from scheduler.settings import AnySetting
from scheduler.sites.claims import Keeping
from scheduler.sites.site import Site, SiteView
from scheduler.snapshot import NodeSnapshot, copy_jobs, copy_node
from scheduler.usage import JobUsage, UsageRow
from scheduler.validate import validate
from scheduler.views import JobSummary, JobView, NodeStatus, WaitingView, summary, view


class Questions:
    """`seed`: draws among near-equal nodes where a job's place is forecast."""

    def __init__(self, parts: Parts, seed: int) -> None:
        self.parts = parts
        self._seed = seed

    def job(self, job_id: int, first: int = 0, count: int | None = None) -> JobView:
        """Return a job of this home with `count` of its tasks from the `first`-th on; raises UnknownJob."""
        job = self.parts.home.job(job_id)
        reason = "" if job.finished else self.explain(job_id).summary
        return view(job, self.parts.node, reason, first, count)

    def jobs(self, owner: str | None = None) -> list[JobSummary]:
        """Return a line on each job of this home, oldest first; only `owner`'s if given."""
        return [
            summary(job, self.parts.node) for job in self.parts.home.jobs.values() if owner in (None, job.record.owner)
        ]

    def amendment(self, job_id: int) -> AmendmentView:
        """Return how the last change of a job's limits goes, or went; raises NotPossible where there was none."""
        return self.parts.home.amendments.outcome(job_id)

    def site(self, key: str, now: float) -> SiteView:
        """Return a site kept here; raises UnknownSite."""
        return self.parts.keeper.view(key, now)

    def sites(self, now: float) -> list[SiteView]:
        """Return all sites kept here."""
        return [self.parts.keeper.view(key, now) for key in self.parts.keeper.names()]

    def sites_answering(self, host: str, now: float) -> list[SiteView]:
        """Return the sites kept here that answer for a host name."""
        return [self.parts.keeper.view(key, now) for key in self.parts.keeper.answering(host)]

    def keeps(self, key: str) -> bool:
        """Whether this node keeps a site."""
        return self.parts.keeper.has(key)

    def keepings(self) -> list[Keeping]:
        """Return the sites kept here, for comparing with what another node keeps."""
        return self.parts.keeper.keepings()

    def keepers(self) -> list[str]:
        """Return the nodes that sites may be kept by now."""
        return self.parts.alive()

    def site_spec(self, key: str) -> Site:
        """Return what a site kept here is; raises UnknownSite."""
        return self.parts.keeper.site(key)

    def job_state(self, job_id: int) -> State:
        """Return a job's state, at the cost of one look; raises UnknownJob."""
        return self.parts.home.job(job_id).state

    def nodes(self) -> list[NodeStatus]:
        """Return all nodes this one has heard of, itself included, by name."""
        found = [NodeStatus(node.name, node.number, node.membership, node.report) for node in self.parts.view.nodes()]
        return sorted(found, key=lambda each: each.name)

    def explain(self, job_id: int, now: float = inf) -> Explanation:
        """Say why a job of this home waits, or where and why it runs; raises UnknownJob."""
        return self.parts.explain(job_id, now)

    def waiting(self, now: float = 0.0) -> list[WaitingView]:
        """Return the leader's line in order, if this node leads; those set aside come last, with position -1."""
        return line_views.views(self.parts.leader, now)

    def ended_tasks(self, owner: str | None, after: tuple[int, int], count: int) -> EndedPage:
        """Return a page of the ended tasks of this home, after that (job, index); only `owner`'s if given."""
        return EndedPage(self.parts.node, *ended_tasks(self.parts.home.jobs, owner, after, count))

    def snapshot(self, now: float, after: int, count: int) -> NodeSnapshot:
        """Return a page of what this node knows for good, from the jobs after that id on; `after` 0 is the first."""
        page = copy_jobs(self.parts.node, self.parts.wall.unix_s(now), self.parts.home.jobs, after, count)
        if after:
            return page
        return copy_node(
            page, self.parts.config, self.parts.admission, self.parts.shared.settings, self.parts.home.usage, now
        )

    def usage(self) -> list[UsageRow]:
        """Return what this home's users used, by day."""
        return self.parts.home.usage.rows()

    def usage_of_jobs(self) -> list[JobUsage]:
        """Return what each job that this home remembers used."""
        return list(self.parts.home.usage.of_jobs(self.parts.home.jobs))

    def settings(self) -> list[tuple[str, AnySetting]]:
        """Return the cluster's settings as this node knows them, by name."""
        return sorted(
            (each.name, each.value) for each in self.parts.shared.settings.entries() if each.value is not None
        )

    def allocations(self) -> list[Allocation]:
        """Return what this node holds and has not seen end: after a restart, the shell makes it so."""
        return [held.allocation for held in self.parts.admission.held().values() if held.result is None]

    def frozen(self) -> dict[AllocationId, int]:
        """Return what this node froze for jobs of higher tiers, or is about to, and the jobs."""
        held = self.parts.admission.held().items()
        return {id_: each.frozen_for.job for id_, each in held if each.frozen_for is not None}

    def validate(self, spec: JobSpec) -> None:
        """Raise InvalidSpec unless the spec could be taken."""
        validate(spec, self.parts.config.spec_bytes_max)

    def forecast(self, owner: str, spec: JobSpec, now: float) -> Forecast:
        """Return what would become of this job; raises InvalidSpec unless it could be taken of this owner."""
        unix_s = self.parts.wall.unix_s(now)
        spec = self.validate_for(owner, spec, unix_s)
        job = Job(JobRecord(0, owner, spec, unix_s), now)
        job.blocks = tuple(block for block, _ in self.parts.rules.blocks(job, now))
        constraints = self.parts.rules.constraints(spec, now)
        waiting = self.parts.leader.waiting if self.parts.leader.leading else self.parts.home.lineup.waiting
        places = {}
        if not job.blocks and not waiting and spec.gang is None:
            places = self.parts.view.place(spec.request, constraints, job.wanted, self._seed)
        in_s = None if job.blocks else start_in_s(spec, constraints, self.parts.view, self.parts.horizon, now)
        return Forecast(places, in_s, waiting, explain(job, self.parts.surveys, -1, waiting))

    def validate_for(self, owner: str, spec: JobSpec, unix_s: float) -> JobSpec:
        """Return the job as it would be queued; raises InvalidSpec unless it could be taken of this owner."""
        self.validate(spec)
        return self.parts.rules.applied(owner, spec, unix_s)

    def claims(self) -> list[str]:
        """Return what this node still claims on others without an answer, for those who look for leaks."""
        return self.parts.view.claims()

    @property
    def leader(self) -> str:
        """The node that should keep the queue's order, as this node sees it."""
        return self.parts.view.leader
