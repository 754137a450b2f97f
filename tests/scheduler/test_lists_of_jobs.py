"""A list of jobs: taken whole or not at all, in one event, and otherwise as if they had come one by one."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler import Scheduler, SchedulerConfig
from scheduler.errors import InvalidSpec, Overloaded
from scheduler.events import Measured, Outcome, Put, SetSetting, Submit, SubmitAll, Timer
from scheduler.model import JobSpec, Resources
from scheduler.records import TABLES
from scheduler.settings import User

MIB = 1 << 20
SPEC = JobSpec("job", ("true",), Resources(100, MIB))
ROOM = Resources(1000, 1 << 30)


def home(**config: object) -> Scheduler:
    """Return a node alone, which leads, runs tasks and takes jobs."""
    machine = Scheduler(SchedulerConfig(**config), "n1", 1, 1, 0)
    machine.restore(0.0, 0.0, {table: {} for table in TABLES})
    machine.handle(0.0, Measured(ROOM, ROOM, Resources()))
    for second in range(1, 20):
        machine.handle(float(second), Timer())
    return machine


def wanting(cpu_milli: int) -> JobSpec:
    return msgspec.structs.replace(SPEC, request=Resources(cpu_milli, MIB))


def give(machine: Scheduler, specs: list[JobSpec], keys: tuple[str, ...] = ()) -> Outcome:
    jobs = [Submit("ann", spec, 20.0, keys[place] if keys else "") for place, spec in enumerate(specs)]
    return machine.handle(20.0, SubmitAll(tuple(jobs), 20.0))


def places(machine: Scheduler) -> list[str]:
    """Return by job where its task is, "" for nowhere."""
    return [machine.job(job.id).tasks[0].node for job in machine.jobs()]


def test_a_list_is_durable_in_one_outcome():
    outcome = give(home(), [wanting(1)] * 100)
    rows = [change.table for change in outcome.changes if isinstance(change, Put)]
    assert rows.count("jobs") == 100
    assert outcome.answer == [1001 + 1000 * number for number in range(100)]


@given(st.lists(st.integers(1, 600), min_size=1, max_size=12))
def test_a_list_is_placed_as_if_its_jobs_came_one_by_one(amounts):
    together, one_by_one = home(), home()
    give(together, [wanting(amount) for amount in amounts])
    for amount in amounts:
        one_by_one.handle(20.0, Submit("ann", wanting(amount), 20.0))
    assert places(together) == places(one_by_one)


def test_the_small_ones_of_a_list_do_not_slip_past_a_large_one():
    machine = home()
    give(machine, [wanting(600), wanting(600), wanting(1)])
    assert places(machine) == ["n1", "", ""]


@pytest.mark.parametrize("bad", [0, 3, 9])
def test_one_bad_job_keeps_the_whole_list_out_and_is_named(bad):
    machine = home()
    specs = [SPEC] * 10
    specs[bad] = msgspec.structs.replace(SPEC, request=Resources(0, MIB))
    with pytest.raises(InvalidSpec) as refusal:
        give(machine, specs)
    assert refusal.value.field == f"[{bad}].cpu"
    assert not machine.jobs()
    assert give(machine, [SPEC]).answer == [1001], "not even a number was used"


def test_a_list_that_passes_a_bound_is_not_taken_in_part():
    machine = home(jobs_max=10)
    give(machine, [SPEC] * 8)
    with pytest.raises(Overloaded):
        give(machine, [SPEC] * 3)
    assert len(machine.jobs()) == 8
    give(machine, [SPEC] * 2)


def test_a_users_bound_counts_the_whole_list():
    machine = home()
    machine.handle(20.0, SetSetting("user/ann", User(jobs_max=5), 20.0))
    with pytest.raises(Overloaded):
        give(machine, [SPEC] * 6)
    assert len(give(machine, [SPEC] * 5).answer) == 5


def test_a_list_sent_again_is_the_same_jobs():
    machine = home(jobs_max=4)
    keys = ("list [0]", "list [1]", "list [2]")
    first = give(machine, [SPEC] * 3, keys).answer
    assert give(machine, [SPEC] * 3, keys).answer == first
    assert len(machine.jobs()) == 3
