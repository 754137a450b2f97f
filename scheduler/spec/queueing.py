"""When a job may start, in whose name it is queued, and where it may run.

The kinds of dependencies and what they mean are Slurm's (`sbatch --dependency`), whose users need learn nothing new.
"""

from __future__ import annotations

import enum
import math
import re

import msgspec

from scheduler.spec.part import Part, require

DEPENDENCIES_MAX = 100
DELAY_MAX_S = 366 * 86_400.0
UNIX_MAX_S = 1e11
NICE_MAX = 1_000_000
LICENCES_MAX = 16
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}")


class After(enum.StrEnum):
    """What has to have happened to the other job."""

    AFTER = "after"  # all its tasks began, or it was cancelled
    OK = "afterok"  # it ended, and every task succeeded
    NOT_OK = "afternotok"  # it ended, and not every task succeeded
    ANY = "afterany"  # it ended
    CORRESPONDING = "aftercorr"  # task by task: the one of the same index succeeded


class Unmet(enum.StrEnum):
    """What becomes of a job whose dependencies can never be met any more."""

    KEEP = "keep"
    CANCEL = "cancel"


class Dependency(Part, frozen=True):
    """One other job of the same owner, at whichever home. `delay_s` counts from its begin, for `after` alone."""

    kind: After
    job: int
    delay_s: float = 0.0


class Queueing(Part, frozen=True):
    """When a job may start, in whose name it is queued, and where it may run."""

    hold: bool = False
    begin_unix_s: float = 0.0
    after: tuple[Dependency, ...] = ()
    after_any: bool = False
    unmet: Unmet = Unmet.KEEP
    nice: int = 0
    account: str = ""
    partition: str = ""
    reservation: str = ""
    exclusive: bool = False
    singleton: bool = False
    licences: dict[str, int] = msgspec.field(default_factory=dict)

    @property
    def corresponding(self) -> Dependency | None:
        """The dependency whose tasks free this job's tasks one by one, if there is one."""
        return next((each for each in self.after if each.kind is After.CORRESPONDING), None)


def check(queueing: Queueing) -> None:
    """Raise InvalidSpec for the first field that no cluster could take."""
    begin = queueing.begin_unix_s
    require(0 <= begin <= UNIX_MAX_S, "queueing.begin_unix_s", begin, "a time in seconds since 1970")
    _check_after(queueing)
    require(abs(queueing.nice) <= NICE_MAX, "queueing.nice", queueing.nice, f"from -{NICE_MAX} to {NICE_MAX}")
    for field in ("account", "partition", "reservation"):
        name = getattr(queueing, field)
        require(not name or _NAME.fullmatch(name), f"queueing.{field}", name, "a name")
    require(
        len(queueing.licences) <= LICENCES_MAX, "queueing.licences", len(queueing.licences), f"{LICENCES_MAX} at most"
    )
    for name, count in queueing.licences.items():
        require(_NAME.fullmatch(name), "queueing.licences", name, "a licence's name")
        require(1 <= count <= 1 << 40, f"queueing.licences {name}", count, "a count from 1")


def _check_after(queueing: Queueing) -> None:
    after = queueing.after
    require(len(after) <= DEPENDENCIES_MAX, "queueing.after", len(after), f"at most {DEPENDENCIES_MAX} dependencies")
    require(len(set(after)) == len(after), "queueing.after", len(after), "each dependency once")
    for each in after:
        _check_dependency(each)
    one_by_one = sum(each.kind is After.CORRESPONDING for each in after)
    require(one_by_one <= 1, "queueing.after", f"{one_by_one} aftercorr", "aftercorr for one job at most")
    require(
        not (one_by_one and queueing.after_any), "queueing.after_any", True, "aftercorr can't be one of alternatives"
    )


def _check_dependency(each: Dependency) -> None:
    require(each.job > 0, "queueing.after.job", each.job, "a job's id")
    good = math.isfinite(each.delay_s) and 0 <= each.delay_s <= DELAY_MAX_S
    require(good, "queueing.after.delay_s", each.delay_s, "seconds, a year at most")
    delayed = each.delay_s > 0
    require(
        not delayed or each.kind is After.AFTER, "queueing.after.delay_s", each.delay_s, "a delay with `after` only"
    )
