"""The keeper of sites: starts the container of a site when it is wanted, freezes and stops it when it is not.

A part of one node's scheduling machine, beside the home whose jobs it submits and cancels: a site's row and its job are
written together, so a hundred requests at once start one container, and a crash in between forgets neither. Owns the
phases of the sites kept here. Does not know requests, connections or addresses of doors: those who forward say how many
connections they have and when there was last one.

A container that fails again and again before anybody could use it opens a circuit breaker (Nygard, Release It!, 2007):
for a while nobody is kept waiting for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.errors import NotPossible, Overloaded, SchedulerError, UnknownSite
from scheduler.events import Cancel, FreezeTask, SiteChanged, SiteMoved, SiteUsed, SiteWanted, Submit, ThawTask
from scheduler.jobs import Job
from scheduler.lifecycle import Phase, phase_of
from scheduler.model import AllocationId
from scheduler.records import SITES, Rows, read_table
from scheduler.sites.hashing import keeper_of
from scheduler.sites.site import Site, SitePhase, SiteRecord, SiteStep, SiteView, take

_encode = msgspec.msgpack.Encoder().encode
UP = (SitePhase.STARTING, SitePhase.AWAKE, SitePhase.FREEZING, SitePhase.FROZEN, SitePhase.THAWING)


@dataclass(slots=True)
class Kept:
    """A site kept here. `wanted`: somebody asked for it while it could not be given; `open`: connections by door."""

    site: Site
    phase: SitePhase = SitePhase.ASLEEP
    job: int = 0
    attempt: int = 0
    used_s: float = 0.0
    busy_until_s: float = 0.0
    open: Counter[str] = field(default_factory=Counter)
    wanted: bool = False
    unfreezable: bool = False
    failures: int = 0
    broken_until_s: float = 0.0
    reason: str = ""


class Jobs:
    """What the keeper needs of this node's home."""

    def __init__(
        self,
        submit: Callable[[Effects, Submit], int],
        cancel: Callable[[Effects, Cancel], None],
        get: Callable[[int], Job | None],
    ) -> None:
        self.submit = submit
        self.cancel = cancel
        self.get = get


