"""Spreading: which rumours go into the next packet, and when a rumour has been told often enough.

Owns a queue of encoded messages with a send budget each. It knows nothing of what they say, of packets or of timers.
After SWIM's piggyback queue and memberlist's transmit-limited queue (fewest sends first, newer replaces older); that
no rumour goes to a peer that has told it, or was told it by us, is ours.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

SCAN_MAX: Final = 256  # Items looked at for one packet; bounds the work when the queue is long.


class Item:
    """One rumour under way."""

    __slots__ = ("data", "key", "knowers", "sends")

    def __init__(self, key: Hashable, data: bytes, knowers: set[str]) -> None:
        self.key = key
        self.data = data
        self.knowers = knowers
        self.sends = 0


class Spreader:
    """The rumours still to tell, by how often they were told. One item a key, so keys bound its length."""

    def __init__(self) -> None:
        self._items: dict[Hashable, Item] = {}
        self._tiers: list[dict[Hashable, Item]] = [{}]

    def __len__(self) -> int:
        return len(self._items)

    def add(self, key: Hashable, data: bytes, told_by: str = "") -> None:
        """Queue a rumour, replacing the one of the same key."""
        self.drop(key)
        item = self._items[key] = Item(key, data, {told_by} if told_by else set())
        self._tiers[0][key] = item

    def drop(self, key: Hashable) -> None:
        """Forget a rumour, if it is there."""
        item = self._items.pop(key, None)
        if item is not None:
            del self._tiers[item.sends][key]

    def heard(self, key: Hashable, data: bytes, told_by: str) -> None:
        """Note that a peer knows this very rumour, so that it isn't told again."""
        item = self._items.get(key)
        if item is not None and item.data == data:
            item.knowers.add(told_by)

    def take(self, peer: str, room: int, sends_max: int) -> list[bytes]:
        """Return what to tell a peer now, at most `room` bytes, least told first; what was told enough is dropped."""
        taken: list[Item] = []
        scanned = 0
        for tier in self._tiers:
            for item in tier.values():
                scanned += 1
                if len(item.data) <= room and peer not in item.knowers:
                    room -= len(item.data)
                    taken.append(item)
                if scanned >= SCAN_MAX or room < 8:
                    break
            else:
                continue
            break
        for item in taken:
            self._told(item, peer, sends_max)
        return [item.data for item in taken]

    def _told(self, item: Item, peer: str, sends_max: int) -> None:
        del self._tiers[item.sends][item.key]
        item.knowers.add(peer)
        item.sends += 1
        if item.sends >= sends_max:
            del self._items[item.key]
            return
        while len(self._tiers) <= item.sends:
            self._tiers.append({})
        self._tiers[item.sends][item.key] = item
