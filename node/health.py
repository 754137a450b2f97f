"""Looks after the health of this node's containers: makes the checks when they are due, and tells what changed.

A thin shell around scheduler/health.py: time, the checks themselves (node/checking.py) and their bound are here. At
most CHECKS_AT_ONCE_MAX run at once on a node; the others wait for a moment, which is not counted as their own time.
Frozen containers are left alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from node import logs
from node.checking import look
from node.conditions import Conditions
from node.runtime.protocol import Feature, Runtime
from scheduler.condition import HealthState
from scheduler.health import TaskHealth
from scheduler.model import AllocationId
from scheduler.spec.health import Health

CHECKS_AT_ONCE_MAX = 8
FROZEN_LOOK_S = 1.0
LOOPBACK = "127.0.0.1"
"""Where containers are that share the network of their host."""

Look = Callable[[Runtime, str, str, Health], Awaitable[str]]

log = logs.get("health")


def checks(features: frozenset[Feature], *, addressed: bool) -> str:
    """Return which checks a node can make, as it advertises them. `addressed`: its containers have addresses."""
    found = ["command"] if "enter" in features else []
    return ",".join([*found, *(["tcp"] if addressed or "network" not in features else [])])


class HealthWatch:
    """The checks of one node."""

    def __init__(self, runtime: Runtime, conditions: Conditions, look: Look = look) -> None:
        self._runtime = runtime
        self._look = look
        self._conditions = conditions
        self._at_once = trio.CapacityLimiter(CHECKS_AT_ONCE_MAX)

    async def watch(self, id: AllocationId, asked: Health, address: str) -> None:
        """Check a running container until cancelled, and tell what changes."""
        task = TaskHealth(asked, trio.current_time())
        self._tell(id, task)
        while True:
            await trio.sleep_until(task.next_s)
            if self._runtime.is_frozen(str(id)):
                await trio.sleep(FROZEN_LOOK_S)
                task.resume(trio.current_time())
                continue
            async with self._at_once:
                began_s = trio.current_time()
                failure = await self._look(self._runtime, str(id), address, asked)
            if self._runtime.is_frozen(str(id)):  # in the middle of the check, which says nothing then
                continue
            if task.checked(began_s, trio.current_time(), failure):
                self._tell(id, task)

    def _tell(self, id: AllocationId, task: TaskHealth) -> None:
        if task.state is HealthState.UNHEALTHY:
            log.warning("unhealthy", allocation=str(id), why=task.why)
        else:
            log.info(task.state.value, allocation=str(id))
        self._conditions.set(id, health=task.state, why=task.why)
