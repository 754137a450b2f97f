"""What a door did since its start, in numbers; and a line of the log for each request, where that is wanted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from node import logs

TEXT_LENGTH_MAX = 200
GONE_STATUS = 499
"""Written for requests whose client went away before an answer began, as nginx does."""

log = logs.get("door")


@dataclass(slots=True)
class Record:
    """What is known of one request, filled in as it goes."""

    client: str
    method: str = ""
    host: str = ""
    target: str = ""
    site: str = ""
    status: int = 0
    refused: str = ""
    cold_ms: float | None = None
    began_s: float = 0.0
    received_bytes: int = 0
    sent_bytes: int = 0


@dataclass(slots=True)
class Counts:
    """Numbers that only grow, but for those of what is open now. `refused` has few keys: the kinds of problems."""

    connections: int = 0
    open_connections: int = 0
    waiting: int = 0
    requests: int = 0
    cold: int = 0
    answered: int = 0
    gone: int = 0
    retried: int = 0
    cut_short: int = 0
    tunnels: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, int]:
        """Return them by name; refusals as `refused_KIND`."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "refused"}
        return {**plain, **{f"refused_{kind.replace('-', '_')}": count for kind, count in self.refused.items()}}

    def add(self, record: Record) -> None:
        """Count a request that ended."""
        self.requests += 1
        self.cold += record.cold_ms is not None
        self.gone += record.status == GONE_STATUS
        if record.refused:
            self.refused[record.refused] += 1


def write(record: Record, now_s: float) -> None:
    """Write the line of a request that ended."""
    log.info(
        "request",
        client=record.client,
        method=record.method,
        host=record.host,
        target=record.target[:TEXT_LENGTH_MAX],
        status=record.status,
        ms=round((now_s - record.began_s) * 1000, 1),
        received=record.received_bytes,
        sent=record.sent_bytes,
        site=record.site,
        **({} if record.cold_ms is None else {"cold_ms": round(record.cold_ms)}),
        **({"refused": record.refused} if record.refused else {}),
    )
