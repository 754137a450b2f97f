"""Who is alive, as a model: each node looks around at its own pace and needs a while to believe that another is gone.

Stands in for gossip where a world is about scheduling: verdicts come late, at different times at different nodes, and
can be wrong for a while; published values spread within one look. Tells crashed agents (their host still answers) from
unreachable hosts, as the real membership does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scheduler.events import Heard, MemberDown, MemberFailed, MemberForgotten, MemberLeft, MemberUp

if TYPE_CHECKING:
    from sim.world import World
    from sim.world_host import Host

ALIVE, FORGOTTEN = "alive", "forgotten"
FORGET_S = 900.0
"""Whoever failed or left so long ago is forgotten, as gossip's own bound has it; longer than any cut that heals."""
_VERDICTS: dict[str, type[MemberLeft | MemberDown | MemberFailed]] = {
    "left": MemberLeft,
    "down": MemberDown,
    "failed": MemberFailed,
}


@dataclass(slots=True)
class _Opinion:
    """What one node thinks of another; `doubted_s`: since when it has looked otherwise."""

    verdict: str = ""
    boot_epoch: int = 0
    doubted_s: float | None = None
    heard: dict[str, int] = field(default_factory=dict)


class Members:
    """The opinions of all nodes on each other."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._opinions: dict[tuple[str, int], dict[str, _Opinion]] = {}
        for host in world.hosts.values():
            rng = world.kernel.random("looks", host.name)
            pace_s, patience_s = rng.uniform(0.1, 0.5), rng.uniform(0.5, 3.0)
            world.kernel.after(pace_s, self._look, host, pace_s, patience_s)

    def endpoint(self, name: str) -> str:
        """Return the network endpoint through which hosts look at each other: that of their agents."""
        return name

    def started(self, host: Host) -> None:
        """An agent started; others will see it when they look."""

    def stopped(self, host: Host) -> None:
        """An agent ended; others will see it when they look."""

    def published(self, host: Host, key: str, value: bytes) -> None:
        """An agent publishes something; others will hear it when they look."""
        host.published[key] = (self._world.count(), value)

    def accuse(self, accuser: str, accused: str) -> None:
        """Make one node believe, wrongly, that another has failed; it will see its error at its next look."""
        host = self._world.hosts[accuser]
        opinion = self._of(host).get(accused)
        if host.agent is not None and opinion is not None and opinion.verdict == ALIVE:
            opinion.verdict = "failed"
            host.post(MemberFailed(accused))

    def _of(self, host: Host) -> dict[str, _Opinion]:
        return self._opinions.setdefault((host.name, host.boot_epoch), {})

    def _look(self, host: Host, pace_s: float, patience_s: float) -> None:
        self._world.kernel.after(pace_s, self._look, host, pace_s, patience_s)
        for other in self._world.hosts.values():
            if host.agent is None:
                return
            if other is not host:
                self._judge(host, other, self._of(host).setdefault(other.name, _Opinion()), patience_s)

    def _judge(self, host: Host, other: Host, opinion: _Opinion, patience_s: float) -> None:
        seen = self._see(host, other)
        if seen == ALIVE:
            if opinion.verdict != ALIVE or opinion.boot_epoch != other.boot_epoch:
                opinion.verdict, opinion.boot_epoch, opinion.doubted_s = ALIVE, other.boot_epoch, None
                host.post(MemberUp(other.name, other.number, other.boot_epoch))
            opinion.doubted_s = None
            self._hear(host, other, opinion)
            return
        now = self._world.kernel.now
        if opinion.doubted_s is None:
            opinion.doubted_s = now
        if opinion.verdict in ("failed", "left") and now - opinion.doubted_s >= FORGET_S:
            opinion.verdict = FORGOTTEN
            host.post(MemberForgotten(other.name))
        if opinion.verdict not in ("", FORGOTTEN, seen) and now - opinion.doubted_s >= patience_s:
            opinion.verdict = seen
            host.post(_VERDICTS[seen](other.name))

    def _see(self, host: Host, other: Host) -> str:
        network = self._world.network
        if not (network.reachable(host.name, other.name) and network.reachable(other.name, host.name)):
            return "left" if other.left else "failed"
        if other.agent is not None:
            return ALIVE
        return "left" if other.left else "down"

    def _hear(self, host: Host, other: Host, opinion: _Opinion) -> None:
        for key, (version, value) in other.published.items():
            if opinion.heard.get(key) != version:
                opinion.heard[key] = version
                host.post(Heard(other.name, key, value))
