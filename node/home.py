"""A node as the home of jobs, and as a window on the cluster: what the API needs of the scheduling machine.

Adds to the machine what it may not know: wall-clock time, the image a name means today, and people who wait.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec
import trio

from node.effects import Effects
from node.errors import InvalidValue
from node.image_exchange import ImageExchange
from node.job_secrets import JobSecrets
from scheduler.amendments import AmendmentView
from scheduler.ended import EndedPage
from scheduler.events import Accepting, AmendJob, Cancel, Drain, Hold, Release, Requeue, SetSetting, Submit, SubmitAll
from scheduler.explain import Explanation
from scheduler.forecast import Forecast
from scheduler.model import JobSpec
from scheduler.settings import AnySetting
from scheduler.snapshot import NodeSnapshot
from scheduler.usage import JobUsage, UsageRow
from scheduler.views import JobSummary, JobView, NodeStatus, WaitingView


class Home:
    """Jobs of this home, and nodes as this one sees them."""

    def __init__(
        self,
        effects: Effects,
        images: ImageExchange,
        secrets: JobSecrets,
        *,
        image_required: bool,
        require_room: Callable[[], None] = lambda: None,
    ) -> None:
        """`require_room` raises DiskFull where nothing new can be kept."""
        self._effects = effects
        self._machine = effects.machine
        self._images = images
        self._secrets = secrets
        self._image_required = image_required
        self._require_room = require_room
        self._waiters: dict[int, set[trio.Event]] = defaultdict(set)

    async def submit(self, owner: str, spec: JobSpec, key: str = "") -> int:
        """Take a job; once this returns its id, the job survives this node's crash.

        A second submission of the same owner and `key` gets the first one's id. Raises InvalidSpec, UnknownImage,
        InvalidValue or DiskFull with nothing changed.
        """
        self._require_room()
        spec = await self.completed(owner, spec)
        job_id = await self._effects.ask(Submit(owner, spec, time.time(), key))
        assert isinstance(job_id, int)
        return job_id

    async def completed(self, owner: str, spec: JobSpec) -> JobSpec:
        """Return the spec as this node's machine takes it: the image resolved, secrets sealed. UnknownImage."""
        return self._secrets.seal(owner, await self._resolved(spec))

    async def submit_all(self, owner: str, specs: Sequence[JobSpec], key: str = "") -> list[int]:
        """Take a list of jobs, all or none; once this returns their ids they all survive this node's crash.

        Each job's own key is `key` with its place in the list. Raises what `submit` does, the field's name beginning
        with the place, as in `[3].cpu`.
        """
        unix_s = time.time()
        jobs: list[Submit] = []
        for place, spec in enumerate(specs):
            try:
                whole = await self.completed(owner, spec)
            except InvalidValue as error:
                raise InvalidValue(f"[{place}].{error.field}", error.value, error.expected) from None
            jobs.append(Submit(owner, whole, unix_s, f"{key} [{place}]" if key else ""))
        ids = await self._effects.ask(SubmitAll(tuple(jobs), unix_s))
        assert isinstance(ids, list)
        return ids

    async def cancel(self, job_id: int) -> None:
        """End the job's tasks; UnknownJob if there is no such job here."""
        await self._effects.ask(Cancel(job_id, time.time()))

    async def hold(self, job_id: int, *, operator: bool) -> None:
        """Keep a job from starting anything more; UnknownJob, NotPossible."""
        await self._effects.ask(Hold(job_id, operator))

    async def release(self, job_id: int, *, operator: bool) -> None:
        """Undo a hold; UnknownJob, NotPossible."""
        await self._effects.ask(Release(job_id, operator))

    async def requeue(self, job_id: int) -> None:
        """Stop what runs of a job, and line it up again; UnknownJob, NotPossible."""
        await self._effects.ask(Requeue(job_id))

    async def drain(self, deadline_s: float | None) -> None:
        """Take nothing new, and send away what is here; batch tasks after the deadline, if there is one."""
        await self._effects.ask(Drain(deadline_s, time.time()))

    async def set_setting(self, name: str, value: AnySetting | None) -> None:
        """Set (None: remove) one of the cluster's settings; InvalidSpec."""
        await self._effects.ask(SetSetting(name, value, time.time()))

    def settings(self) -> Sequence[tuple[str, AnySetting]]:
        """Return the cluster's settings by name."""
        return self._machine.settings()

    def usage(self) -> Sequence[UsageRow]:
        """Return what this home's users used, by day."""
        return self._machine.usage()

    def usage_of_jobs(self) -> Sequence[JobUsage]:
        """Return what each job that this home remembers used."""
        return self._machine.usage_of_jobs()

    def queue(self) -> Sequence[WaitingView]:
        """Return the line of waiting jobs, if this node leads."""
        return self._machine.waiting(trio.current_time())

    def ended_tasks(self, owner: str | None, after: tuple[int, int], count: int) -> EndedPage:
        """Return a page of this home's ended tasks, after that (job, index)."""
        return self._machine.ended_tasks(owner, after, count)

    def snapshot(self, after: int, count: int) -> NodeSnapshot:
        """Return a page of what this node knows for good, from the jobs after that id on."""
        return self._machine.snapshot(trio.current_time(), after, count)

    async def forecast(self, owner: str, spec: JobSpec) -> Forecast:
        """Return what would become of a job; raises what a submission would."""
        return self._machine.forecast(owner, await self._resolved(spec), trio.current_time())

    async def set_accepting(self, accepting: bool) -> None:
        """Let this node take new allocations, or no more."""
        await self._effects.ask(Accepting(accepting))

    @property
    def leader(self) -> str:
        """The node that keeps the queue's order, as this one sees it."""
        return self._machine.leader

    def job(self, job_id: int, first: int = 0, count: int | None = None) -> JobView:
        """Return the job with `count` of its tasks (None: all) from the `first`-th on; UnknownJob."""
        return self._machine.job(job_id, first, count)

    def jobs(self, owner: str | None = None) -> Sequence[JobSummary]:
        """Return this home's jobs, of one owner or of all."""
        return self._machine.jobs(owner)

    def explain(self, job_id: int) -> Explanation:
        """Return why the job waits, or where it runs and why there."""
        return self._machine.explain(job_id, trio.current_time())

    def nodes(self) -> Sequence[NodeStatus]:
        """Return every node this one has heard of, with its last report."""
        return self._machine.nodes()

    async def amend(self, job_id: int, spec: JobSpec, index: int | None = None) -> AmendmentView:
        """Give a live job, or one of its tasks, the limits of this spec; return how it went, once that is known.

        Raises InvalidSpec, UnknownJob or NotPossible with nothing changed.
        """
        revision = await self._effects.ask(AmendJob(job_id, spec, index))
        while not (view := self._machine.amendment(job_id)).done and view.revision == revision:
            await self._changed(job_id)
        return view

    async def wait(self, job_id: int, wait_s: float) -> None:
        """Return when the job is final, or after `wait_s`; UnknownJob."""
        with trio.move_on_after(wait_s):
            while not self._machine.job_state(job_id).final:
                await self._changed(job_id)

    async def _changed(self, job_id: int) -> None:
        changed = trio.Event()
        waiters = self._waiters[job_id]
        waiters.add(changed)
        try:
            await changed.wait()
        finally:
            waiters.discard(changed)
            if not waiters:
                self._waiters.pop(job_id, None)

    def changed(self, job_id: int) -> None:
        """Wake those who wait for this job."""
        for waiter in list(self._waiters.get(job_id, ())):
            waiter.set()

    async def _resolved(self, spec: JobSpec) -> JobSpec:
        if spec.image:
            return msgspec.structs.replace(spec, image_digest=await self._images.digest_of(spec.image))
        if self._image_required:
            raise InvalidValue("image", "", "expected the name of an image, such as busybox: containers need one here")
        return spec
