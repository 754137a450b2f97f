"""What the queue's leader has to know of this node at once: its newest report, and which orders it has answered for.

Repeated soon until the leader says that it knows, for room that the leader does not hear of stands empty while others
wait; gossip is the backstop. Owns what was not answered yet, not what a report says.
"""

from __future__ import annotations

from collections.abc import Callable

from scheduler.alarms import Alarms
from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.index import ClusterView
from scheduler.messages import Parting, Settled
from scheduler.repeat import Repeat

_News = Settled | Parting | None
"""What an order has come to, or a gang's member, as the newest report shows; None: the report alone."""


class Pushing:
    """`say_report` says the newest report to a node and returns its sequence."""

    def __init__(
        self,
        config: SchedulerConfig,
        view: ClusterView,
        alarms: Alarms,
        say_report: Callable[[Effects, str], int],
    ) -> None:
        self._view = view
        self._say_report = say_report
        self._said: dict[_News, int] = {}
        self._leader = view.leader
        self.parted_here: Callable[[Effects, Parting], None] = lambda _fx, _parting: None
        """Our own leader has to hear of it before it serves, in the same event: it sees the room already."""
        self._news: Repeat[_News] = Repeat(
            "pushes", config, alarms, view.alive, self._speak, wait_s=config.quick_retry_s
        )

    def report(self) -> None:
        """The leader is to know the newest report."""
        self._say(None)

    def settled(self, fx: Effects, epoch: int, go: int, count: int) -> None:
        """The leader is to know that so many tasks of its order are answered for, by the newest report."""
        settled = Settled(epoch, go, count)
        if self._view.leader == self._view.me:
            fx.say(self._view.me, settled)
        else:
            self._say(settled)

    def parted(self, fx: Effects, parting: Parting) -> None:
        """The leader is to know that the newest report shows a part of the room that a gang leaves."""
        if self._view.leader == self._view.me:
            self.parted_here(fx, parting)
        else:
            self._say(parting)

    def on_noted(self, leader: str, sequence: int) -> None:
        """The leader knows the report of that sequence, and what was said with it or before."""
        for news in [news for news, said in self._said.items() if said <= sequence]:
            del self._said[news]
            self._news.answered(leader, news)

    def on_up(self, node: str) -> None:
        """A node is back; if it leads, it is told again what it did not answer."""
        self._news.back(node)

    def ring(self, fx: Effects, leader: str) -> None:
        """Repeat what the leader did not answer."""
        self._news.ring(fx, leader)

    def flush(self, fx: Effects) -> None:
        """At the end of an event: say what is fresh."""
        self._follow()
        self._news.flush(fx)

    def _say(self, news: _News) -> None:
        self._follow()
        if self._view.leader != self._view.me:
            self._news.say(self._view.leader, news)

    def _follow(self) -> None:
        """Another node leads: it asks for what it needs."""
        if self._leader != self._view.leader:
            self._news.forget(self._leader)
            self._said.clear()
            self._leader = self._view.leader

    def _speak(self, fx: Effects, leader: str, found: list[_News]) -> None:
        sequence = self._say_report(fx, leader)
        for news in found:
            self._said[news] = sequence
            if news is not None:
                fx.say(leader, news)
