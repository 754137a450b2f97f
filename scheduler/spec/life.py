"""What happens when a service's process ends: whether it is started again, and after which pause; how it is checked."""

from __future__ import annotations

import enum
import math

from scheduler.spec import health
from scheduler.spec.health import Health
from scheduler.spec.part import Part, require

BACKOFF_MAX_S = 86_400.0


class Restart(enum.StrEnum):
    """When the task of a service is started again. What never ran, or was lost with its node, always is."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"


class Life(Part, frozen=True):
    """Restarts of a service. The pause doubles from the first to the longest; 0: as the cluster's own."""

    restart: Restart = Restart.ALWAYS
    backoff_s: float = 0.0
    backoff_max_s: float = 0.0
    health: Health | None = None

    def goes_on(self, success: bool) -> bool:
        """Whether a service is started again after its process ended like this."""
        return self.restart is Restart.ALWAYS or (self.restart is Restart.ON_FAILURE and not success)

    def pause_s(self, tries: int, first_s: float, longest_s: float) -> float:
        """Return the pause after so many tries, with the cluster's own bounds where the job has none."""
        first_s = self.backoff_s or first_s
        longest_s = max(first_s, self.backoff_max_s or longest_s)
        return min(first_s * 2.0 ** min(tries, 30), longest_s)


def check(life: Life) -> None:
    """Raise InvalidSpec for the first field that no cluster could take."""
    for name, value in (("backoff_s", life.backoff_s), ("backoff_max_s", life.backoff_max_s)):
        good = math.isfinite(value) and 0 <= value <= BACKOFF_MAX_S
        require(good, f"life.{name}", value, "seconds, from 0 (the cluster's own) to a day")
    ordered = not life.backoff_max_s or life.backoff_s <= life.backoff_max_s
    require(ordered, "life.backoff_max_s", life.backoff_max_s, "at least life.backoff_s")
    if life.health is not None:
        health.check(life.health)
