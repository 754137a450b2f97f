"""The cluster's settings on this node: kept in its ledger, told to everybody, and heard from them.

Every node gossips a digest of its settings. Who hears a digest other than its own sends what it has; whoever has more
answers with it. So a change reaches all within a few rounds of gossip, a node that was away learns what it missed from
whoever it meets, and no node is special. Owns the telling; what an entry means is settings.py's business.
"""

from __future__ import annotations

import msgspec

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.events import Publish, SetSetting
from scheduler.index import ClusterView
from scheduler.messages import SettingsAre
from scheduler.records import SETTINGS, Rows, read_table
from scheduler.settings import Entry, Settings
from scheduler.wall import WallClock

GOSSIP_KEY = "settings"
ENTRIES_PER_ITEM = 100
PEERS_PER_RING = 3

_encode = msgspec.msgpack.Encoder().encode


class SettingsExchange:
    """This node's copy. `changes` counts what was taken, so that others can see whether to look anew."""

    def __init__(
        self,
        config: SchedulerConfig,
        view: ClusterView,
        alarms: Alarms,
        number: int,
        settings: Settings,
        wall: WallClock,
    ) -> None:
        self._config = config
        self._view = view
        self._alarms = alarms
        self._number = number
        self._wall = wall
        self._differs: dict[str, bytes] = {}
        self._published = b""
        self.settings = settings
        self.changes = 0

    def restore(self, fx: Effects, rows: Rows) -> None:
        """Go on with what the ledger remembers."""
        self._take(fx, read_table(rows, SETTINGS, Entry).values())
        self._alarms.set(("settings", None), fx.now + self._config.settings_interval_s)

    def on_set(self, fx: Effects, event: SetSetting) -> None:
        """An operator's change; raises InvalidSpec and then has changed nothing."""
        entry = self.settings.written(event.name, event.value, self._number, event.unix_s)
        self._take(fx, (entry,))

    def on_heard(self, fx: Effects, node: str, digest: bytes) -> None:
        """Gossip of another node's settings."""
        if digest == self.settings.digest:
            self._differs.pop(node, None)
        else:
            self._differs[node] = digest
            self._tell(fx, node, answer=True)

    def on_told(self, fx: Effects, node: str, told: SettingsAre) -> None:
        """What another node has."""
        self._take(fx, told.entries)
        if told.answer and told.digest != self.settings.digest:
            self._tell(fx, node, answer=False)

    def ring(self, fx: Effects) -> None:
        """Tell again whoever still differs, and forget what is over."""
        for name in self.settings.forget(self._wall.unix_s(fx.now)):
            fx.delete(SETTINGS, name)
            self.changes += 1
        for node in [each for each in self._differs if self._view.alive(each)][:PEERS_PER_RING]:
            digest = self._differs.pop(node)
            if digest != self.settings.digest:
                self._differs[node] = digest
                self._tell(fx, node, answer=True)
        self._alarms.set(("settings", None), fx.now + self._config.settings_interval_s)

    def flush(self, fx: Effects) -> None:
        """At the end of an event: gossip a new digest."""
        if self._published != self.settings.digest:
            self._published = self.settings.digest
            fx.act(Publish(GOSSIP_KEY, self._published))

    def _take(self, fx: Effects, entries: object) -> None:
        for entry in self.settings.merge(entries, self._wall.unix_s(fx.now)):  # type: ignore[arg-type]
            fx.put(SETTINGS, entry.name, _encode(entry))
            self.changes += 1

    def _tell(self, fx: Effects, node: str, *, answer: bool) -> None:
        entries = self.settings.entries()
        for start in range(0, len(entries) or 1, ENTRIES_PER_ITEM):
            part = tuple(entries[start : start + ENTRIES_PER_ITEM])
            fx.say(node, SettingsAre(part, self.settings.digest, answer and start + ENTRIES_PER_ITEM >= len(entries)))
