"""A site starts once however many ask, sleeps when nobody does, and is given up when it does not stay up."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.errors import IllegalTransition, NotPossible, Overloaded, UnknownSite
from scheduler.events import Action, Cancel, FreezeTask, SiteMoved, SiteUsed, SiteWanted, Submit, ThawTask
from scheduler.jobs import Job
from scheduler.model import JobKind, JobRecord, JobSpec, Reach, Resources, State, TaskRecord
from scheduler.sites.hashing import keeper_of
from scheduler.sites.keeper import Jobs, Keeper
from scheduler.sites.site import TABLE, Site, SitePhase, SiteStep, SiteView, take

SPEC = JobSpec("site", ("httpd",), Resources(250, 64 << 20), kind=JobKind.SERVICE)
KEY = "b:u:shimoo:1"


def site(key: str = KEY, owner: str = "shimoo", **changes: object) -> Site:
    return Site(key, owner, SPEC, 8080, hosts=("shimoo.com.br",), idle_s=300, frozen_s=900, **changes)  # type: ignore[arg-type]


@dataclass
class House:
    """A keeper and a home that does what it is told at once; containers start and end when the test says so."""

    config: SchedulerConfig = field(default_factory=SchedulerConfig)
    members: list[str] = field(default_factory=lambda: ["n1"])
    now: float = 100.0

    def __post_init__(self) -> None:
        self.alarms = Alarms()
        self.jobs: dict[int, Job] = {}
        self.rows: dict[str, dict[str, bytes]] = {"sites": {}}
        self.actions: list[Action] = []
        self.keeper = self.make()

    def make(self) -> Keeper:
        jobs = Jobs(self._submit, self._cancel, self.jobs.get)
        return Keeper(self.config, self.alarms, jobs, "n1", lambda: self.members, lambda now: now)

    def _submit(self, fx: Effects, event: Submit) -> int:
        job = 1001 + 1000 * len(self.jobs)
        self.jobs[job] = Job(JobRecord(job, event.owner, event.spec, event.unix_s), fx.now)
        return job

    def _cancel(self, fx: Effects, event: Cancel) -> None:
        self.jobs[event.job_id].cancel()
        fx.job_changed(event.job_id)

    def do(self, act: str, *arguments: object, **words: object) -> object:
        fx = Effects(self.now)
        answer = getattr(self.keeper, act)(fx, *arguments, **words)
        outcome = fx.outcome(1 << 20)
        self.actions += outcome.actions
        for change in outcome.changes:
            if hasattr(change, "value"):
                self.rows[change.table][change.key] = change.value
            else:
                self.rows[change.table].pop(change.key, None)
        return answer

    def want(self, wanted: Site | None = None) -> SiteView:
        view = self.do("on_wanted", SiteWanted(wanted or site()))
        assert isinstance(view, SiteView)
        return view

    def runs(self, job: int, attempt: int = 1, tries: int = 0) -> None:
        self.jobs[job].put(0, TaskRecord(State.RUNNING, attempt, "n2", admitted=True, tries=tries))
        self.jobs[job].reach[0] = Reach(("10.77.2.5",))
        self.do("on_job", job)

    def ends(self, job: int) -> None:
        self.jobs[job].put(0, TaskRecord(State.CANCELLED, 1, "n2", reason="cancelled"))
        self.do("on_job", job)

    def passes(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.alarms.next()) is not None and due <= end:
            self.now = max(self.now, due)
            key = self.alarms.pop_due(self.now, self.alarms.mark)
            assert key is not None
            self.do("ring", key[1])
        self.now = end

    def phase(self, key: str = KEY) -> SitePhase:
        return self.keeper.view(key, self.now).phase

    def last(self, kind: type[Action]) -> list[Action]:
        found = [action for action in self.actions if isinstance(action, kind)]
        self.actions.clear()
        return found


def awake(house: House) -> int:
    job = house.want().job
    house.runs(job)
    assert house.phase() is SitePhase.AWAKE
    return job


def test_a_hundred_requests_start_one_container() -> None:
    house = House()
    views = [house.want() for _ in range(100)]
    assert {view.phase for view in views} == {SitePhase.STARTING}
    assert len(house.jobs) == 1
    house.runs(views[0].job)
    view = house.want()
    assert (view.phase, view.node, view.address, view.port) == (SitePhase.AWAKE, "n2", "10.77.2.5", 8080)
    assert len(house.jobs) == 1


def test_an_idle_site_is_frozen_then_stopped_and_woken_again() -> None:
    house = House()
    job = awake(house)
    house.passes(299)
    assert not house.last(FreezeTask)
    house.passes(2)
    (freeze,) = house.last(FreezeTask)
    assert (freeze.key, freeze.id.job, freeze.node) == (KEY, job, "n2")
    house.do("on_frozen", KEY, job, True)
    assert house.phase() is SitePhase.FROZEN
    house.passes(901)
    assert house.phase() is SitePhase.LEAVING
    house.ends(job)
    assert house.phase() is SitePhase.ASLEEP
    assert house.want().job != job


def test_a_request_thaws_a_frozen_site() -> None:
    house = House()
    job = awake(house)
    house.passes(301)
    house.do("on_frozen", KEY, job, True)
    assert house.want().phase is SitePhase.THAWING
    assert len(house.last(ThawTask)) == 1
    assert house.want().phase is SitePhase.THAWING
    assert not house.last(ThawTask)
    house.do("on_thawed", KEY, job)
    assert house.want().address == "10.77.2.5"


def test_a_request_while_it_freezes_thaws_it_when_it_is_frozen() -> None:
    house = House()
    job = awake(house)
    house.passes(301)
    assert house.want().phase is SitePhase.FREEZING
    house.do("on_frozen", KEY, job, True)
    assert house.phase() is SitePhase.THAWING


def test_open_connections_and_busy_containers_keep_it_awake() -> None:
    house = House()
    awake(house)
    house.do("on_used", SiteUsed(KEY, "n3", open=2))
    house.passes(10_000)
    assert house.phase() is SitePhase.AWAKE
    house.do("on_used", SiteUsed(KEY, "n3", open=0, busy_s=5000))
    house.passes(4999)
    assert house.phase() is SitePhase.AWAKE
    house.passes(2)
    assert house.phase() is SitePhase.FREEZING


def test_connections_of_a_door_that_is_gone_do_not_count() -> None:
    house = House()
    awake(house)
    house.do("on_used", SiteUsed(KEY, "n3", open=2))
    house.passes(10_000)
    house.keeper.on_door_gone("n3")
    house.passes(301)
    assert house.phase() is SitePhase.FREEZING


def test_what_can_not_be_frozen_is_stopped_later() -> None:
    house = House()
    job = awake(house)
    house.passes(301)
    house.do("on_frozen", KEY, job, False)
    assert house.phase() is SitePhase.AWAKE
    house.passes(800)
    assert house.phase() is SitePhase.AWAKE
    house.passes(200)
    assert house.phase() is SitePhase.LEAVING


def test_a_request_for_a_site_that_leaves_starts_it_again_when_it_is_gone() -> None:
    house = House()
    job = awake(house)
    house.passes(301)
    house.do("on_frozen", KEY, job, True)
    house.passes(901)
    assert house.want().phase is SitePhase.LEAVING
    house.ends(job)
    house.passes(0.1)
    assert house.phase() is SitePhase.STARTING
    assert len(house.jobs) == 2


def test_a_container_that_does_not_stay_up_opens_the_breaker_for_longer_each_time() -> None:
    house = House()
    pauses = []
    for _ in range(3):
        view = house.want()
        assert view.phase is SitePhase.STARTING
        for attempt in range(1, 6):
            house.jobs[view.job].put(0, TaskRecord(State.PENDING, attempt, "n2", reason="exit code 1", tries=attempt))
            house.do("on_job", view.job)
        broken = house.want()
        assert (broken.phase, broken.reason) == (SitePhase.BROKEN, "exit code 1")
        assert house.jobs[view.job].record.cancelled
        pauses.append(broken.retry_s)
        house.passes(broken.retry_s + 0.1)
    assert pauses == [10, 20, 40]


def test_a_lost_container_is_waited_for_and_not_frozen() -> None:
    house = House()
    job = awake(house)
    house.jobs[job].put(0, TaskRecord(State.PENDING, 1, "n2", reason="n2 is lost", tries=1))
    house.do("on_job", job)
    assert house.want().phase is SitePhase.STARTING
    house.runs(job, attempt=2, tries=1)
    assert house.want().address


def test_nobody_takes_anothers_site_and_bounds_hold() -> None:
    house = House(SchedulerConfig(sites_max=2, sites_up_per_owner_max=1))
    house.want()
    with pytest.raises(NotPossible, match="belongs to another user"):
        house.want(site(owner="mallory"))
    with pytest.raises(Overloaded, match="sites_up_per_owner_max"):
        house.want(site("b:u:shimoo:2"))
    assert list(house.keeper.names()) == [KEY]
    house.want(site("b:u:ana:1", "ana"))
    with pytest.raises(Overloaded, match="sites_max"):
        house.want(site("b:u:bo:1", "bo"))


def test_what_always_runs_is_never_frozen() -> None:
    house = House()
    house.runs(house.want(site(always_on=True)).job)
    house.passes(100_000)
    assert house.phase() is SitePhase.AWAKE


def test_a_restart_finds_sites_as_they_were() -> None:
    house = House()
    job = awake(house)
    house.want(site("b:u:ana:1", "ana"))
    house.passes(301)
    house.do("on_frozen", KEY, job, True)
    fx = Effects(house.now)
    house.alarms = Alarms()
    house.keeper = house.make()
    house.keeper.restore(fx, house.rows)
    assert house.phase() is SitePhase.FROZEN
    assert house.phase("b:u:ana:1") is SitePhase.STARTING
    assert house.want().phase is SitePhase.THAWING


def test_a_sleeping_site_moves_to_the_node_that_should_keep_it() -> None:
    house = House()
    job = awake(house)
    house.passes(301)
    house.do("on_frozen", KEY, job, True)
    house.passes(901)
    house.ends(job)
    house.members = ["n1", *(f"m{number}" for number in range(50))]
    house.do("on_members")
    house.passes(5)
    (moved,) = house.last(SiteMoved)
    assert moved.keeper == keeper_of(KEY, house.members) != "n1"
    house.do("on_drop", KEY, moved=True)
    with pytest.raises(UnknownSite):
        house.phase()


def test_keys_are_spread_and_few_move_when_a_member_goes() -> None:
    members = [f"n{number}" for number in range(10)]
    keys = [f"b:u:user{number}:1" for number in range(2000)]
    before = {key: keeper_of(key, members) for key in keys}
    counts = [list(before.values()).count(member) for member in members]
    assert min(counts) > 130
    after = {key: keeper_of(key, members[:-1]) for key in keys}
    assert all(before[key] == after[key] for key in keys if before[key] != "n9")


@pytest.mark.parametrize("phase", list(SitePhase))
@pytest.mark.parametrize("step", list(SiteStep))
def test_only_the_steps_of_the_table_exist(phase: SitePhase, step: SiteStep) -> None:
    if (phase, step) in TABLE:
        assert take(phase, step) is TABLE[(phase, step)]
    else:
        with pytest.raises(IllegalTransition):
            take(phase, step)
