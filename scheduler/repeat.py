"""What was said to a peer and not answered yet: said again, with backoff, for as long as it matters.

Owns the bookkeeping for one kind of entry (asks, stops, ends, waiting jobs) towards all peers; how entries become
items is the owner's `speak`. At most `window` entries are on their way to one peer; answers let the next ones go, so a
slow peer is never flooded. A peer that can't be reached is not spoken to; when it is back, everything goes again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class _Peer(Generic[K]):
    """`sent` remembers at which ring an entry was said: what was said since the last one is not late yet."""

    wait_s: float
    fresh: dict[K, None] = field(default_factory=dict)
    sent: dict[K, int] = field(default_factory=dict)
    rings: int = 0


class Repeat(Generic[K]):
    """Entries by peer: fresh (to be said at the end of this event) and sent (to be repeated when its alarm rings).

    `wait_s`: the first wait, the config's retry_s if not given.
    """

    def __init__(
        self,
        kind: str,
        config: SchedulerConfig,
        alarms: Alarms,
        reachable: Callable[[str], bool],
        speak: Callable[[Effects, str, list[K]], None],
        wait_s: float | None = None,
    ) -> None:
        self.kind = kind
        self._wait_s = wait_s if wait_s is not None else config.retry_s
        self._config = config
        self._alarms = alarms
        self._reachable = reachable
        self._speak = speak
        self._peers: dict[str, _Peer[K]] = {}
        self._touched: dict[str, None] = {}

    def say(self, peer: str, key: K) -> None:
        """Say this at the end of the event, and again until it is answered."""
        state = self._peers.get(peer)
        if state is None:
            state = self._peers[peer] = _Peer(self._wait_s)
        state.sent.pop(key, None)
        state.fresh[key] = None
        self._touched[peer] = None

    def answered(self, peer: str, key: K) -> None:
        """Stop repeating; an answer shows that the peer is well, so the backoff starts anew at its next ring."""
        state = self._peers.get(peer)
        if state is None:
            return
        state.sent.pop(key, None)
        state.fresh.pop(key, None)
        state.wait_s = self._wait_s
        self._touched[peer] = None

    def holds(self, peer: str, key: K) -> bool:
        """Whether this still waits for an answer."""
        state = self._peers.get(peer)
        return state is not None and (key in state.sent or key in state.fresh)

    def waiting(self, peer: str) -> int:
        """Return how many entries wait for this peer's answer."""
        state = self._peers.get(peer)
        return len(state.sent) + len(state.fresh) if state else 0

    def back(self, peer: str) -> None:
        """The peer can be reached (again): say everything anew."""
        state = self._peers.get(peer)
        if state is not None:
            state.fresh = {**dict.fromkeys(state.sent), **state.fresh}
            state.sent = {}
            state.wait_s = self._wait_s
            self._alarms.cancel((self.kind, peer))
            self._touched[peer] = None

    def forget(self, peer: str) -> None:
        """Say nothing more to this peer."""
        self._peers.pop(peer, None)
        self._alarms.cancel((self.kind, peer))

    def ring(self, fx: Effects, peer: str) -> None:
        """Repeat what was unanswered at the last ring already; the alarm (kind, peer) rang."""
        state = self._peers.get(peer)
        if state is None or not self._reachable(peer):
            return
        late = [key for key, rings in state.sent.items() if rings < state.rings]
        state.rings += 1
        if late:
            state.wait_s = min(2 * state.wait_s, self._config.retry_max_s)
            self._speak(fx, peer, late)
        self._touched[peer] = None

    def flush(self, fx: Effects) -> None:
        """Say what is fresh, as far as the window allows. Called once at the end of every event."""
        if self._touched:
            touched, self._touched = self._touched, {}
            for peer in touched:
                self._flush_peer(fx, peer)

    def _flush_peer(self, fx: Effects, peer: str) -> None:
        state = self._peers.get(peer)
        if state is None:
            return
        if not state.fresh and not state.sent:
            self.forget(peer)
            return
        if not self._reachable(peer):
            return
        keys = list(islice(state.fresh, max(0, self._config.window - len(state.sent))))
        for key in keys:
            del state.fresh[key]
            state.sent[key] = state.rings
        if keys:
            self._speak(fx, peer, keys)
        self._alarms.set_if_unset((self.kind, peer), fx.now + state.wait_s)
