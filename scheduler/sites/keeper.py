"""The keeper of sites: starts the container of a site when it is wanted, freezes and stops it when it is not.

A part of one node's scheduling machine, beside the home whose jobs it submits and cancels: a site's row and its job are
written together, so a hundred requests at once start one container, and a crash in between forgets neither. Owns the
phases of the sites kept here. Does not know requests, connections or addresses of doors: those who forward say how many
connections they have and when there was last one.

A container that fails again and again before anybody could use it opens a circuit breaker (Nygard, Release It!, 2007):
for a while nobody is kept waiting for it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence

import msgspec

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.errors import NotPossible, Overloaded, SchedulerError, UnknownSite
from scheduler.events import (
    FreezeTask,
    ProbeSite,
    SiteMoved,
    SiteReady,
    SitesElsewhere,
    SiteUnready,
    SiteUsed,
    SiteWanted,
    Submit,
    ThawTask,
)
from scheduler.jobs import Job
from scheduler.lifecycle import Phase, phase_of
from scheduler.model import AllocationId
from scheduler.records import SITES, Rows, read_table
from scheduler.sites.claims import Keeping, outdone
from scheduler.sites.hashing import keeper_of
from scheduler.sites.kept import UP, Jobs, Kept, address_of, place_of
from scheduler.sites.site import Site, SitePhase, SiteRecord, SiteStep, SiteView, take
from scheduler.sites.succession import Succession

OTHER_WISHES_MAX = 3
"""After so many failures in a row even a changed wish waits for the circuit breaker's pause."""

_encode = msgspec.msgpack.Encoder().encode

