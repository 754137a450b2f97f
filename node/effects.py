"""Carries out what the node's scheduling machine decided: first the ledger, then the world.

Owns the order of things: outcomes are queued as the machine gives them, a batch of them is committed to the ledger in
one go (group commit), and only then are their actions carried out, in order, and their askers answered. It decides
nothing. Events may be posted at any time, also by actions.

A ledger that can't be written ends the agent, and so does a machine that fails in the middle of an event: either would
run ahead of what a restart remembers. Containers run on, and the restarted agent takes them over.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from node import logs
from node.errors import NodeError
from node.ledger.protocol import Ledger
from scheduler import Scheduler
from scheduler.errors import BadMessage, SchedulerError
from scheduler.events import Action, Change, Event, Outcome, Put, Received, Send, Timer

OUTCOMES_PER_COMMIT_MAX = 256
CHANGES_PER_COMMIT_MAX = 10_000
"""No outcome joins a batch that has more; a single larger outcome is a batch of its own."""
BYTES_PER_COMMIT_MAX = 16 << 20
BEHIND_MAX = 10_000
"""With more outcomes waiting for the disk, other nodes' messages are answered only when there are fewer."""

STUCK_LOOK_S = 2.0

log = logs.get("effects")


@dataclass(slots=True)
class _Waiting:
    """An outcome on its way through the ledger; `done` is set once it is durable."""

    outcome: Outcome
    done: trio.Event | None = field(default=None)


class Effects:
    """One node's machine, its ledger and its hands."""

    def __init__(
        self,
        machine: Scheduler,
        ledger: Ledger,
        perform: Callable[[Action], None],
        stuck: Callable[[], NodeError | None] = lambda: None,
    ) -> None:
        """`stuck`: why the ledger waits (for room on its disk, for etcd), and may do so for long."""
        self.machine = machine
        self._stuck = stuck
        self._ledger = ledger
        self._perform = perform
        self._queue: deque[_Waiting] = deque()
        self._broken: Exception | None = None
        self._wake = trio.Event()
        self._caught_up = trio.Event()
        self._rearm = trio.Event()
        self._planned_s = math.inf

    def post(self, event: Event) -> None:
        """Tell the machine; what follows is carried out soon. For events that come from no user.

        What another node got wrong changes nothing here and is logged.
        """
        try:
            outcome = self._handle(event)
        except SchedulerError as error:
            log.warning("refused an event", event=type(event).__name__, why=str(error))
        else:
            self.enqueue(outcome)

    def received(self, sender: str, *messages: bytes) -> trio.Event | None:
        """Pass on what another node's machine, or our own, has said at once: as one event, for one answer to all.

        A message that can't be read keeps none of the others from being heard. Returns what is set once a reply has
        been given to the hands; None where the machine has none for the sender.
        """
        try:
            outcome = self._handle(Received(sender, messages[0], messages[1:]))
        except SchedulerError as error:
            if len(messages) == 1 or not isinstance(error, BadMessage):
                log.warning("refused what a node said", sender=sender, why=str(error))
                return None
            replies = [self.received(sender, message) for message in messages]
            return next((reply for reply in reversed(replies) if reply is not None), None)
        replies_here = any(isinstance(action, Send) and action.to == sender for action in outcome.actions)
        return self.enqueue(outcome, trio.Event() if replies_here else None).done

    async def ask(self, event: Event) -> object:
        """Tell the machine and wait until what it decided is durable; return its answer.

        Raises SchedulerError, with nothing changed, when the machine refuses the event; DiskFull or LedgerAway where it
        is decided and stays so, but can't be written now.
        """
        waiting = self.enqueue(self._handle(event), done=trio.Event())
        assert waiting.done is not None
        while not waiting.done.is_set():
            with trio.move_on_after(STUCK_LOOK_S):
                await waiting.done.wait()
            trouble = self._stuck()
            if trouble is not None and not waiting.done.is_set():
                raise type(trouble)(f"{trouble}; this is carried out as soon as it can be written")
        return waiting.outcome.answer

    def enqueue(self, outcome: Outcome, done: trio.Event | None = None) -> _Waiting:
        """Queue an outcome of the machine (also that of its restoring) for the ledger and the world."""
        waiting = _Waiting(outcome, done)
        self._queue.append(waiting)
        self._wake.set()
        if self._due_s() < self._planned_s:
            self._rearm.set()
        return waiting

    async def run(self) -> None:
        """Carry out outcomes and wake the machine at its times, until cancelled; LedgerError ends it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._apply_forever)
            nursery.start_soon(self._keep_time)

    async def flush(self) -> None:
        """Wait until everything queued so far is durable and carried out."""
        done = trio.Event()
        self.enqueue(Outcome(), done)
        await done.wait()

    async def keep_up(self) -> None:
        """Wait while too much is behind: whoever brings events that nobody else bounds asks this."""
        while len(self._queue) > BEHIND_MAX:
            await self._caught_up.wait()

    def _handle(self, event: Event) -> Outcome:
        """Tell the machine. After a bug in the middle of an event its memory is no longer what the ledger says."""
        try:
            return self.machine.handle(trio.current_time(), event)
        except SchedulerError:
            raise
        except Exception as bug:
            self._broken = bug
            self._wake.set()
            raise

    async def _apply_forever(self) -> None:
        while True:
            await self._wake.wait()
            if self._broken is not None:
                raise self._broken
            batch = self._next_batch()
            if not self._queue:
                self._wake = trio.Event()
            await self._apply(batch)
            self._caught_up.set()
            self._caught_up = trio.Event()

    def _next_batch(self) -> Sequence[_Waiting]:
        batch: list[_Waiting] = []
        changes = size_bytes = 0
        while self._queue and len(batch) < OUTCOMES_PER_COMMIT_MAX:
            outcome = self._queue[0].outcome
            changes += len(outcome.changes)
            size_bytes += sum(len(change.value) for change in outcome.changes if isinstance(change, Put))
            if batch and (changes > CHANGES_PER_COMMIT_MAX or size_bytes > BYTES_PER_COMMIT_MAX):
                break
            batch.append(self._queue.popleft())
        return batch

    async def _apply(self, batch: Sequence[_Waiting]) -> None:
        changes: list[Change] = [change for waiting in batch for change in waiting.outcome.changes]
        if changes:
            await self._ledger.commit(changes)
        else:
            await trio.lowlevel.checkpoint()
        for waiting in batch:
            if waiting.done is not None:
                waiting.done.set()
            for action in waiting.outcome.actions:
                self._perform(action)

    async def _keep_time(self) -> None:
        while True:
            self._rearm = trio.Event()
            self._planned_s = self._due_s()
            with trio.move_on_at(self._planned_s):
                await self._rearm.wait()
            if self._due_s() <= trio.current_time():  # it may have been moved to later meanwhile
                self.post(Timer())

    def _due_s(self) -> float:
        due_s = self.machine.next_timer()
        return math.inf if due_s is None else due_s
