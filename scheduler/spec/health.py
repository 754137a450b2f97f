"""How a task's health is checked, and what becomes of one that is not well.

Owns the words and their bounds. When a task counts as healthy is scheduler/health.py's; who looks is the node's.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterator

from scheduler.spec.files import Need
from scheduler.spec.part import Part, require

COMMAND_BYTES_MAX = 16_384
PORT_MAX = 65_535
PERIOD_S_MIN = 0.1
PERIOD_S_MAX = 86_400.0
COUNT_MAX = 1000
CHECKS = "checks"
"""The label in which nodes tell which checks they can make."""

_PATH = re.compile(r"/[\x21-\x7e]{0,1023}")
_HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]{0,253}")


class OnUnhealthy(enum.StrEnum):
    """What becomes of a task that is not healthy (any more)."""

    RESTART = "restart"
    REPORT = "report"


class HttpCheck(Part, frozen=True):
    """A GET request that must be answered with a status in the range. `host`: the Host header; "": the address."""

    port: int
    path: str = "/"
    host: str = ""
    status_min: int = 200
    status_max: int = 399


class Health(Part, frozen=True):
    """Exactly one of `command`, `tcp` (a port that must accept) and `http` says what is looked at, again and again."""

    command: tuple[str, ...] = ()
    tcp: int = 0
    http: HttpCheck | None = None
    interval_s: float = 10.0
    timeout_s: float = 3.0
    start_period_s: float = 10.0
    failures_max: int = 3
    successes_min: int = 1
    unhealthy: OnUnhealthy = OnUnhealthy.RESTART

    @property
    def connects(self) -> bool:
        """Whether the node connects to the task, instead of running something inside."""
        return not self.command


def check(health: Health) -> None:
    """Raise InvalidSpec for the first field that no cluster could take."""
    kinds = [name for name in ("command", "tcp", "http") if getattr(health, name)]
    require(len(kinds) == 1, "life.health", " and ".join(kinds) or "nothing", "exactly one of command, tcp and http")
    _check_command(health.command)
    require(0 <= health.tcp <= PORT_MAX, "life.health.tcp", health.tcp, "a port from 1 to 65535")
    if health.http is not None:
        _check_http(health.http)
    for name in ("interval_s", "timeout_s"):
        value = getattr(health, name)
        good = math.isfinite(value) and PERIOD_S_MIN <= value <= PERIOD_S_MAX
        require(good, f"life.health.{name}", value, f"seconds, from {PERIOD_S_MIN:g} to a day")
    start_s = health.start_period_s
    good = math.isfinite(start_s) and 0 <= start_s <= PERIOD_S_MAX
    require(good, "life.health.start_period_s", start_s, "seconds, from 0 to a day")
    for name in ("failures_max", "successes_min"):
        value = getattr(health, name)
        require(1 <= value <= COUNT_MAX, f"life.health.{name}", value, f"from 1 to {COUNT_MAX}")


def needs(health: Health) -> Iterator[Need]:
    """Yield what a node must have to carry this out."""
    yield CHECKS, "tcp" if health.connects else "command"


def _check_command(command: tuple[str, ...]) -> None:
    size = sum(len(word.encode()) for word in command)
    plain = size <= COMMAND_BYTES_MAX and not any("\0" in word for word in command)
    require(plain, "life.health.command", f"{size} bytes", f"words without NUL, {COMMAND_BYTES_MAX} bytes at most")
    require(not command or command[0], "life.health.command", list(command), "a command to run, then its arguments")


def _check_http(http: HttpCheck) -> None:
    require(1 <= http.port <= PORT_MAX, "life.health.http.port", http.port, "a port from 1 to 65535")
    expected = "a path such as /healthz, without blanks, 1024 characters at most"
    require(_PATH.fullmatch(http.path), "life.health.http.path", http.path, expected)
    require(_HOST.fullmatch(http.host), "life.health.http.host", http.host, "a host's name, as in a Host header")
    for name in ("status_min", "status_max"):
        value = getattr(http, name)
        require(100 <= value <= 599, f"life.health.http.{name}", value, "a status from 100 to 599")
    good = http.status_min <= http.status_max
    require(good, "life.health.http.status_max", http.status_max, f"at least status_min ({http.status_min})")
