"""The view of the cluster: free is what the newest report leaves, less what is claimed; placing never passes it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from scheduler.fit import fits
from scheduler.index import ClusterView, Membership
from scheduler.model import Constraint, Operator, Report, Resources
from scheduler.score import POLICIES

NAMES = ["n1", "n2", "n3", "n4"]
CAPACITY = Resources(1000, 1000)
NOTHING = Resources()


def report(name: str, sequence: int, committed: Resources = NOTHING, **more: object) -> Report:
    """A node's report with the usual capacity."""
    facts: dict[str, object] = {"capacity": CAPACITY, "allocatable": CAPACITY, **more}
    return Report(node=name, number=int(name[1:]), boot_epoch=1, sequence=sequence, committed=committed, **facts)


def view_of(*reports: Report, policy: str = "best-fit") -> ClusterView:
    """A view of n1 in which all these nodes are alive."""
    view = ClusterView("n1", 1, POLICIES[policy], 5)
    for each in reports:
        view.heard_of(each.node, Membership.ALIVE, each.number)
        view.hear(each)
    return view


class Views(RuleBasedStateMachine):
    """Random reports, claims and members against sums made anew."""

    def __init__(self) -> None:
        super().__init__()
        self.view = view_of(*(report(name, 0) for name in NAMES))
        self.reports = {name: report(name, 0) for name in NAMES}
        self.claims: dict[int, tuple[str, Resources]] = {}
        self.alive = dict.fromkeys(NAMES, True)

    @rule(name=st.sampled_from(NAMES), sequence=st.integers(0, 20), cpu=st.integers(0, 1000))
    def hear(self, name, sequence, cpu):
        fresh = report(name, sequence, Resources(cpu, 0))
        newer = sequence > self.reports[name].sequence
        assert self.view.hear(fresh) == newer
        if newer:
            self.reports[name] = fresh

    @rule(key=st.integers(0, 5), name=st.sampled_from(NAMES), cpu=st.integers(0, 300))
    def claim(self, key, name, cpu):
        self.view.claim(key, name, Resources(cpu, 1))
        self.claims[key] = (name, Resources(cpu, 1))

    @rule(key=st.integers(0, 5))
    def release(self, key):
        self.view.release(key)
        self.claims.pop(key, None)

    @rule(key=st.integers(0, 5), cpu=st.integers(0, 300))
    def shrink(self, key, cpu):
        self.view.shrink(key, Resources(cpu, 1))
        if key in self.claims:
            self.claims[key] = (self.claims[key][0], Resources(cpu, 1))

    @rule(name=st.sampled_from(NAMES[1:]), alive=st.booleans())
    def member(self, name, alive):
        self.view.heard_of(name, Membership.ALIVE if alive else Membership.FAILED, int(name[1:]))
        self.alive[name] = alive

    @rule(cpu=st.integers(1, 600), count=st.integers(1, 9), seed=st.integers(0, 9))
    def place(self, cpu, count, seed):
        request = Resources(cpu, 10)
        places = self.view.place(request, (), count, seed)
        assert places == self.view.place(request, (), count, seed)
        for name, times in places.items():
            assert self.alive[name]
            assert fits(request * times, self.free(name))
        placed = sum(places.values())
        assert placed <= count
        if placed < count:
            left = {name: self.free(name) - request * places.get(name, 0) for name in NAMES if self.alive[name]}
            assert not any(fits(request, free) for free in left.values())

    def free(self, name: str) -> Resources:
        """What a node has free, summed up anew."""
        free = self.reports[name].free
        for on, amount in self.claims.values():
            free = free - amount if on == name else free
        return free

    @invariant()
    def free_is_what_reports_and_claims_leave(self):
        for name in NAMES:
            node = self.view.get(name)
            assert node is not None
            assert node.free == self.free(name)

    @invariant()
    def the_lowest_live_number_leads(self):
        assert self.view.leader == min(name for name in NAMES if self.alive[name])


TestViews = Views.TestCase


def test_best_fit_fills_one_node_and_spread_uses_all():
    reports = [report(name, 1) for name in NAMES]
    assert len(view_of(*reports).place(Resources(100, 100), (), 8, 1)) == 1
    assert len(view_of(*reports, policy="spread").place(Resources(100, 100), (), 8, 1)) == 4


def test_near_equals_are_drawn_by_the_jobs_seed():
    view = view_of(*(report(name, 1) for name in NAMES))
    chosen = {next(iter(view.place(Resources(10, 10), (), 1, seed))) for seed in range(40)}
    assert chosen == set(NAMES)


def test_nodes_that_are_cordoned_unreachable_or_excluded_are_not_offered():
    view = view_of(
        report("n1", 1, accepting=False),
        report("n2", 1),
        report("n3", 1, labels=(("zone", "a"),)),
        report("n4", 1, labels=(("zone", "b"),)),
    )
    view.heard_of("n2", Membership.DOWN)
    where = (Constraint("zone", Operator.IN, ("a",)),)
    assert view.place(Resources(1, 1), where, 5, 0) == {"n3": 5}
    assert view.possible(Resources(1000, 1), where)
    assert not view.possible(Resources(1001, 1), ())


def test_what_is_possible_is_asked_anew_when_the_cluster_changes_its_shape():
    view = view_of(report("n1", 1))
    big = Resources(5000, 10)
    assert not view.possible(big, ())
    view.hear(report("n2", 1, allocatable=Resources(6000, 1000)))
    assert not view.possible(big, ())
    view.heard_of("n2", Membership.ALIVE, 2)
    assert view.possible(big, ())


def test_a_report_of_an_earlier_boot_is_not_believed():
    view = view_of(report("n1", 9))
    assert not view.hear(report("n1", 8))
    assert view.boot_epoch("n1") == 1
    assert view.boot_epoch("nobody") == 0


def test_a_forgotten_node_is_gone_unless_it_is_alive_or_claimed():
    view = view_of(report("n1", 1), report("n2", 1), report("n3", 1))
    view.heard_of("n2", Membership.FAILED)
    view.heard_of("n3", Membership.FAILED)
    view.claim("job", "n3", Resources(1, 1))
    for name in ("n1", "n2", "n3"):
        view.forget(name)
    assert [node.name for node in view.nodes()] == ["n1", "n3"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 500)), max_size=12))
def test_the_order_in_which_nodes_were_heard_of_does_not_change_the_choice(loads):
    committed = {name: Resources() for name in NAMES}
    for position, cpu in loads:
        committed[NAMES[position]] = Resources(min(cpu + committed[NAMES[position]].cpu_milli, 1000), 0)
    reports = [report(name, 1, committed[name]) for name in NAMES]
    forwards, backwards = view_of(*reports), view_of(*reversed(reports))
    assert forwards.place(Resources(100, 10), (), 3, 7) == backwards.place(Resources(100, 10), (), 3, 7)
