"""Which of several instances gets a request: smooth weighted round robin, as nginx has done it since 2012.

Every turn each instance gains its weight, the richest is chosen and pays what all gained: weights 5, 1, 1 give
a a b a c a a, not five in a row. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from scheduler.sites.site import SitePhase, SiteView

HOSTS_MAX = 10_000

_SOONEST = (SitePhase.THAWING, SitePhase.FROZEN, SitePhase.FREEZING, SitePhase.STARTING, SitePhase.ASLEEP)


class Chooser:
    """Remembers whose turn it is, for the hosts asked for most recently."""

    def __init__(self) -> None:
        self._credit: OrderedDict[str, dict[str, int]] = OrderedDict()

    def choose(self, host: str, views: Sequence[SiteView]) -> SiteView:
        """Return one of the awake; where none is, the sleeping one that is there soonest and was used least."""
        awake = [view for view in views if view.phase is SitePhase.AWAKE]
        if not awake:
            return min(views, key=_trouble)
        return awake[0] if len(awake) == 1 else self._next(host, awake)

    def _next(self, host: str, views: Sequence[SiteView]) -> SiteView:
        before = self._credit.pop(host, {})
        credit = self._credit[host] = {view.key: before.get(view.key, 0) + view.weight for view in views}
        if len(self._credit) > HOSTS_MAX:
            self._credit.popitem(last=False)
        chosen = max(views, key=lambda view: credit[view.key])
        credit[chosen.key] -= sum(view.weight for view in views)
        return chosen


def instance_of(key: str) -> str:
    """Return the number of the instance that a site's key names."""
    return key.rpartition(":")[2]


def _trouble(view: SiteView) -> tuple[int, int, float, str]:
    rank = _SOONEST.index(view.phase) if view.phase in _SOONEST else len(_SOONEST)
    if view.phase is SitePhase.BROKEN:
        rank += 1
    return rank, view.open, -view.idle_for_s, view.key
