"""How many may wait or be served at once, in all and for each site or client: bounds, and a refusal that says which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from node.door.http.refusals import Refused

FULL_RETRY_S = 2.0


class Places:
    """A number of places for all, and for each key."""

    def __init__(self, what: str, setting: str, all_max: int, each_setting: str, each_max: int) -> None:
        self._what = what
        self._setting, self._all_max = setting, all_max
        self._each_setting, self._each_max = each_setting, each_max
        self._taken: Counter[str] = Counter()
        self.count = 0

    @contextmanager
    def taken(self, key: str) -> Iterator[None]:
        """Have a place for a while; Refused where there is none."""
        if self.count >= self._all_max:
            raise _full(f"{self._what}: {self.count} in all", self._setting)
        if self._taken[key] >= self._each_max:
            raise _full(f"{self._what}: {self._taken[key]} for {key}", self._each_setting)
        self._taken[key] += 1
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]


def _full(what: str, setting: str) -> Refused:
    return Refused(503, "busy", f"{what}, as many as {setting} allows; come again", retry_s=FULL_RETRY_S)
