"""Options of `fofoca submit`: when a job may start, in whose name it is queued, and where it may run."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import click

from node.errors import InvalidValue
from node.quantities import parse_duration

KINDS = ("after", "afterok", "afternotok", "afterany", "aftercorr")
DEPENDENCY_EXPECTED = (
    f"expected KIND:ID[:ID...] of the kinds {', '.join(KINDS)}, several parted by ',' (all) or '?' (one)"
)
BEGIN_EXPECTED = "expected now+1h, 16:30 or 2027-01-31T16:30"
_DATES = ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S")
_TIMES = ("%H:%M", "%H:%M:%S")
_WHOM = re.compile(r"(\d{1,19})(?:\+(.+))?", re.ASCII)

OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--dependency",
        metavar="KIND:ID,...",
        help="Wait for other jobs: afterok:1001, afterany:1001:2001, after:1001+5m; ',' is all of them, '?' is one.",
    ),
    click.option("--begin", metavar="WHEN", help="Not before then: now+1h, 16:30, 2027-01-31T16:30."),
    click.option("--nice", type=int, help="Take this off the priority."),
    click.option("--account", metavar="NAME", help="Whose share and limits it uses."),
    click.option("--partition", metavar="NAME", help="Nodes with limits and defaults; see `fofoca settings show`."),
    click.option("--reservation", metavar="NAME", help="Run on the nodes of this reservation."),
    click.option(
        "--licence", "licences", multiple=True, metavar="NAME[:COUNT]", help="For each task, over the whole cluster."
    ),
    click.option("--exclusive", is_flag=True, help="Have the node for itself: nothing else runs there meanwhile."),
    click.option("--hold", is_flag=True, help="Wait for `fofoca release`."),
    click.option(
        "--kill-on-invalid-dep", is_flag=True, help="Cancel the job when its dependencies can never be met any more."
    ),
)


def body(options: dict[str, Any]) -> dict[str, Any]:
    """Return the part's JSON; what was not asked for is left out."""
    found: dict[str, Any] = {}
    if options["dependency"]:
        found |= parse_dependencies(options["dependency"])
    if options["begin"]:
        found["begin_unix_s"] = parse_begin(options["begin"], time.time())
    for name in ("nice", "account", "partition", "reservation"):
        if options[name] is not None:
            found[name] = options[name]
    if options["licences"]:
        found["licences"] = counts(options["licences"], "licence")
    if options["exclusive"]:
        found["exclusive"] = True
    if options["hold"]:
        found["hold"] = True
    if options["kill_on_invalid_dep"]:
        found["unmet"] = "cancel"
    return found


def counts(pairs: tuple[str, ...], field: str) -> dict[str, int]:
    """Read NAME[:COUNT] several times; without a count it is one."""
    found: dict[str, int] = {}
    for pair in pairs:
        name, colon, count = pair.partition(":")
        if not name or (colon and not count.isdigit()) or name in found:
            raise InvalidValue(field, pair, "expected NAME or NAME:COUNT, each once")
        found[name] = int(count) if colon else 1
    return found


def parse_dependencies(text: str) -> dict[str, Any]:
    """Return the dependencies that Slurm's notation names; InvalidValue."""
    if "," in text and "?" in text:
        raise InvalidValue("dependency", text, "expected ',' or '?' between dependencies, not both")
    parts = [part.strip() for part in re.split(r"[,?]", text)]
    single = {"singleton": True} if "singleton" in parts and "?" not in text else {}
    after = [each for part in parts if not (single and part == "singleton") for each in _dependencies(part, text)]
    if single:
        return single | ({"after": after} if after else {})
    return {"after": after, "after_any": True} if "?" in text else {"after": after}


def _dependencies(part: str, text: str) -> list[dict[str, Any]]:
    kind, *whom = part.split(":")
    if kind not in KINDS or not whom:
        raise InvalidValue("dependency", text, DEPENDENCY_EXPECTED)
    return [_dependency(kind, each, text) for each in whom]


def _dependency(kind: str, whom: str, text: str) -> dict[str, Any]:
    match = _WHOM.fullmatch(whom)
    if match is None:
        raise InvalidValue("dependency", text, DEPENDENCY_EXPECTED)
    found: dict[str, Any] = {"kind": kind, "job": int(match[1])}
    if match[2]:
        found["delay_s"] = parse_duration(match[2], "dependency")
    return found


def parse_begin(text: str, now_unix_s: float) -> float:
    """Return a moment, read in the local time zone, as seconds since 1970; a time of day is the next such."""
    if text.startswith("now+"):
        return now_unix_s + parse_duration(text.removeprefix("now+"), "begin")
    now = datetime.fromtimestamp(now_unix_s)
    for form in _DATES:
        if (found := _read(text, form)) is not None:
            return found.timestamp()
    for form in _TIMES:
        if (found := _read(text, form)) is not None:
            moment = now.replace(hour=found.hour, minute=found.minute, second=found.second, microsecond=0)
            return (moment if moment > now else moment + timedelta(days=1)).timestamp()
    raise InvalidValue("begin", text, BEGIN_EXPECTED)


def _read(text: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(text, form)
    except ValueError:
        return None