class Keeper:
    """All sites kept by one node."""

    def __init__(
        self,
        config: SchedulerConfig,
        alarms: Alarms,
        jobs: Jobs,
        me: str,
        members: Callable[[], list[str]],
        unix_s: Callable[[float], float],
    ) -> None:
        self._config = config
        self._alarms = alarms
        self._jobs = jobs
        self._me = me
        self._members = members
        self._unix_s = unix_s
        self._sites: dict[str, Kept] = {}
        self._by_job: dict[int, str] = {}

    # --- questions

    def view(self, key: str, now: float) -> SiteView:
        """Return a site kept here; raises UnknownSite."""
        kept = self._kept(key)
        node, address = self._reach(kept) if kept.phase is SitePhase.AWAKE else ("", "")
        site = kept.site
        return SiteView(
            key=key,
            owner=site.owner,
            phase=kept.phase,
            keeper=self._me,
            hosts=site.hosts,
            application=site.application,
            port=site.port,
            job=kept.job,
            node=node,
            address=address,
            weight=site.weight,
            reason=kept.reason,
            retry_s=max(0.0, kept.broken_until_s - now) if kept.phase is SitePhase.BROKEN else 0.0,
            idle_for_s=max(0.0, now - kept.used_s),
            open=kept.open.total(),
        )

    def names(self) -> Iterator[str]:
        """Yield the keys of all sites kept here."""
        yield from self._sites

    def site(self, key: str) -> Site:
        """Return what a site is; raises UnknownSite."""
        return self._kept(key).site

    def has(self, key: str) -> bool:
        """Whether a site is kept here."""
        return key in self._sites

    # --- beginning

    def restore(self, fx: Effects, rows: Rows) -> None:
        """Take over what the ledger remembers; jobs were restored before."""
        for record in read_table(rows, SITES, SiteRecord).values():
            kept = self._sites[record.site.key] = Kept(record.site, job=record.job, used_s=fx.now)
            job = self._jobs.get(record.job) if record.job else None
            if job is None or job.finished:
                kept.job = 0
                continue
            self._by_job[job.id] = record.site.key
            kept.phase = SitePhase.LEAVING if job.record.cancelled else SitePhase.STARTING
            kept.attempt = job.task(0).attempt
            if self._reach(kept)[1] and kept.phase is SitePhase.STARTING:
                # A container that was ordered to freeze may not have heard it: thawing one that runs does nothing.
                kept.phase = SitePhase.FROZEN if record.frozen else SitePhase.AWAKE
            self._arm(kept)

    # --- what doors say

    def on_wanted(self, fx: Effects, event: SiteWanted) -> SiteView:
        """Somebody asks for this site: give it, or begin to. Raises NotPossible, Overloaded, InvalidSpec."""
        site = event.site
        kept = self._sites.get(site.key)
        if kept is None:
            if len(self._sites) >= self._config.sites_max:
                raise Overloaded(f"this node keeps {self._config.sites_max} sites (sites_max); remove some")
            kept = Kept(site)
        elif kept.site.owner != site.owner:
            raise NotPossible(f"site {site.key} belongs to another user")
        asleep = kept.phase is SitePhase.ASLEEP or (kept.phase is SitePhase.BROKEN and fx.now >= kept.broken_until_s)
        if event.wake and asleep:
            self._wake(fx, kept, site)
        changed = kept.site != site or site.key not in self._sites or asleep
        kept.site, kept.used_s = site, fx.now
        self._sites[site.key] = kept
        if event.wake and kept.phase is SitePhase.FROZEN:
            self._thaw(fx, kept)
        elif event.wake and kept.phase in (SitePhase.FREEZING, SitePhase.LEAVING):
            kept.wanted = True
        if changed:
            self._write(fx, kept)
        self._arm(kept)
        return self.view(site.key, fx.now)

    def on_used(self, fx: Effects, event: SiteUsed) -> None:
        """A door tells how many connections to a site it has, and how long ago the last one was used."""
        kept = self._sites.get(event.key)
        if kept is None:
            return
        if event.open:
            kept.open[event.door] = event.open
        else:
            kept.open.pop(event.door, None)
        kept.used_s = max(kept.used_s, fx.now - event.age_s)
        kept.busy_until_s = max(kept.busy_until_s, fx.now + event.busy_s)
        kept.failures = 0
        self._arm(kept)

    def on_door_gone(self, door: str) -> None:
        """A door's node is away: nobody tells of its connections any more, so they do not count."""
        for kept in self._sites.values():
            if kept.open.pop(door, None):
                self._arm(kept)

    def on_unready(self, fx: Effects, key: str, why: str) -> None:
        """A door waited in vain for a site that runs to answer."""
        kept = self._sites.get(key)
        if kept is not None and kept.phase in (SitePhase.AWAKE, SitePhase.STARTING):
            kept.phase = SitePhase.STARTING
            self._break(fx, kept, why)

    def on_drop(self, fx: Effects, key: str, *, moved: bool = False) -> None:
        """Forget a site, and end its container; raises UnknownSite. One that moved but was woken since stays."""
        kept = self._kept(key)
        if moved and kept.phase is not SitePhase.ASLEEP:
            return
        if kept.job:
            self._by_job.pop(kept.job, None)
            self._jobs.cancel(fx, Cancel(kept.job, 0.0))
        self._alarms.cancel(("site", key))
        del self._sites[key]
        fx.delete(SITES, key)
        fx.act(SiteChanged(key))

    # --- what containers do

    def on_frozen(self, fx: Effects, key: str, job: int, worked: bool) -> None:
        """The container of this job was frozen, or can't be."""
        kept = self._sites.get(key)
        if kept is None or kept.job != job or kept.phase is not SitePhase.FREEZING:
            return
        kept.unfreezable = not worked
        self._step(fx, kept, SiteStep.FROZE if worked else SiteStep.FAILED_TO_FREEZE)
        if kept.wanted and worked:
            self._thaw(fx, kept)
        self._arm(kept)

    def on_thawed(self, fx: Effects, key: str, job: int) -> None:
        """The container of this job goes on."""
        kept = self._sites.get(key)
        if kept is not None and kept.job == job and kept.phase is SitePhase.THAWING:
            self._step(fx, kept, SiteStep.THAWED)
            self._write(fx, kept)
            self._arm(kept)

    def on_job(self, fx: Effects, job_id: int) -> None:
        """A job changed: if it is a site's, so may have its site."""
        key = self._by_job.get(job_id)
        if key is None:
            return
        kept, job = self._sites[key], self._jobs.get(job_id)
        if job is None or job.finished:
            self._ended(fx, kept, job)
            return
        task = job.task(0)
        if phase_of(task) is Phase.RUNNING and self._reach(kept)[1]:
            kept.attempt = task.attempt
            if kept.phase is SitePhase.STARTING:
                self._step(fx, kept, SiteStep.READY)
                kept.used_s = fx.now
                self._arm(kept)
        elif task.attempt != kept.attempt or phase_of(task) is not Phase.RUNNING:
            self._restarted(fx, kept, job)

    def ring(self, fx: Effects, key: str) -> None:
        """A site's time is up: freeze it, or stop it; one that sleeps goes to the node that should keep it."""
        kept = self._sites.get(key)
        if kept is None:
            return
        idle_s = fx.now - kept.used_s
        if kept.phase is SitePhase.AWAKE and idle_s >= kept.site.idle_s and not kept.unfreezable:
            self._freeze(fx, kept)
        elif kept.phase in (SitePhase.AWAKE, SitePhase.FROZEN) and idle_s >= kept.site.idle_s + kept.site.frozen_s:
            self._stop(fx, kept)
        elif kept.phase is SitePhase.ASLEEP:
            self._hand_over(fx, kept)
        self._arm(kept)

    def on_members(self, fx: Effects) -> None:
        """Who keeps what may have changed: sites that sleep move to their new keepers, a few at a time."""
        for number, (key, kept) in enumerate(self._sites.items()):
            if kept.phase is SitePhase.ASLEEP:
                self._alarms.set_if_unset(("site", key), fx.now + self._config.settle_s + number / 100)

    # --- steps

    def _wake(self, fx: Effects, kept: Kept, site: Site) -> None:
        """Submit the site's job; raises with nothing changed."""
        up = sum(each.phase in UP for each in self._sites.values() if each.site.owner == site.owner)
        if up >= self._config.sites_up_per_owner_max:
            raise Overloaded(
                f"{site.owner} has {up} sites up here (sites_up_per_owner_max); one of them must sleep before this one"
            )
        kept.job = self._jobs.submit(fx, Submit(site.owner, site.spec, self._unix_s(fx.now)))
        kept.attempt, kept.unfreezable, kept.wanted, kept.reason = 0, False, False, ""
        self._by_job[kept.job] = site.key
        if kept.phase is SitePhase.BROKEN:
            self._step(fx, kept, SiteStep.MEND)
        self._step(fx, kept, SiteStep.START)

    def _freeze(self, fx: Effects, kept: Kept) -> None:
        self._step(fx, kept, SiteStep.FREEZE)
        kept.wanted = False
        self._write(fx, kept)
        node = self._reach(kept)[0]
        fx.act(FreezeTask(kept.site.key, AllocationId(kept.job, 0, kept.attempt), node))

    def _thaw(self, fx: Effects, kept: Kept) -> None:
        self._step(fx, kept, SiteStep.THAW)
        kept.wanted = False
        node = self._reach(kept)[0]
        fx.act(ThawTask(kept.site.key, AllocationId(kept.job, 0, kept.attempt), node))

    def _stop(self, fx: Effects, kept: Kept) -> None:
        self._step(fx, kept, SiteStep.STOP)
        kept.wanted = False
        self._jobs.cancel(fx, Cancel(kept.job, 0.0))

    def _break(self, fx: Effects, kept: Kept, why: str) -> None:
        """Nobody is kept waiting for it for a while, twice as long each time."""
        kept.failures += 1
        pause_s = self._config.site_break_s * 2.0 ** min(kept.failures - 1, 10)
        kept.broken_until_s = fx.now + min(pause_s, self._config.site_break_max_s)
        kept.reason = why
        self._step(fx, kept, SiteStep.BREAK)
        job, kept.job = kept.job, 0
        self._by_job.pop(job, None)
        self._jobs.cancel(fx, Cancel(job, 0.0))
        self._write(fx, kept)

    def _restarted(self, fx: Effects, kept: Kept, job: Job) -> None:
        """Its container is gone, and its home starts another: it can't be used until then."""
        if kept.phase in (SitePhase.AWAKE, SitePhase.FREEZING, SitePhase.FROZEN, SitePhase.THAWING):
            self._step(fx, kept, SiteStep.LOSE)
            kept.attempt = job.task(0).attempt
            self._write(fx, kept)
        if kept.phase is SitePhase.STARTING and job.task(0).tries >= self._config.site_tries_max:
            self._break(fx, kept, job.task(0).reason or "its container does not stay up")

    def _ended(self, fx: Effects, kept: Kept, job: Job | None) -> None:
        self._by_job.pop(kept.job, None)
        kept.job = 0
        if kept.phase is SitePhase.STARTING:
            kept.reason = job.task(0).reason if job is not None else "its job is gone"
        self._step(fx, kept, SiteStep.ENDED)
        kept.open.clear()
        self._write(fx, kept)
        self._alarms.set(("site", kept.site.key), fx.now)

    def _hand_over(self, fx: Effects, kept: Kept) -> None:
        if kept.wanted:
            kept.wanted = False
            self._wake_again(fx, kept)
            return
        keeper = keeper_of(kept.site.key, self._members())
        if keeper != self._me:
            fx.act(SiteMoved(kept.site, keeper))

    def _wake_again(self, fx: Effects, kept: Kept) -> None:
        """Somebody asked while its container was ending."""
        try:
            self._wake(fx, kept, kept.site)
        except SchedulerError as error:
            kept.reason = str(error)
            fx.act(SiteChanged(kept.site.key))
        else:
            self._write(fx, kept)

    # --- inside

    def _kept(self, key: str) -> Kept:
        kept = self._sites.get(key)
        if kept is None:
            raise UnknownSite(f"no site {key} at this node")
        return kept

    def _reach(self, kept: Kept) -> tuple[str, str]:
        """Return the node and the address of a site's running container, both empty while there is none."""
        job = self._jobs.get(kept.job) if kept.job else None
        if job is None or phase_of(job.task(0)) is not Phase.RUNNING:
            return "", ""
        reach = job.reach.get(0)
        return job.task(0).node, reach.addresses[0] if reach is not None and reach.addresses else ""

    def _step(self, fx: Effects, kept: Kept, step: SiteStep) -> None:
        kept.phase = take(kept.phase, step)
        fx.act(SiteChanged(kept.site.key))

    def _arm(self, kept: Kept) -> None:
        """Ring when the next of its times is up, if nobody uses it until then."""
        key = ("site", kept.site.key)
        site = kept.site
        if site.always_on or kept.open or kept.phase not in (SitePhase.AWAKE, SitePhase.FROZEN):
            if kept.phase is not SitePhase.ASLEEP:
                self._alarms.cancel(key)
            return
        frozen = kept.phase is SitePhase.FROZEN or kept.unfreezable
        due_s = kept.used_s + site.idle_s + (site.frozen_s if frozen else 0.0)
        self._alarms.set(key, max(due_s, kept.busy_until_s))

    def _write(self, fx: Effects, kept: Kept) -> None:
        frozen = kept.phase in (SitePhase.FREEZING, SitePhase.FROZEN, SitePhase.THAWING)
        fx.put(SITES, kept.site.key, _encode(SiteRecord(kept.site, kept.job, frozen)))