BOUND = (Phase.ASKED, Phase.ADMITTED, Phase.RUNNING)
"""After a restart of its home a task that runs is one of these, until its node has said so anew."""


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
        self._by_host: dict[str, set[str]] = {}
        self._succession = Succession(config, alarms, jobs, self._by_job, unix_s)

    # --- questions

    def view(self, key: str, now: float) -> SiteView:
        """Return a site kept here; raises UnknownSite."""
        kept = self._kept(key)
        site, awake, broken = kept.site, kept.phase is SitePhase.AWAKE, kept.phase is SitePhase.BROKEN
        node, address, port = place_of(self._jobs.get(kept.job) if awake else None, site.port)
        why, hopeless, failing = self._why_not_yet(kept)
        return SiteView(
            key=key,
            owner=site.owner,
            phase=kept.phase,
            keeper=self._me,
            hosts=site.hosts,
            application=site.application,
            port=port,
            job=kept.job,
            node=node,
            address=address,
            weight=site.weight,
            reason=kept.reason or why,
            retry_s=max(0.0, kept.broken_until_s - now) if broken else 0.0,
            idle_for_s=max(0.0, now - kept.used_s),
            open=kept.open.total(),
            fingerprint=kept.fingerprint,
            revision=kept.revision,
            hopeless=hopeless,
            failing=failing,
        )

    def names(self) -> Iterator[str]:
        """Yield the keys of all sites kept here."""
        yield from self._sites

    def answering(self, host: str) -> list[str]:
        """Return the keys of those that answer for a host name."""
        return sorted(self._by_host.get(host, ()))

    def site(self, key: str) -> Site:
        """Return what a site is; raises UnknownSite."""
        return self._kept(key).site

    def has(self, key: str) -> bool:
        """Whether a site is kept here."""
        return key in self._sites

    def keepings(self) -> list[Keeping]:
        """Return all sites kept here, for comparing with another keeper's."""
        return [_keeping(kept) for kept in self._sites.values()]

    # --- beginning

    def restore(self, fx: Effects, rows: Rows) -> None:
        """Take over what the ledger remembers; jobs were restored before."""
        for record in read_table(rows, SITES, SiteRecord).values():
            kept = Kept(record.site, job=record.job, next_job=record.next_job, retired=record.retired)
            kept.used_s, kept.woken_unix_s, kept.revision = fx.now, record.woken_unix_s, self._revision(fx)
            self._keep(kept)
            self._restore_jobs(fx, kept, record)
            if kept.phase is SitePhase.ASLEEP and kept.site.always_on:
                kept.wanted = True
                self._alarms.set(("site", kept.site.key), fx.now)
            self._arm(kept)

    def _restore_jobs(self, fx: Effects, kept: Kept, record: SiteRecord) -> None:
        for retired in kept.retired:
            self._succession.retire(fx, kept, retired)
        following = self._jobs.get(kept.next_job) if kept.next_job else None
        if following is None or following.finished:
            kept.next_job = 0
        else:
            self._by_job[following.id] = kept.site.key
        job = self._jobs.get(kept.job) if kept.job else None
        if job is None or job.finished:
            kept.job = 0
            return
        self._by_job[job.id] = kept.site.key
        kept.attempt, kept.forgiven = job.task(0).attempt, job.task(0).tries
        kept.phase = SitePhase.LEAVING if job.record.cancelled else SitePhase.STARTING
        if phase_of(job.task(0)) is not Phase.WAITING and record.frozen and kept.phase is SitePhase.STARTING:
            # That it ran need not have been written. It may not have heard the order to freeze: thawing one that runs
            # does nothing, while probing one that stands would find a port that takes connections, and no answer.
            kept.phase = SitePhase.FROZEN
        elif kept.phase is SitePhase.STARTING:
            self._probe(fx, kept, job.id)

    # --- what doors say

    def on_wanted(self, fx: Effects, event: SiteWanted) -> SiteView:
        """Somebody asks for this site: give it, or begin to. Raises NotPossible, Overloaded, InvalidSpec."""
        site = event.site
        kept = self._sites.get(site.key)
        known = kept is not None
        if kept is None:
            self._require_room(site)
            kept = Kept(site, revision=self._revision(fx))
        elif kept.site.owner != site.owner:
            raise NotPossible(f"site {site.key} belongs to another user")
        else:
            site = site.gathering(kept.site)
        wake = event.wake or site.always_on
        asleep = kept.phase is SitePhase.ASLEEP or (kept.phase is SitePhase.BROKEN and self._may_try(fx, kept, site))
        if wake and asleep:
            self._wake(fx, kept, site)
        elif kept.phase is SitePhase.STARTING and kept.site.spec != site.spec:
            self._begin_anew(fx, kept, site)
        changed = kept.site != site or not known
        if changed and known:
            self._drop_hosts(kept.site)
        kept.site, kept.used_s = site, fx.now
        if changed:
            self._keep(kept)
        if wake and kept.phase is SitePhase.FROZEN:
            self._thaw(fx, kept)
        elif wake and kept.phase in (SitePhase.FREEZING, SitePhase.LEAVING):
            kept.wanted = True
        if changed or asleep:
            self._write(fx, kept)
        if changed:
            kept.changed(fx, everywhere=True)
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

    def on_slept(self, fx: Effects, key: str) -> None:
        """Its owner wants its container to end; raises UnknownSite, NotPossible."""
        kept = self._kept(key)
        if kept.site.always_on:
            raise NotPossible(f"site {key} is always on; make it one that is not, or remove it")
        if kept.phase in UP:
            self._stop(fx, kept)
            self._arm(kept)

    def on_drop(self, fx: Effects, key: str, *, moved: bool = False) -> None:
        """Forget a site, and end its container; raises UnknownSite. One that moved but was woken since stays."""
        kept = self._kept(key)
        if moved and kept.phase is not SitePhase.ASLEEP:
            return
        self._by_job.pop(kept.job, None)
        self._jobs.end(fx, kept.job)
        self._succession.end_all(fx, kept)
        self._alarms.cancel(("site", key))
        self._drop_hosts(kept.site)
        del self._sites[key]
        fx.delete(SITES, key)
        kept.changed(fx, everywhere=True)

    def on_elsewhere(self, fx: Effects, event: SitesElsewhere) -> Sequence[Keeping]:
        """Another keeper tells what it keeps: return what both do, and give up what is the other's."""
        both = [other for other in event.kept if other.key in self._sites]
        mine = [_keeping(self._sites[other.key]) for other in both]
        for own, other in zip(mine, both, strict=True):
            if outdone(own, self._me, other, event.node):
                self.on_drop(fx, own.key)
        return mine

    # --- what containers do

    def on_ready(self, fx: Effects, event: SiteReady) -> None:
        """A container answers at its address."""
        kept = self._sites.get(event.key)
        if kept is None or event.id not in kept.probed:
            return
        kept.probed = tuple(each for each in kept.probed if each != event.id)
        job = self._jobs.runs(event.id.job)
        if job is None or job.task(0).attempt != event.id.attempt:
            return
        if event.id.job == kept.next_job:
            self._succession.take_over(fx, kept, event.id)
            self._write(fx, kept)
        if event.id.job == kept.job:
            kept.forgiven = job.task(0).tries
        if event.id.job == kept.job and kept.phase is SitePhase.STARTING:
            kept.reason = ""
            self._step(fx, kept, SiteStep.READY)
            kept.used_s = fx.now
        self._arm(kept)

    def on_unready(self, fx: Effects, event: SiteUnready) -> None:
        """A container did not answer in time; or a door found that one does no more, so it is tried again."""
        kept = self._sites.get(event.key)
        if kept is None:
            return
        if event.id is None:
            if kept.phase is SitePhase.AWAKE:
                self._step(fx, kept, SiteStep.LOSE)
                self._probe(fx, kept, kept.job)
        elif event.id in kept.probed:
            kept.probed = tuple(each for each in kept.probed if each != event.id)
            if event.id.job == kept.next_job:
                self._succession.give_up(fx, kept)
                self._write(fx, kept)
            elif event.id.job == kept.job and kept.phase is SitePhase.STARTING:
                self._break(fx, kept, event.why)
        self._arm(kept)

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
        """The container of this job goes on; after a restart it may not be known yet where it is reached."""
        kept = self._sites.get(key)
        if kept is not None and kept.job == job and kept.phase is SitePhase.THAWING:
            self._step(fx, kept, SiteStep.THAWED if self._jobs.runs(job) else SiteStep.LOSE)
            self._write(fx, kept)
            self._arm(kept)

    def on_job(self, fx: Effects, job_id: int) -> None:
        """A job changed: if it is a site's, so may have its site."""
        key = self._by_job.get(job_id)
        if key is None:
            return
        kept, job = self._sites[key], self._jobs.get(job_id)
        if job_id == kept.next_job:
            self._next_changed(fx, kept, job)
        elif job is None or job.finished:
            self._ended(fx, kept, job)
        elif self._jobs.runs(job_id):
            kept.attempt = job.task(0).attempt
            if kept.phase is SitePhase.STARTING:
                self._probe(fx, kept, job_id)
        elif job.task(0).attempt != kept.attempt or phase_of(job.task(0)) not in BOUND:
            self._restarted(fx, kept, job)

    def on_evict(self, fx: Effects, job_id: int) -> bool:
        """A container's node is drained: whether the keeper sees to it, so that it must not be stopped yet."""
        kept = self._sites.get(self._by_job.get(job_id, ""))
        if kept is None or job_id != kept.job or kept.phase is SitePhase.STARTING:
            return False
        if kept.phase in (SitePhase.AWAKE, SitePhase.THAWING):
            self._succession.begin(fx, kept)
            self._write(fx, kept)
        elif kept.phase is SitePhase.FROZEN:
            self._stop(fx, kept)
        self._arm(kept)
        return True

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
        elif kept.phase is SitePhase.BROKEN:
            self._wake_again(fx, kept)
        elif kept.phase is SitePhase.ASLEEP:
            self._hand_over(fx, kept)
        self._arm(kept)

    def ring_retire(self, fx: Effects, which: tuple[str, int]) -> None:
        """Requests to a container whose place was taken have had their time."""
        key, job = which
        kept = self._sites.get(key)
        if kept is not None:
            self._succession.retire(fx, kept, job)
            self._write(fx, kept)

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
        unix_s = self._unix_s(fx.now)
        kept.job = self._jobs.submit(fx, Submit(site.owner, site.container, unix_s))
        kept.attempt, kept.forgiven, kept.unfreezable, kept.wanted, kept.reason = 0, 0, False, False, ""
        kept.woken_unix_s = unix_s
        self._by_job[kept.job] = site.key
        if kept.phase is SitePhase.BROKEN:
            self._step(fx, kept, SiteStep.MEND)
        self._step(fx, kept, SiteStep.START)

    def _may_try(self, fx: Effects, kept: Kept, site: Site) -> bool:
        """Whether one that broke may be started: after its pause, or as something else that did not fail so far."""
        other = kept.site.spec != site.spec and kept.failures <= OTHER_WISHES_MAX
        return fx.now >= kept.broken_until_s or other

    def _begin_anew(self, fx: Effects, kept: Kept, site: Site) -> None:
        """It is to be something else before its container got a place, which the old wish may never get."""
        job = self._jobs.get(kept.job)
        if job is None or not job.waiting or kept.next_job:
            return
        old, kept.job = kept.job, self._jobs.submit(fx, Submit(site.owner, site.container, self._unix_s(fx.now)))
        kept.attempt = kept.forgiven = 0
        self._by_job.pop(old, None)
        self._by_job[kept.job] = site.key
        self._jobs.end(fx, old)

    def _probe(self, fx: Effects, kept: Kept, job_id: int) -> None:
        """Have somebody try whether the container answers; one attempt is tried by one at a time."""
        job = self._jobs.runs(job_id)
        if job is None:
            return
        id_ = AllocationId(job_id, 0, job.task(0).attempt)
        if id_ in kept.probed:
            return
        kept.probed = (*(each for each in kept.probed if each.job != job_id), id_)
        site = kept.site
        address, port = address_of(job.reach[0], site.port)
        fx.act(ProbeSite(site.key, id_, address, port, site.ready_path, site.ready_s))

    def _freeze(self, fx: Effects, kept: Kept) -> None:
        self._step(fx, kept, SiteStep.FREEZE)
        kept.wanted = False
        self._write(fx, kept)
        fx.act(FreezeTask(kept.site.key, AllocationId(kept.job, 0, kept.attempt), self._node(kept)))

    def _thaw(self, fx: Effects, kept: Kept) -> None:
        self._step(fx, kept, SiteStep.THAW)
        kept.wanted = False
        fx.act(ThawTask(kept.site.key, AllocationId(kept.job, 0, kept.attempt), self._node(kept)))

    def _stop(self, fx: Effects, kept: Kept) -> None:
        self._step(fx, kept, SiteStep.STOP)
        kept.wanted = False
        self._succession.give_up(fx, kept)
        self._jobs.end(fx, kept.job)

    def _break(self, fx: Effects, kept: Kept, why: str) -> None:
        """Nobody is kept waiting for it for a while, twice as long each time."""
        kept.failures += 1
        pause_s = self._config.site_break_s * 2.0 ** min(kept.failures - 1, 10)
        kept.broken_until_s = fx.now + min(pause_s, self._config.site_break_max_s)
        kept.reason = why
        self._step(fx, kept, SiteStep.BREAK)
        job, kept.job, kept.probed = kept.job, 0, ()
        self._by_job.pop(job, None)
        self._jobs.end(fx, job)
        self._succession.give_up(fx, kept)
        self._write(fx, kept)
        self._arm(kept)

    def _next_changed(self, fx: Effects, kept: Kept, job: Job | None) -> None:
        """The successor runs, or never will; one that does not stay up is followed by another at the next question."""
        if job is None or job.finished or job.task(0).tries >= self._config.site_tries_max:
            self._succession.give_up(fx, kept)
            self._write(fx, kept)
            self._arm(kept)
        else:
            self._probe(fx, kept, job.id)

    def _restarted(self, fx: Effects, kept: Kept, job: Job) -> None:
        """Its container is gone, and its home starts another: it can't be used until then."""
        if kept.phase in (SitePhase.AWAKE, SitePhase.FREEZING, SitePhase.FROZEN, SitePhase.THAWING):
            self._step(fx, kept, SiteStep.LOSE)
            kept.attempt = job.task(0).attempt
            self._write(fx, kept)
        failed = job.task(0).tries - kept.forgiven if kept.phase is SitePhase.STARTING else 0
        if failed >= self._config.site_tries_max:
            self._break(fx, kept, job.task(0).reason or "its container does not stay up")
        elif failed >= self._config.site_tries_told:
            kept.changed(fx)
        self._arm(kept)

    def _ended(self, fx: Effects, kept: Kept, job: Job | None) -> None:
        self._by_job.pop(kept.job, None)
        if kept.phase is not SitePhase.LEAVING and self._succession.promote(kept):
            if kept.phase is not SitePhase.STARTING:
                self._step(fx, kept, SiteStep.LOSE)
            self._write(fx, kept)
            return
        kept.job, kept.probed = 0, ()
        if kept.phase is SitePhase.STARTING:
            kept.reason = job.task(0).reason if job is not None else "its job is gone"
        self._step(fx, kept, SiteStep.ENDED)
        kept.open.clear()
        kept.wanted = kept.wanted or kept.site.always_on
        self._write(fx, kept)
        self._alarms.set(("site", kept.site.key), fx.now)

    def _hand_over(self, fx: Effects, kept: Kept) -> None:
        if kept.wanted:
            self._wake_again(fx, kept)
            return
        keeper = keeper_of(kept.site.key, self._members())
        if keeper != self._me:
            fx.act(SiteMoved(kept.site, keeper))
            self._alarms.set(("site", kept.site.key), fx.now + self._config.site_retry_s)

    def _wake_again(self, fx: Effects, kept: Kept) -> None:
        """Somebody asked while its container was ending, or it is always on."""
        kept.wanted = False
        try:
            self._wake(fx, kept, kept.site)
        except SchedulerError as error:
            kept.reason, kept.wanted = str(error), kept.site.always_on
            kept.changed(fx)
            if kept.wanted:
                self._alarms.set(("site", kept.site.key), fx.now + self._config.site_retry_s)
        else:
            self._write(fx, kept)

    # --- inside

    def _kept(self, key: str) -> Kept:
        kept = self._sites.get(key)
        if kept is None:
            raise UnknownSite(f"no site {key} at this node")
        return kept

    def _keep(self, kept: Kept) -> None:
        self._sites[kept.site.key] = kept
        kept.fingerprint = zlib.crc32(_encode(kept.site))
        for host in kept.site.hosts:
            self._by_host.setdefault(host, set()).add(kept.site.key)

    def _revision(self, fx: Effects) -> int:
        """Return a first revision that is above all of this node's former lives."""
        return int(self._unix_s(fx.now) * 1000)

    def _drop_hosts(self, site: Site) -> None:
        for host in site.hosts:
            keys = self._by_host.get(host, set())
            keys.discard(site.key)
            if not keys:
                self._by_host.pop(host, None)

    def _require_room(self, site: Site) -> None:
        if len(self._sites) >= self._config.sites_max:
            raise Overloaded(f"this node keeps {self._config.sites_max} sites (sites_max); remove some")
        owned = sum(each.site.owner == site.owner for each in self._sites.values())
        if owned >= self._config.sites_per_owner_max:
            raise Overloaded(f"{site.owner} has {owned} sites here (sites_per_owner_max); remove some")

    def _node(self, kept: Kept) -> str:
        job = self._jobs.get(kept.job)
        return job.task(0).node if job is not None else ""

    def _why_not_yet(self, kept: Kept) -> tuple[str, bool, bool]:
        """Return why a site that starts is not there yet, whether it can never be, and whether it fails to come up."""
        job = self._jobs.get(kept.job) if kept.phase is SitePhase.STARTING else None
        if job is None:
            return "", False, False
        task = job.task(0)
        if phase_of(task) is Phase.RUNNING:
            return f"its container runs on {task.node}, nothing answers at port {kept.site.port} yet", False, False
        failed = task.tries - kept.forgiven
        if failed >= self._config.site_tries_told and task.reason:
            return f"its container ended {failed} times, last with: {task.reason}", False, True
        if job.waiting:
            why = self._jobs.explain(job.id)
            never = max((each.never for each in why.short), default=0) + sum(count for _, count in why.constraints)
            return why.summary, 0 < why.nodes <= never, False
        return task.reason, False, False

    def _step(self, fx: Effects, kept: Kept, step: SiteStep) -> None:
        kept.phase = take(kept.phase, step)
        kept.changed(fx)

    def _arm(self, kept: Kept) -> None:
        """Ring when the next of its times is up, if nobody uses it until then."""
        key = ("site", kept.site.key)
        site = kept.site
        if kept.phase is SitePhase.BROKEN and site.always_on:
            self._alarms.set(key, kept.broken_until_s)
            return
        if site.always_on or kept.open or kept.next_job or kept.phase not in (SitePhase.AWAKE, SitePhase.FROZEN):
            if kept.phase is not SitePhase.ASLEEP:
                self._alarms.cancel(key)
            return
        frozen = kept.phase is SitePhase.FROZEN or kept.unfreezable
        due_s = kept.used_s + site.idle_s + (site.frozen_s if frozen else 0.0)
        self._alarms.set(key, max(due_s, kept.busy_until_s))

    def _write(self, fx: Effects, kept: Kept) -> None:
        fx.put(SITES, kept.site.key, _encode(kept.record()))


def _keeping(kept: Kept) -> Keeping:
    return Keeping(kept.site.key, kept.phase in UP, kept.woken_unix_s)
