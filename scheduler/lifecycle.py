"""The life of a task at its home, as one table: (phase, step) -> phase. Anything not listed raises.

A task's users see `State`; inside, `pending` has three phases: waiting for a place, asked for at a node, and admitted
there but not yet started. A step that the table does not list raises IllegalTransition and changes nothing.
"""

from __future__ import annotations

import enum

import msgspec

from scheduler.errors import IllegalTransition
from scheduler.model import Result, State, TaskRecord


class Phase(enum.StrEnum):
    """Where a task is, finer than the states that users see."""

    WAITING = "waiting"
    ASKED = "asked"
    ADMITTED = "admitted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


class Step(enum.StrEnum):
    """What can happen to a task."""

    ASK = "ask"  # a new attempt is written, then asked for
    ADMIT = "admit"  # the node took the attempt
    REFUSE = "refuse"  # the node refused it
    START = "start"  # its container runs
    SUCCEED = "succeed"
    FAIL = "fail"
    RETRY = "retry"  # the attempt is over without counting; another one will follow
    LOSE = "lose"  # the attempt is lost and no other follows
    CANCEL = "cancel"


_ENDS = {
    Step.SUCCEED: Phase.SUCCEEDED,
    Step.FAIL: Phase.FAILED,
    Step.RETRY: Phase.WAITING,
    Step.LOSE: Phase.LOST,
    Step.CANCEL: Phase.CANCELLED,
}

TABLE: dict[Phase, dict[Step, Phase]] = {
    Phase.WAITING: {Step.ASK: Phase.ASKED, Step.CANCEL: Phase.CANCELLED},
    # News may overtake each other: a start or an end can be heard before the admission.
    Phase.ASKED: {Step.ADMIT: Phase.ADMITTED, Step.REFUSE: Phase.WAITING, Step.START: Phase.RUNNING, **_ENDS},
    Phase.ADMITTED: {Step.START: Phase.RUNNING, **_ENDS},
    Phase.RUNNING: dict(_ENDS),
    Phase.SUCCEEDED: {},
    Phase.FAILED: {},
    Phase.CANCELLED: {},
    Phase.LOST: {},
}

LIVE = frozenset({Phase.ASKED, Phase.ADMITTED, Phase.RUNNING})
FINAL = frozenset(phase for phase, steps in TABLE.items() if not steps)

_TRIES = frozenset({Step.SUCCEED, Step.FAIL, Step.RETRY, Step.LOSE})
_PENDING = frozenset({Phase.WAITING, Phase.ASKED, Phase.ADMITTED})


def phase_of(record: TaskRecord) -> Phase:
    """Read the phase of a record."""
    if record.state is not State.PENDING:
        return Phase(record.state.value)
    if not record.node:
        return Phase.WAITING
    return Phase.ADMITTED if record.admitted else Phase.ASKED


def take(
    record: TaskRecord,
    step: Step,
    *,
    node: str = "",
    boot_epoch: int = 0,
    reason: str = "",
    result: Result | None = None,
) -> TaskRecord:
    """Return the record after a step; raises IllegalTransition when the table has no such step.

    `node` and `boot_epoch` belong to ASK, `result` to the end of an attempt.
    """
    phase = TABLE[phase_of(record)].get(step)
    if phase is None:
        raise IllegalTransition(f"a task that is {phase_of(record)} can't {step}")
    over = phase not in LIVE
    return msgspec.structs.replace(
        record,
        state=State.PENDING if phase in _PENDING else State(phase.value),
        attempt=record.attempt + (step is Step.ASK),
        node=_node_after(record, step, phase, node),
        boot_epoch=boot_epoch if step is Step.ASK else record.boot_epoch,
        admitted=phase in (Phase.ADMITTED, Phase.RUNNING),
        reason=reason,
        result=result if over else None,
        tries=record.tries + (over and step in _TRIES and not record.leaving),
        leaving="" if over else record.leaving,
        again=record.again and not over,
    )


def _node_after(record: TaskRecord, step: Step, phase: Phase, node: str) -> str:
    if step is Step.ASK:
        if not node:
            raise IllegalTransition("an attempt is asked for at a node")
        return node
    return "" if phase is Phase.WAITING else record.node
