"""Collects what one event brings about: ledger changes, actions, and items for other nodes, batched by receiver.

One `Effects` lives for one `handle`; its `outcome` is what the caller makes durable and then carries out. Machines
that want to say the last word once (a repeated change of the same thing) do so just before `outcome`.
"""

from __future__ import annotations

from scheduler.events import Action, Change, Delete, JobChanged, Outcome, Put, Send
from scheduler.messages import AnyItem, encode


class Effects:
    """What is to be done, in order; `now` is the node's monotonic clock in seconds."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.answer: object = None
        self._changes: dict[tuple[str, str], Change] = {}
        self._actions: list[Action] = []
        self._mail: dict[str, list[AnyItem]] = {}
        self._jobs: dict[int, None] = {}

    def put(self, table: str, key: str, value: bytes) -> None:
        """Store a row; the last word on a row counts."""
        self._changes[(table, key)] = Put(table, key, value)

    def delete(self, table: str, key: str) -> None:
        """Remove a row."""
        self._changes[(table, key)] = Delete(table, key)

    def act(self, action: Action) -> None:
        """Ask the shell for something."""
        self._actions.append(action)

    def say(self, to: str, item: AnyItem) -> None:
        """Tell another node (or ourselves) something; all items to one node travel together, in order."""
        self._mail.setdefault(to, []).append(item)

    def job_changed(self, job: int) -> None:
        """Wake those who wait for this job, once."""
        self._jobs[job] = None

    def jobs_changed(self) -> list[int]:
        """Return the jobs that changed so far."""
        return list(self._jobs)

    def outcome(self, message_bytes_max: int) -> Outcome:
        """Return everything collected."""
        actions = [*self._actions, *(JobChanged(job) for job in self._jobs)]
        for to, items in self._mail.items():
            actions.extend(Send(to, message) for message in encode(items, message_bytes_max))
        return Outcome(list(self._changes.values()), actions, self.answer)
