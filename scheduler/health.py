"""Is a task well? One machine for each task: the outcome of a check in, the task's state and the next check's time out.

A task that starts has its grace: what fails then does not count, and it is looked at more often, so that one that is up
soon is known to be. Later so many failures in a row make it unhealthy, so many successes in a row healthy (again); the
rules of Docker's HEALTHCHECK and of Kubernetes' probes, put together. Knows no check and no clock.
"""

from __future__ import annotations

import enum

from scheduler.condition import Condition, HealthState, bounded
from scheduler.spec.health import Health

STARTING_INTERVAL_S = 1.0
"""Between checks in the grace, or less where the job says so."""


class Turn(enum.StrEnum):
    """What a row of checks has shown."""

    RISEN = "risen"
    FALLEN = "fallen"


TABLE: dict[HealthState, dict[Turn, HealthState]] = {
    HealthState.STARTING: {Turn.RISEN: HealthState.HEALTHY, Turn.FALLEN: HealthState.UNHEALTHY},
    HealthState.HEALTHY: {Turn.FALLEN: HealthState.UNHEALTHY},
    HealthState.UNHEALTHY: {Turn.RISEN: HealthState.HEALTHY},
}
"""What is not listed changes nothing."""


class TaskHealth:
    """The health of one task from `now_s` on. `next_s`: when it is to be checked next."""

    def __init__(self, asked: Health, now_s: float) -> None:
        self._asked = asked
        self._grace_until_s = now_s + asked.start_period_s
        self._good = self._bad = 0
        self.state = HealthState.STARTING
        self.why = ""
        self.next_s = now_s

    def checked(self, began_s: float, now_s: float, failure: str) -> bool:
        """Take the outcome of a check ("": it went well); return whether there is something to tell."""
        before = self.state, bool(self.why)
        in_grace = self.state is HealthState.STARTING and began_s < self._grace_until_s
        if failure:
            self._failed(failure, counts=not in_grace)
        else:
            self._succeeded()
        interval_s = self._asked.interval_s
        if in_grace and failure:
            interval_s = min(interval_s, STARTING_INTERVAL_S)
        self.next_s = max(now_s, began_s + interval_s)
        return before != (self.state, bool(self.why))

    def resume(self, now_s: float) -> None:
        """It was frozen, and nobody looked: what failed before does not count."""
        self._bad = 0
        self.next_s = now_s

    def condition(self) -> Condition:
        """Return how it is."""
        return Condition(health=self.state, why=self.why)

    def _failed(self, failure: str, *, counts: bool) -> None:
        self._good = 0
        self._bad += counts
        if self._bad >= self._asked.failures_max:
            self._turn(Turn.FALLEN, bounded(failure))
        elif self.state is HealthState.STARTING:
            self.why = self.why or bounded(failure)

    def _succeeded(self) -> None:
        self._bad = 0
        self._good += 1
        if self._good >= self._asked.successes_min:
            self._turn(Turn.RISEN, "")

    def _turn(self, turn: Turn, why: str) -> None:
        after = TABLE[self.state].get(turn)
        if after is not None:
            self.state, self.why = after, why
