"""What each container of this node is doing just now, put together from those who know a part of it.

The image exchange knows what is fetched, the health watch how it is, and whoever freezes it says so. Told to the
scheduling machine when it changes, and only then.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from scheduler.condition import ORDINARY, Condition
from scheduler.events import ContainerCondition, Event
from scheduler.model import AllocationId


class Conditions:
    """Of the containers that are `live`, which have not ended."""

    def __init__(self, post: Callable[[Event], None], live: Callable[[AllocationId], bool]) -> None:
        self._post = post
        self._live = live
        self._known: dict[AllocationId, Condition] = {}

    def set(self, id: AllocationId, **changes: object) -> None:
        """Change parts of a container's condition, by the names of Condition."""
        before = self._known.get(id, ORDINARY)
        after = msgspec.structs.replace(before, **changes)
        if after != before and self._live(id):
            self._known[id] = after
            self._post(ContainerCondition(id, after))

    def set_frozen(self, container: str, frozen: bool) -> None:
        """Somebody froze a container, or let it go on."""
        self.set(AllocationId.parse(container), frozen=frozen)

    def forget(self, id: AllocationId) -> None:
        """It has ended."""
        self._known.pop(id, None)
