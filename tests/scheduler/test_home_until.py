"""A home whose record another may take over grants leases only while it is surely the home."""

from __future__ import annotations

import pytest

from scheduler import Scheduler, SchedulerConfig
from scheduler.alarms import Alarms
from scheduler.effects import Effects
from scheduler.events import HomeUntil
from scheduler.leases import LeasesGiven
from scheduler.messages import LeaseAsk
from scheduler.model import AllocationId

SINGLE = AllocationId(1001, 0, 1)


def granted(leases: LeasesGiven, now: float) -> bool:
    fx = Effects(now)
    leases.on_ask(fx, "n2", LeaseAsk((SINGLE,), 1, now), lambda id_: True)
    return bool(fx.outcome(1 << 20).actions)


@pytest.mark.parametrize(("now", "grants"), [(99.9, True), (100.0, False), (1e6, False)])
def test_no_lease_is_granted_once_somebody_else_may_be_the_home(now: float, grants: bool) -> None:
    leases = LeasesGiven(SchedulerConfig(), Alarms())
    assert granted(leases, now)
    leases.home_until_s = 100.0
    assert granted(leases, now) is grants
    leases.home_until_s = 2e6
    assert granted(leases, now)


def test_the_shell_tells_the_home_until_when() -> None:
    machine = Scheduler(SchedulerConfig(), "n1", 1, 1, 0)
    machine.restore(0.0, 0.0, {})
    machine.handle(1.0, HomeUntil(21.0))
    assert machine.parts.home.leases.home_until_s == 21.0
