"""The judge: applies statements about members, runs suspicions and answers accusations.

Owns the transitions of the member table and what follows from them: notifications, rumours, suspicion time-outs. It
knows nothing of packets or of how evidence is gathered. After SWIM's suspicion mechanism and Lifeguard; `down` is
ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from cluster import wire
from cluster.config import MEMBERS_MAX
from cluster.core import Core
from cluster.effects import MemberChanged, NameConflict, StateChanged
from cluster.membership import Entry
from cluster.suspicion import Suspicion, timeout_s
from cluster.wire import Status

STATUS_OF: Final = {wire.Down: Status.DOWN, wire.Failed: Status.FAILED, wire.Left: Status.LEFT}


class Judge:
    """Decides what this node believes of the others. `check` is called to probe somebody who was accused by others."""

    def __init__(self, core: Core, check: Callable[[Entry], None]) -> None:
        self._core = core
        self._check = check
        self.leaving = False

    # -- what others say

    def hear(self, message: wire.Rumour, told_by: str) -> None:
        """Apply one statement; stale ones change nothing."""
        if message.name == self._core.identity.name:
            self._hear_of_self(message)
        elif isinstance(message, wire.Alive):
            self.hear_alive(message, told_by)
        elif isinstance(message, wire.Suspect):
            self._hear_suspect(message, told_by)
        else:
            self._hear_end(message, STATUS_OF[type(message)], told_by)

    def hear_alive(self, alive: wire.Alive, told_by: str, status: Status = Status.ALIVE, since_s: float = 0.0) -> None:
        """Take in a new member, or a member's newer assertion of itself."""
        core = self._core
        entry = core.table.get(alive.name)
        if entry is None:
            self._admit(alive, told_by, status, since_s or core.now_s)
            return
        known = entry.alive
        if (alive.boot_epoch, alive.incarnation) <= (known.boot_epoch, known.incarnation):
            core.rumours.heard(alive.name, wire.encode(alive), told_by) if core.rumours else None
            return
        reborn = alive.boot_epoch > known.boot_epoch
        moved = (alive.host, alive.port) != (known.host, known.port)
        if reborn:
            self._drop_state(alive.name)
        if entry.status == Status.SUSPECT:
            core.counters.suspicions_false += 1
        why = "restarted" if reborn else "refuted" if entry.status != Status.ALIVE else "asserted itself"
        self._change(entry, Status.ALIVE, f"{why} at {alive.host}:{alive.port}" if moved else why, alive.name, alive)
        core.tell(alive.name, alive, told_by)

    def _admit(self, alive: wire.Alive, told_by: str, status: Status, since_s: float) -> None:
        core = self._core
        config = core.config
        if len(core.table) >= MEMBERS_MAX - 1:
            return
        if alive.protocol_min > config.protocol_max or alive.protocol_max < config.protocol_min:
            return
        entry = Entry(alive, status, since_s)
        core.table.put(entry)
        core.refresh_digest(entry)
        core.effects.append(MemberChanged(entry.snapshot(), None, status, "joined", alive.name))
        if status == Status.ALIVE:
            core.tell(alive.name, alive, told_by)
        else:
            self._plan_forgetting(entry)

    def adopt(self, alive: wire.Alive) -> None:
        """Take in a member without a word."""
        core = self._core
        if alive.name != core.identity.name and core.table.get(alive.name) is None:
            entry = Entry(alive, Status.ALIVE, core.now_s)
            core.table.put(entry)
            core.refresh_digest(entry)

    def _drop_state(self, name: str) -> None:
        for key in self._core.store.forget(name):
            self._core.effects.append(StateChanged(name, key, None))

    def _hear_suspect(self, message: wire.Suspect, told_by: str) -> None:
        entry = self._core.table.get(message.name)
        if entry is None or not self._concerns(entry, message.boot_epoch, message.incarnation):
            return
        self._accuse(entry, message.by, message.silent, told_by)

    def _hear_end(self, message: wire.Down | wire.Failed | wire.Left, status: Status, told_by: str) -> None:
        entry = self._core.table.get(message.name)
        if entry is None or not self._concerns(entry, message.boot_epoch, message.incarnation):
            return
        if status <= entry.status:
            self._core.rumours.heard(message.name, wire.encode(message), told_by)
            return
        by = message.name if isinstance(message, wire.Left) else message.by
        self._end(entry, status, {Status.LEFT: "left", Status.DOWN: "refused"}.get(status, "no answer"), by, told_by)

    def _concerns(self, entry: Entry, boot_epoch: int, incarnation: int) -> bool:
        """Return whether a statement is about the member's present life, taking over a higher incarnation."""
        alive = entry.alive
        if boot_epoch != alive.boot_epoch or incarnation < alive.incarnation:
            return False
        if incarnation > alive.incarnation:
            newer = msgspec.structs.replace(alive, incarnation=incarnation)
            self._settle_suspicion(entry)
            self._change(entry, Status.ALIVE, "asserted itself", alive.name, newer)
        return True

    # -- what this node finds out itself

    def accuse(self, entry: Entry, silent: bool) -> None:
        """Start or confirm a suspicion in this node's own name."""
        self._accuse(entry, self._core.identity.name, silent, "")

    def declare_down(self, entry: Entry, refused_by: list[str]) -> None:
        """Declare an agent gone, its host having refused this node and others."""
        if entry.live:
            self._core.counters.downs += 1
            self._end(entry, Status.DOWN, f"refused {', '.join(refused_by)}", self._core.identity.name, "")

    def still_down(self, entry: Entry) -> None:
        """Note that the host of an agent that is down still answers."""
        self._settle_suspicion(entry)

    # -- suspicion

    def _accuse(self, entry: Entry, by: str, silent: bool, told_by: str) -> None:
        core = self._core
        if entry.status > Status.DOWN:
            return
        alive = entry.alive
        statement = wire.Suspect(alive.name, alive.boot_epoch, alive.incarnation, by, silent)
        suspicion = entry.suspicion
        if suspicion is None:
            entry.suspicion = suspicion = Suspicion(core.now_s, by, silent)
            core.counters.suspicions += 1
            if entry.status == Status.ALIVE:
                self._change(entry, Status.SUSPECT, "host answers, agent does not" if silent else "no answer", by)
            if by != core.identity.name:
                self._check(entry)
        elif not suspicion.confirm(by, silent, core.config.suspicion_confirmations):
            core.rumours.heard((alive.name, by), wire.encode(statement), told_by)
            return
        core.tell_accusation(statement, told_by)
        self._plan_expiry(entry, suspicion)

    def _plan_expiry(self, entry: Entry, suspicion: Suspicion) -> None:
        core = self._core
        members = len(core.table.live) + 1
        wait_s = timeout_s(core.config, members, suspicion.confirmations, suspicion.silent)
        deadline_s = max(core.now_s, suspicion.started_s + wait_s)
        if deadline_s != suspicion.deadline_s:
            suspicion.deadline_s = deadline_s
            core.timers.at(deadline_s, self._expire, entry, suspicion, deadline_s)

    def _expire(self, entry: Entry, suspicion: Suspicion, deadline_s: float) -> None:
        core = self._core
        if entry.suspicion is not suspicion or suspicion.deadline_s != deadline_s:
            return
        if entry.status == Status.DOWN and suspicion.confirmations < min(2, len(core.table.live) - 1):
            # One node's bad link must not turn "agent gone" into "host gone", since nobody is left to refute it.
            self._settle_suspicion(entry)
            return
        core.counters.failures += 1
        waited_s = core.now_s - suspicion.started_s
        why = f"suspected for {waited_s:.1f} s by {', '.join(suspicion.accusers)}"
        self._end(entry, Status.FAILED, why, core.identity.name, "")

    def _settle_suspicion(self, entry: Entry) -> None:
        if entry.suspicion is not None:
            self._core.drop_accusations(entry.name, entry.suspicion.accusers)
            entry.suspicion = None

    # -- transitions

    def _end(self, entry: Entry, status: Status, why: str, by: str, told_by: str) -> None:
        alive = entry.alive
        about = (alive.name, alive.boot_epoch, alive.incarnation)
        statement: wire.Rumour = wire.Left(*about)
        if status == Status.DOWN:
            statement = wire.Down(*about, by)
        elif status == Status.FAILED:
            statement = wire.Failed(*about, by)
        self._settle_suspicion(entry)
        self._change(entry, status, why, by)
        self._core.tell(alive.name, statement, told_by)
        self._plan_forgetting(entry)

    def _change(self, entry: Entry, status: Status, why: str, by: str, alive: wire.Alive | None = None) -> None:
        core = self._core
        old = entry.status
        moved = alive is not None and (alive.host, alive.port, alive.boot_epoch) != (
            entry.alive.host,
            entry.alive.port,
            entry.alive.boot_epoch,
        )
        if alive is not None:
            self._settle_suspicion(entry)
        core.table.change(entry, status, core.now_s, alive)
        core.refresh_digest(entry)
        if old != status or moved:
            core.effects.append(MemberChanged(entry.snapshot(), old, status, why, by))

    def _plan_forgetting(self, entry: Entry) -> None:
        due_s = entry.since_s + self.memory_s(entry.status)
        self._core.timers.at(due_s, self._forget, entry, entry.status, entry.since_s)

    def memory_s(self, status: Status) -> float:
        """Return for how long an ended member is remembered."""
        config = self._core.config
        return config.forget_left_after_s if status == Status.LEFT else config.forget_after_s

    def _forget(self, entry: Entry, status: Status, since_s: float) -> None:
        core = self._core
        if (entry.status, entry.since_s) != (status, since_s) or core.table.get(entry.name) is not entry:
            return
        self._settle_suspicion(entry)
        core.table.forget(entry)
        core.drop_digest(entry)
        self._drop_state(entry.name)
        core.effects.append(MemberChanged(entry.snapshot(), status, None, "forgotten", core.identity.name))

    # -- being spoken of

    def _hear_of_self(self, message: wire.Rumour) -> None:
        identity = self._core.identity
        said = (message.boot_epoch, message.incarnation)
        if self.leaving or said < (identity.boot_epoch, identity.incarnation):
            return
        if isinstance(message, wire.Alive):
            self._hear_namesake(message, said)
            return
        self._core.counters.refutations += 1
        if isinstance(message, wire.Suspect):
            self._core.health.change(+1)
        self._core.assert_identity(message.boot_epoch, message.incarnation + 1)

    def _hear_namesake(self, alive: wire.Alive, said: tuple[int, int]) -> None:
        core = self._core
        if alive.session == core.session:
            return
        if (alive.host, alive.port) == core.identity.address:
            # An earlier life that counted further than our disk remembers: go on above it.
            core.assert_identity(alive.boot_epoch, alive.incarnation + 1)
        elif said > (core.identity.boot_epoch, core.identity.incarnation):
            core.effects.append(NameConflict((alive.host, alive.port)))
