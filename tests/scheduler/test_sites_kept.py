"""A site starts once however many ask, sleeps when nobody does, and is given up when it does not stay up."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.errors import IllegalTransition, NotPossible, Overloaded, UnknownSite
from scheduler.events import (
    Action,
    Cancel,
    FreezeTask,
    ProbeSite,
    SiteChanged,
    SiteMoved,
    SiteReady,
    SitesElsewhere,
    SiteUnready,
    SiteUsed,
    SiteWanted,
    Submit,
    ThawTask,
)
from scheduler.explain import Explanation
from scheduler.jobs import Job
from scheduler.model import AllocationId, JobKind, JobRecord, JobSpec, Reach, Resources, State, TaskRecord
from scheduler.sites.claims import Claim, Claims, Keeping, outdone
from scheduler.sites.hashing import keeper_of
from scheduler.sites.keeper import Keeper
from scheduler.sites.kept import Jobs, address_of
from scheduler.sites.site import TABLE, Site, SitePhase, SiteStep, SiteView, take
from scheduler.survey import Short

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
        jobs = Jobs(self._submit, self._cancel, self.jobs.get, self._explain)
        return Keeper(self.config, self.alarms, jobs, "n1", lambda: self.members, lambda now: now)

    def _submit(self, fx: Effects, event: Submit) -> int:
        job = 1001 + 1000 * len(self.jobs)
        self.jobs[job] = Job(JobRecord(job, event.owner, event.spec, event.unix_s), fx.now)
        return job

    def _explain(self, job: int) -> Explanation:
        never = 3 if self.jobs[job].spec.request.memory_bytes > 1 << 30 else 0
        short = (Short("memory", self.jobs[job].spec.request.memory_bytes, 0, 3, never),)
        return Explanation(job, State.PENDING, "memory is short", 1, 3, 0, short)

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

    def starts(self, job: int, attempt: int = 1, tries: int = 0, node: str = "n2") -> AllocationId:
        """The container runs; return the attempt, which nobody has seen answer yet."""
        self.jobs[job].put(0, TaskRecord(State.RUNNING, attempt, node, admitted=True, tries=tries))
        self.jobs[job].reach[0] = Reach(("10.77.2.5",))
        self.do("on_job", job)
        return AllocationId(job, 0, attempt)

    def runs(self, job: int, attempt: int = 1, tries: int = 0, node: str = "n2") -> None:
        """The container runs and answers."""
        id_ = self.starts(job, attempt, tries, node)
        (probe,) = self.last(ProbeSite)
        assert isinstance(probe, ProbeSite)
        assert (probe.id, probe.address, probe.port) == (id_, "10.77.2.5", 8080)
        self.do("on_ready", SiteReady(probe.key, id_))

    def ends(self, job: int) -> None:
        self.jobs[job].put(0, TaskRecord(State.CANCELLED, 1, "n2", reason="cancelled"))
        self.do("on_job", job)

    def passes(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.alarms.next()) is not None and due <= end:
            self.now = max(self.now, due)
            key = self.alarms.pop_due(self.now, self.alarms.mark)
            assert key is not None
            self.do({"site": "ring", "retire": "ring_retire"}[key[0]], key[1])
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


def test_a_site_that_waits_says_why_and_whether_waiting_is_any_use() -> None:
    house = House()
    view = house.want()
    assert (view.reason, view.hopeless) == ("memory is short", False)
    house.starts(view.job)
    view = house.keeper.view(KEY, house.now)
    assert (view.reason, view.hopeless) == ("its container runs on n2, nothing answers at port 8080 yet", False)
    huge = msgspec.structs.replace(SPEC, request=Resources(250, 1 << 40))
    assert house.want(msgspec.structs.replace(site("b:u:huge:1", "huge"), spec=huge)).hopeless


def test_a_wish_that_can_not_be_placed_is_mended_by_the_next_one() -> None:
    house = House()
    huge = msgspec.structs.replace(site(), spec=msgspec.structs.replace(SPEC, request=Resources(250, 1 << 40)))
    first = house.want(huge).job
    assert house.want(huge).job == first
    mended = house.want().job
    assert mended != first
    assert house.jobs[first].finished
    house.runs(mended)
    assert house.phase() is SitePhase.AWAKE
    # Once its container is on its way, a changed wish waits for the next start.
    assert house.want(huge).job == mended


def test_another_wish_does_not_wait_for_the_pause_of_one_that_broke() -> None:
    house = House()
    specs = [msgspec.structs.replace(SPEC, pids_max=100 + number) for number in range(6)]

    def fails(number: int) -> SitePhase:
        view = house.want(msgspec.structs.replace(site(), spec=specs[number]))
        if view.phase is SitePhase.STARTING:
            id_ = house.starts(view.job)
            house.do("on_unready", SiteUnready(KEY, "nothing answers", id_))
        return view.phase

    assert fails(0) is SitePhase.STARTING
    assert fails(0) is SitePhase.BROKEN
    assert [fails(1), fails(2), fails(3)] == [SitePhase.STARTING] * 3
    assert fails(4) is SitePhase.BROKEN, "wishes that take turns don't get around the breaker"


def test_names_that_visitors_came_by_are_kept_as_long_as_the_same_ones_are_declared() -> None:
    house = House()

    def asked_by(host: str, *declared: str) -> tuple[str, ...]:
        house.want(msgspec.structs.replace(site(), hosts=(*declared, host), declared=declared))
        return house.keeper.view(KEY, house.now).hosts

    assert asked_by("a.br") == ("a.br",)
    written = dict(house.rows["sites"])
    assert asked_by("www.a.br") == ("a.br", "www.a.br")
    assert house.rows["sites"] != written
    written = dict(house.rows["sites"])
    assert asked_by("a.br") == asked_by("www.a.br") == ("a.br", "www.a.br")
    assert house.rows["sites"] == written, "who asks for what is known changes nothing"
    (job,) = house.jobs.values()
    assert dict(job.spec.env)["FOFOCA_SITE_HOST"] == "a.br"
    assert asked_by("a.br", "b.br") == ("b.br", "a.br")
    assert house.keeper.answering("www.a.br") == []
    for number in range(50):
        found = asked_by(f"x{number}.br", "b.br")
    assert (len(found), found[0], found[-1]) == (21, "b.br", "x49.br")


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
    house.jobs[job].put(0, TaskRecord(State.PENDING, 1, reason="n2 is lost", tries=1))
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


def test_a_site_is_awake_only_when_it_answers() -> None:
    house = House()
    job = house.want().job
    id_ = house.starts(job)
    view = house.want()
    assert (view.phase, view.address) == (SitePhase.STARTING, "")
    house.do("on_job", job)
    assert len(house.last(ProbeSite)) == 1, "one attempt is tried by one at a time"
    house.do("on_ready", SiteReady(KEY, AllocationId(job, 0, 9)))
    assert house.phase() is SitePhase.STARTING
    house.do("on_ready", SiteReady(KEY, id_))
    assert house.want().address == "10.77.2.5"


def test_a_container_that_never_answers_opens_the_breaker() -> None:
    house = House()
    job = house.want().job
    house.do("on_unready", SiteUnready(KEY, "nothing listens on port 8080", house.starts(job)))
    view = house.want()
    assert (view.phase, view.reason) == (SitePhase.BROKEN, "nothing listens on port 8080")
    assert house.jobs[job].record.cancelled


def fails(house: House, job: int, attempt: int, tries: int, reason: str = "exit code 3") -> SiteView:
    house.jobs[job].put(0, TaskRecord(State.PENDING, attempt, reason=reason, tries=tries))
    house.do("on_job", job)
    return house.keeper.view(KEY, house.now)


def test_nobody_waits_any_more_once_a_container_ended_twice_before_it_answered() -> None:
    house = House()
    job = house.want().job
    house.starts(job)
    view = fails(house, job, 1, 1)
    assert (view.settled, view.failing) == (False, False), "a first end may be a coincidence"
    house.starts(job, 2, 1)
    house.last(SiteChanged)
    view = fails(house, job, 2, 2)
    assert (view.phase, view.settled, view.failing) == (SitePhase.STARTING, True, True)
    assert view.reason == "its container ended 2 times, last with: exit code 3"
    assert house.last(SiteChanged), "those who wait are told"
    house.starts(job, 3, 2)
    assert not house.keeper.view(KEY, house.now).settled, "while it runs it may come up"
    house.runs(job, 3, 2)
    assert house.phase() is SitePhase.AWAKE


def test_ends_before_it_last_answered_do_not_count() -> None:
    """A site that runs for months may end now and then; each time it is as new."""
    house = House()
    job = house.want().job
    for attempt in range(1, 21):
        house.runs(job, attempt, tries=attempt - 1)
        view = fails(house, job, attempt, attempt)
        assert (view.phase, view.failing) == (SitePhase.STARTING, False), attempt
    again = house.make()
    house.keeper, restored = again, Effects(house.now)
    again.restore(restored, house.rows)
    assert not fails(house, job, 21, 21).failing, "nor do those before the agent was restarted"
    assert fails(house, job, 22, 22).failing


def test_a_door_that_finds_nobody_has_the_container_tried_again_and_breaks_nothing() -> None:
    house = House()
    job = awake(house)
    house.do("on_unready", SiteUnready(KEY, "connection refused"))
    assert house.phase() is SitePhase.STARTING
    (probe,) = house.last(ProbeSite)
    assert isinstance(probe, ProbeSite)
    house.do("on_ready", SiteReady(KEY, probe.id))
    assert (house.phase(), house.want().job) == (SitePhase.AWAKE, job)


def test_a_published_port_is_reached_at_the_node() -> None:
    reach = Reach(("10.0.3.2",), (("udp", 20_001, 8080), ("tcp", 20_000, 8080)), "192.0.2.7")
    assert address_of(reach, 8080) == ("192.0.2.7", 20_000)
    assert address_of(Reach(("10.77.1.2",)), 8080) == ("10.77.1.2", 8080)
    assert address_of(Reach(host="127.0.0.1"), 8080) == ("127.0.0.1", 8080)


def test_a_drained_node_keeps_the_container_until_another_answers_and_requests_have_ended() -> None:
    house = House()
    old = awake(house)
    assert house.do("on_evict", old) is True
    assert house.do("on_evict", old) is True
    (new,) = house.jobs.keys() - {old}
    house.passes(10_000)
    assert (house.want().job, house.phase()) == (old, SitePhase.AWAKE), "nothing answers elsewhere yet"
    house.runs(new, node="n3")
    view = house.want()
    assert (view.phase, view.job, view.node) == (SitePhase.AWAKE, new, "n3")
    assert not house.jobs[old].record.cancelled
    house.passes(4)
    assert not house.jobs[old].record.cancelled, "requests that were under way go on"
    house.passes(2)
    assert house.jobs[old].record.cancelled
    assert house.keeper.view(KEY, house.now).job == new


def test_a_successor_that_fails_is_given_up_and_followed_by_another() -> None:
    house = House()
    old = awake(house)
    house.do("on_evict", old)
    (failed,) = house.jobs.keys() - {old}
    house.do("on_unready", SiteUnready(KEY, "no answer", house.starts(failed, node="n3")))
    assert house.jobs[failed].record.cancelled
    assert house.want().job == old
    house.do("on_evict", old)
    (new,) = house.jobs.keys() - {old, failed}
    house.last(ProbeSite)
    house.runs(new, node="n3")
    assert house.want().job == new


def test_a_container_that_ends_while_its_successor_starts_is_followed_by_it() -> None:
    house = House()
    old = awake(house)
    house.do("on_evict", old)
    (new,) = house.jobs.keys() - {old}
    house.ends(old)
    assert (house.want().phase, house.want().job) == (SitePhase.STARTING, new)
    house.runs(new, node="n3")
    assert house.want().address


def test_a_sleeping_container_is_ended_by_a_drain_and_one_that_starts_is_moved_by_its_home() -> None:
    house = House()
    job = awake(house)
    house.passes(301)
    house.do("on_frozen", KEY, job, True)
    assert house.do("on_evict", job) is True
    assert house.jobs[job].record.cancelled
    house.ends(job)
    assert house.do("on_evict", house.want().job) is False
    assert house.do("on_evict", 999) is False


def test_what_is_always_on_starts_again_by_itself() -> None:
    house = House()
    wanted = site(always_on=True)
    house.do("on_wanted", SiteWanted(wanted, wake=False))
    (job,) = house.jobs
    house.runs(job)
    house.ends(job)
    house.passes(0.1)
    (again,) = house.jobs.keys() - {job}
    house.do("on_unready", SiteUnready(KEY, "no answer", house.starts(again)))
    assert house.phase() is SitePhase.BROKEN
    house.passes(10.1)
    assert house.phase() is SitePhase.STARTING
    with pytest.raises(NotPossible, match="always on"):
        house.do("on_slept", KEY)


def test_an_owner_can_put_a_site_to_sleep() -> None:
    house = House()
    job = awake(house)
    house.do("on_slept", KEY)
    house.ends(job)
    house.passes(1)
    assert (house.phase(), len(house.jobs)) == (SitePhase.ASLEEP, 1)


def test_hosts_lead_to_their_sites_and_to_no_others() -> None:
    house = House()
    house.want()
    house.want(site("b:u:shimoo:2"))
    assert house.keeper.answering("shimoo.com.br") == [KEY, "b:u:shimoo:2"]
    house.want(msgspec.structs.replace(site(), hosts=("other.br",), declared=("other.br",)))
    assert house.keeper.answering("shimoo.com.br") == ["b:u:shimoo:2"]
    house.do("on_drop", "b:u:shimoo:2")
    assert house.keeper.answering("shimoo.com.br") == []
    assert house.keeper.answering("other.br") == [KEY]


def test_of_two_keepers_the_one_whose_container_was_woken_last_goes_on() -> None:
    one, other = House(), House()
    other.now = 500.0
    old, new = awake(one), awake(other)
    (mine,) = one.keeper.keepings()
    (theirs,) = other.do("on_elsewhere", SitesElsewhere("n1", (mine,)))  # type: ignore[misc]
    one.do("on_elsewhere", SitesElsewhere("n9", (theirs,)))
    assert not one.keeper.has(KEY)
    assert one.jobs[old].record.cancelled
    assert other.phase() is SitePhase.AWAKE
    assert not other.jobs[new].record.cancelled


keepings = st.builds(Keeping, st.just(KEY), st.booleans(), st.sampled_from([0.0, 1.0, 2.0]))


@given(keepings, keepings)
def test_exactly_one_of_two_keepers_gives_up(mine: Keeping, theirs: Keeping) -> None:
    assert outdone(mine, "n1", theirs, "n2") is not outdone(theirs, "n2", mine, "n1")


@given(st.permutations(["n1"] * 3 + ["n2"] * 3), st.integers(0, 50))
def test_of_two_that_take_a_site_at_once_exactly_one_does(order: list[str], number: int) -> None:
    """Each begins and asks, is heard by the other, hears the answer: in any order of these six steps."""
    key = f"b:u:user:{number}"
    claims = {name: Claims(name) for name in ("n1", "n2")}
    steps = dict.fromkeys(claims, 0)
    answers: dict[str, Claim] = {}
    keeps: set[str] = set()
    for node in order:
        other = "n2" if node == "n1" else "n1"
        steps[node] += 1
        if steps[node] == 1:
            claims[node].begin(key)
        elif steps[node] == 2:
            answers[node] = Claim.KEPT if other in keeps else claims[other].asked(key, node)
        else:
            if claims[node].settle(key, {other: answers[node]}) == node:
                keeps.add(node)
            claims[node].end(key)
    assert len(keeps) == 1


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
