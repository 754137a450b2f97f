"""What a keeper remembers of one site, and what it needs of the home beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from scheduler.effects import Effects
from scheduler.events import Cancel, SiteChanged, Submit
from scheduler.explain import Explanation
from scheduler.jobs import Job
from scheduler.lifecycle import Phase, phase_of
from scheduler.model import NOWHERE, AllocationId, Reach
from scheduler.sites.site import Site, SitePhase, SiteRecord
from scheduler.spec.networking import Protocol

UP = (SitePhase.STARTING, SitePhase.AWAKE, SitePhase.FREEZING, SitePhase.FROZEN, SitePhase.THAWING)
"""Phases in which a site has a container that is to stay, or gets one."""


@dataclass(slots=True)
class Kept:
    """A site kept here. `wanted`: somebody asked for it while it could not be given; `open`: connections by door.

    `next_job` runs up to take the place of `job`; `retired` are those whose place was taken, until requests that are
    under way have ended. `probed` are the attempts that are being asked whether they answer. Of the ends of its job's
    containers the first `forgiven` do not count, for it answered after them.
    """

    site: Site
    fingerprint: int = 0
    revision: int = 0
    phase: SitePhase = SitePhase.ASLEEP
    job: int = 0
    attempt: int = 0
    forgiven: int = 0
    next_job: int = 0
    retired: tuple[int, ...] = ()
    probed: tuple[AllocationId, ...] = ()
    used_s: float = 0.0
    woken_unix_s: float = 0.0
    busy_until_s: float = 0.0
    open: Counter[str] = field(default_factory=Counter)
    wanted: bool = False
    unfreezable: bool = False
    failures: int = 0
    broken_until_s: float = 0.0
    reason: str = ""

    def changed(self, fx: Effects, *, everywhere: bool = False) -> None:
        """Tell those who wait for it, and doors."""
        self.revision += 1
        fx.act(SiteChanged(self.site.key, everywhere))

    def record(self) -> SiteRecord:
        """Return the row of the ledger."""
        frozen = self.phase in (SitePhase.FREEZING, SitePhase.FROZEN, SitePhase.THAWING)
        return SiteRecord(self.site, self.job, frozen, self.next_job, self.retired, self.woken_unix_s)


@dataclass(frozen=True, slots=True)
class Jobs:
    """What the keeper needs of this node's home. `explain` says of a job that is there why it waits."""

    submit: Callable[[Effects, Submit], int]
    cancel: Callable[[Effects, Cancel], None]
    get: Callable[[int], Job | None]
    explain: Callable[[int], Explanation]

    def end(self, fx: Effects, *ids: int) -> None:
        """Cancel those of these jobs that have not ended; 0 is none."""
        for id_ in ids:
            job = self.get(id_) if id_ else None
            if job is not None and not job.finished:
                self.cancel(fx, Cancel(id_, 0.0))

    def runs(self, id_: int) -> Job | None:
        """Return the job if its container runs and it is known where it is reached."""
        job = self.get(id_) if id_ else None
        known = job is not None and phase_of(job.task(0)) is Phase.RUNNING and 0 in job.reach
        return job if known else None


def address_of(reach: Reach, port: int) -> tuple[str, int]:
    """Return where a container's port is reached from any node: at its node where it is published, else at its own."""
    if reach.host:
        published = [host_port for protocol, host_port, own in reach.ports if (protocol, own) == (Protocol.TCP, port)]
        if published or not reach.addresses:
            return reach.host, (published or [port])[0]
    return (reach.addresses[0] if reach.addresses else ""), port


def place_of(job: Job | None, port: int) -> tuple[str, str, int]:
    """Return node, address and port of a site's running container, the first two empty while there is none."""
    if job is None:
        return "", "", port
    return (job.task(0).node, *address_of(job.reach.get(0, NOWHERE), port))
