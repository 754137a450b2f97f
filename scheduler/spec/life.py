"""What happens when a service's process ends: whether it is started again, and after which pause; how it is checked."""

from __future__ import annotations

import enum
import math

from scheduler.spec import health
from scheduler.spec.health import Health
from scheduler.spec.part import Part, require

BACKOFF_MAX_S = 86_400.0
WARN_MAX_S = 604_800.0
SIGNALS = ("TERM", "INT", "QUIT", "HUP", "ABRT", "USR1", "USR2", "ALRM", "WINCH")
"""What a task may be told by; KILL is what follows in any case."""


class Restart(enum.StrEnum):
    """When the task of a service is started again. What never ran, or was lost with its node, always is."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"


class Life(Part, frozen=True):
    """Restarts of a service. The pause doubles from the first to the longest; 0: as the cluster's own.

    A task is asked to end by `stop_signal`, and warned `warn_s` before its time limit by `warn_signal`, if there is one
    (`warn_alone`: its command, and nothing that it started).
    """

    restart: Restart = Restart.ALWAYS
    backoff_s: float = 0.0
    backoff_max_s: float = 0.0
    health: Health | None = None
    stop_signal: str = "TERM"
    warn_signal: str = ""
    warn_s: float = 0.0
    warn_alone: bool = False

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
    _check_signals(life)


def _check_signals(life: Life) -> None:
    expected = f"one of {', '.join(SIGNALS)}"
    require(life.stop_signal in SIGNALS, "life.stop_signal", life.stop_signal, expected)
    require(not life.warn_signal or life.warn_signal in SIGNALS, "life.warn_signal", life.warn_signal, expected)
    good = math.isfinite(life.warn_s) and 0 <= life.warn_s <= WARN_MAX_S
    require(good, "life.warn_s", life.warn_s, "seconds, up to a week")
    require(
        bool(life.warn_signal) == (life.warn_s > 0), "life.warn_s", life.warn_s, "more than 0 with life.warn_signal"
    )
    require(life.warn_signal or not life.warn_alone, "life.warn_alone", life.warn_alone, "given with life.warn_signal")
