"""What a front end asks for: the headers of a request, or the JSON of POST /v1/sites, as one wish.

Headers, as the hosting platform's front ends send them; each is said once, and means nothing unless its sender is one
of the door's front ends:

    X-Backend         b:u:USER:INSTANCE      the site's key; names its container
    X-User            shimoo                 who owns it
    X-User-Domains    a.br,b.br              hosts that lead to it; that of the request counts too
    X-Homedir         POOL/SHELF/USER/home   a folder below the volume `homes`, the container's /home/USER
    X-Application     tomcat8;jdk=8          what runs, from the catalogue, with options
    X-Instance        1                      which of several containers of one application, as X-Backend says it
    X-Memory-Limit    256                    MiB
    X-CPU-Limit       25                     per cent of one core
    X-Idle-Timeout    5                      minutes without a request until it is frozen (X-Idle-Timout is taken too)
    X-Realhost        shimoo.com.br          the host name that the application is told
    X-Weight          1                      its share among instances with the same hosts
    X-Min-Instances   0                      so many of the instances, from the first, are always on

JSON has more: `frozen_minutes` (from freezing to stopping), `always_on` (this instance, whatever its number).

Owns names, units and bounds. Knows neither applications nor nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec

from node.errors import InvalidValue
from node.tokens import USER_NAME

HEADERS = {
    "x-backend": "backend",
    "x-user": "user",
    "x-user-domains": "domains",
    "x-homedir": "home",
    "x-application": "application",
    "x-instance": "instance",
    "x-memory-limit": "memory_mib",
    "x-cpu-limit": "cpu_percent",
    "x-idle-timeout": "idle_minutes",
    "x-idle-timout": "idle_minutes",
    "x-realhost": "realhost",
    "x-weight": "weight",
    "x-min-instances": "min_instances",
}
"""Header (in small letters) to field of the wish; the slide's spelling of the time-out counts too."""

DOMAINS_MAX = 100
INSTANCE_MAX = 9999
MEMORY_MIB_MIN, MEMORY_MIB_MAX = 4, 1 << 20
CPU_PERCENT_MAX = 25_600
IDLE_MINUTES_MAX = 7 * 24 * 60
WEIGHT_MAX = 1000
REQUIRED = ("x-backend", "x-user", "x-application")
EXPECTED = {
    "user": "a user's name: 1 to 32 small letters, digits, . _ -",
    "domains": "names of hosts (letters, digits, - and dots), with commas between",
    "instance": f"from 1 to {INSTANCE_MAX}",
    "memory_mib": f"MiB, from {MEMORY_MIB_MIN} to {MEMORY_MIB_MAX}",
    "cpu_percent": f"per cent of one core, from 1 to {CPU_PERCENT_MAX}",
    "idle_minutes": f"minutes, more than 0, at most {IDLE_MINUTES_MAX}",
    "weight": f"from 1 to {WEIGHT_MAX}",
    "min_instances": f"from 0 to {INSTANCE_MAX}",
    "home": "a path below the volume `homes`, such as pool/shimoo/home: relative, 16 parts of letters, digits, . _ + - "
    "at most, none of them . or ..",
}
"""What would be right, after `expected`."""

BUSY_S_MAX = 7 * 86_400.0

_BACKEND = re.compile(r"b:u:([a-z0-9_][a-z0-9._-]{0,31}):([1-9][0-9]{0,3})", re.ASCII)
_HOST = re.compile(
    r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII
)
_FOLDER = re.compile(r"(?!\.{1,2}(/|$))[A-Za-z0-9_.+-]+(/(?!\.{1,2}(/|$))[A-Za-z0-9_.+-]+){0,15}", re.ASCII)

Minutes = Annotated[float, msgspec.Meta(gt=0, le=IDLE_MINUTES_MAX)]


class Wish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One site as it is asked for; the body of POST /v1/sites. What is left out is the catalogue's to say."""

    backend: str
    user: str
    application: str
    domains: tuple[str, ...] = ()
    home: str = ""
    instance: int | None = None
    memory_mib: int | None = None
    cpu_percent: int | None = None
    idle_minutes: float | None = None
    frozen_minutes: float | None = None
    realhost: str = ""
    weight: int = 1
    always_on: bool = False
    min_instances: int | None = None

    @property
    def number(self) -> int:
        """Which instance it is, as its key says."""
        return int(self.backend.rpartition(":")[2])


