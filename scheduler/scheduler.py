"""One node's whole deciding: home, queue leader and executing node as one machine.

Owns the one mutating entry, `handle(now, event) -> Outcome`: first make the changes durable, then carry out the
actions. Who hears of what is said in `routing.py`, `mail.py` and `ringing.py`; each of the `parts.py` owns its own
facts. Pure: no clock, no I/O; time is an argument, randomness a seed. An event that raises has changed nothing.
"""

from __future__ import annotations

from scheduler.config import SchedulerConfig
from scheduler.effects import Effects
from scheduler.events import Event, Outcome
from scheduler.parts import assembled
from scheduler.questions import Questions
from scheduler.records import Rows, get_number
from scheduler.ringing import handlers
from scheduler.routing import Routing


class Scheduler(Questions):
    """The machine. `boot_epoch` must be higher at each start of this node's agent."""

    def __init__(self, config: SchedulerConfig, node: str, number: int, boot_epoch: int, seed: int) -> None:
        super().__init__(assembled(config, node, number, boot_epoch), seed)
        self.node = node
        self._routing = Routing(self.parts)
        self._rings = handlers(self.parts)
        self._settings_seen = 0

    def restore(self, now: float, unix_s: float, rows: Rows) -> Outcome:
        """Begin: with empty rows at the first start, with the ledger's rows at any later one. Call it once, first."""
        fx, parts = Effects(now), self.parts
        parts.leader.epoch_seen = parts.admission.reporting.epoch = get_number(rows, "epoch")
        parts.wall.see(now, unix_s)
        parts.shared.restore(fx, rows)
        self._settings_seen = parts.shared.changes
        parts.admission.restore(fx, rows)
        parts.admission.draining.restore(fx, rows, unix_s)
        parts.home.restore(fx, rows, unix_s)
        parts.keeper.restore(fx, rows)
        parts.leader.start(fx)
        return self._finish(fx)

    def handle(self, now: float, event: Event) -> Outcome:
        """Take one event; everything due by `now` is done too. Raises SchedulerError and then has changed nothing."""
        fx, alarms = Effects(now), self.parts.alarms
        self.parts.wall.see(now, getattr(event, "unix_s", 0.0))
        self._routing.event(fx, event)
        mark = alarms.mark
        while (key := alarms.pop_due(now, mark)) is not None:
            self._rings[key[0]](fx, key[1])
        return self._finish(fx)

    def next_timer(self) -> float | None:
        """Return when `handle(now, Timer())` is due next, if ever."""
        return self.parts.alarms.next()

    def _finish(self, fx: Effects) -> Outcome:
        parts = self.parts
        for job_id in fx.jobs_changed():
            parts.keeper.on_job(fx, job_id)
        if self._settings_seen != parts.shared.changes:
            self._settings_seen = parts.shared.changes
            parts.home.on_settings(fx)
            parts.leader.on_settings()
        parts.shared.flush(fx)
        parts.admission.flush(fx)
        parts.leader.flush(fx)
        parts.home.flush(fx)
        return fx.outcome(parts.config.message_bytes_max)
