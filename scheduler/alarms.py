"""Named alarms on one heap: set, move, cancel, take what is due. Owns no clock.

Lazy deletion: a moved or cancelled alarm stays in the heap until it surfaces, so every operation is O(log n).
"""

from __future__ import annotations

import heapq

Key = tuple[str, object]


class Alarms:
    """One time for each key (kind, detail)."""

    def __init__(self) -> None:
        self._at: dict[Key, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._count = 0

    def set(self, key: Key, at: float) -> None:
        """Ring at `at`, instead of any earlier setting of this key."""
        self._count += 1
        self._at[key] = (at, self._count)
        heapq.heappush(self._heap, (at, self._count, key))
        if len(self._heap) > 64 + 4 * len(self._at):
            self._compact()

    def set_if_unset(self, key: Key, at: float) -> None:
        """Ring at `at` unless the key has a time already."""
        if key not in self._at:
            self.set(key, at)

    def cancel(self, key: Key) -> None:
        """Forget this key."""
        self._at.pop(key, None)

    def next(self) -> float | None:
        """Return the earliest time set, or None."""
        self._skim()
        return self._heap[0][0] if self._heap else None

    @property
    def mark(self) -> int:
        """A number that tells alarms set before now from those set later."""
        return self._count

    def pop_due(self, now: float, mark: int) -> Key | None:
        """Remove and return the earliest key that is due at `now`, or None.

        One set after `mark` is left for the next time, so that an alarm which sets itself for at once traps nobody.
        """
        self._skim()
        if not self._heap or self._heap[0][0] > now or self._heap[0][1] > mark:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._at[key]
        return key

    def _skim(self) -> None:
        while self._heap and self._at.get(self._heap[0][2]) != self._heap[0][:2]:
            heapq.heappop(self._heap)

    def _compact(self) -> None:
        self._heap = [(at, count, key) for key, (at, count) in self._at.items()]
        heapq.heapify(self._heap)