class Busy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how long a site counts as used, whoever asks for it or not; the body of POST /v1/sites/KEY/busy."""

    for_s: float


def busy_s(busy: Busy) -> float:
    """Return for how long, in seconds; InvalidValue."""
    if not 0 < busy.for_s <= BUSY_S_MAX:
        raise InvalidValue("for_s", busy.for_s, f"expected seconds, more than 0, at most {BUSY_S_MAX:.0f}")
    return busy.for_s


def has_wish(headers: Mapping[str, str]) -> bool:
    """Whether a request asks for a site by headers, and not only by its host."""
    return "x-backend" in headers or "x-application" in headers


def from_headers(headers: Mapping[str, str]) -> Wish:
    """Read and check a request's headers (names in small letters); InvalidValue names the header that is wrong."""
    found: dict[str, object] = {}
    for header, field in HEADERS.items():
        if header not in headers:
            continue
        value = _read(header, field, headers[header].strip())
        if found.setdefault(field, value) != value:
            raise InvalidValue(_title(header), headers[header], "expected what the other spelling says, or one of both")
    if missing := [_title(header) for header in REQUIRED if not found.get(HEADERS[header])]:
        raise InvalidValue(missing[0], "", "a site is asked for with X-Backend, X-User and X-Application, all three")
    wish = Wish(**found)  # type: ignore[arg-type]
    check(wish, by_header=True)
    return wish


def check(wish: Wish, *, by_header: bool = False) -> None:
    """Raise InvalidValue unless every value is within its bounds; fields are called by their header if they came so."""
    names = {field: _title(header) for header, field in reversed(HEADERS.items())} if by_header else {}

    def require(good: object, field: str, value: object, expected: str) -> None:
        if not good:
            raise InvalidValue(names.get(field, field), str(value), expected)

    backend = _BACKEND.fullmatch(wish.backend)
    require(USER_NAME.fullmatch(wish.user), "user", wish.user, f"expected {EXPECTED['user']}")
    require(backend, "backend", wish.backend, "expected b:u:USER:INSTANCE, such as b:u:shimoo:1")
    assert backend is not None
    require(backend[1] == wish.user, "backend", wish.backend, f"expected a backend of user {wish.user}")
    good = wish.instance in (None, wish.number)
    require(good, "instance", wish.instance, f"expected {wish.number}, as the backend {wish.backend} says")
    require(len(wish.domains) <= DOMAINS_MAX, "domains", len(wish.domains), f"expected at most {DOMAINS_MAX}")
    for domain in wish.domains:
        require(is_host(domain), "domains", domain, f"expected {EXPECTED['domains']}")
    require(not wish.realhost or is_host(wish.realhost), "realhost", wish.realhost, "expected the name of a host")
    require(not wish.home or _FOLDER.fullmatch(wish.home), "home", wish.home, f"expected {EXPECTED['home']}")
    for field, good in _bounded(wish):
        require(good, field, getattr(wish, field), f"expected {EXPECTED[field]}")
    frozen = wish.frozen_minutes
    good = frozen is None or 0 <= frozen <= IDLE_MINUTES_MAX
    require(good, "frozen_minutes", frozen, f"expected minutes, from 0 to {IDLE_MINUTES_MAX}")


def _bounded(wish: Wish) -> Iterator[tuple[str, bool]]:
    """Yield the numbers of a wish that may be said by header too, and whether each is within its bounds."""
    memory, cpu, idle, least = wish.memory_mib, wish.cpu_percent, wish.idle_minutes, wish.min_instances
    yield "memory_mib", memory is None or MEMORY_MIB_MIN <= memory <= MEMORY_MIB_MAX
    yield "cpu_percent", cpu is None or 1 <= cpu <= CPU_PERCENT_MAX
    yield "idle_minutes", idle is None or 0 < idle <= IDLE_MINUTES_MAX
    yield "weight", 1 <= wish.weight <= WEIGHT_MAX
    yield "min_instances", least is None or 0 <= least <= INSTANCE_MAX


def is_host(text: str) -> bool:
    """Whether a text is the name of a host, in small letters."""
    return _HOST.fullmatch(text) is not None


def host_of(header: str) -> str:
    """Return the name in a Host header, in small letters and without its port."""
    name, colon, port = header.strip().lower().rpartition(":")
    return (name if colon and port.isdigit() else header.strip().lower()).removesuffix(".")


def _read(header: str, field: str, text: str) -> object:
    if field == "domains":
        return tuple(part.strip().lower() for part in text.split(",") if part.strip())
    if field == "realhost":
        return text.lower()
    if field in ("instance", "memory_mib", "cpu_percent", "weight", "min_instances"):
        if not text.isascii() or not text.isdigit() or len(text) > 10:
            raise InvalidValue(_title(header), text, f"expected a whole number: {EXPECTED[field]}")
        return int(text)
    if field == "idle_minutes":
        if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text, re.ASCII) is None:
            raise InvalidValue(_title(header), text, f"expected {EXPECTED[field]}")
        return float(text)
    return text


def _title(header: str) -> str:
    title = "-".join(word.capitalize() for word in header.split("-"))
    return title.replace("Cpu", "CPU")
