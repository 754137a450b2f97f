"""The simulator's clock: an event heap, virtual time and one seed.

Owns the order of events and every random stream. It knows nothing of networks, nodes or machines, and never looks at
the wall clock. The same seed and the same calls give the same run, byte for byte (the idea of FoundationDB's and
TigerBeetle's simulators).

    kernel = Kernel(seed=7)
    kernel.at(2.5, callback, *arguments)      -> Handle    run at virtual second 2.5 (never before `now`)
    kernel.after(0.2, callback, *arguments)   -> Handle    run 0.2 s from now
    handle.cancel()                                        safe at any time, also after it ran
    kernel.random("node", "n7", "probe")      -> random.Random    a stream of its own for that id, drawn from the seed
    kernel.run_until(120.0)                   run all that is due up to and including 120.0, then now == 120.0
    kernel.run_until(120.0, until=predicate)  the same, but stop after the event that makes predicate() true
    kernel.now, kernel.events_run

Events at the same instant run in the order they were scheduled. A stream depends on the seed and on its id only, so a
new consumer of randomness does not shift the draws of the others.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import random
from collections.abc import Callable
from typing import Any

COMPACT_ABOVE = 10_000


class Handle:
    """One scheduled event, to cancel it."""

    __slots__ = ("_kernel", "arguments", "callback")

    def __init__(self, kernel: Kernel, callback: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self._kernel = kernel
        self.callback: Callable[..., object] | None = callback
        self.arguments = arguments

    def cancel(self) -> None:
        """Make the event not run; without effect once it has run."""
        if self.callback is not None:
            self.callback = None
            self.arguments = ()
            self._kernel._count_cancelled()

    @property
    def pending(self) -> bool:
        """Whether the event is still to run."""
        return self.callback is not None


class Kernel:
    """Virtual time in seconds, starting at 0.0, and the heap of what is to happen."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0.0
        self.events_run = 0
        self._heap: list[tuple[float, int, Handle]] = []
        self._scheduled = 0
        self._cancelled = 0

    def at(self, time_s: float, callback: Callable[..., object], *arguments: Any) -> Handle:
        """Schedule a call at a virtual time; a time already past means now, a time that is no number is our bug."""
        if math.isnan(time_s):
            raise ValueError("time_s: nan is not a time; give virtual seconds")
        handle = Handle(self, callback, arguments)
        self._scheduled += 1
        heapq.heappush(self._heap, (time_s if time_s > self.now else self.now, self._scheduled, handle))
        return handle

    def after(self, delay_s: float, callback: Callable[..., object], *arguments: Any) -> Handle:
        """Schedule a call some virtual seconds from now."""
        return self.at(self.now + delay_s, callback, *arguments)

    def random(self, *stream: str | int) -> random.Random:
        """Return a fresh generator for a stable id; the same seed and id always give the same draws."""
        identity = repr((self.seed, stream)).encode()
        return random.Random(int.from_bytes(hashlib.blake2b(identity, digest_size=16).digest()))

    def run_until(self, end_s: float, until: Callable[[], bool] | None = None) -> None:
        """Run everything due up to `end_s`, or until the predicate holds after an event."""
        heap = self._heap
        while heap and heap[0][0] <= end_s:
            time_s, _, handle = heapq.heappop(heap)
            callback = handle.callback
            if callback is None:
                self._cancelled -= 1
                continue
            self.now = time_s
            self.events_run += 1
            handle.callback = None
            callback(*handle.arguments)
            if until is not None and until():
                return
        self.now = max(self.now, end_s)

    def next_time(self) -> float | None:
        """Return when the next event is due, None when nothing is scheduled."""
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else None

    def _count_cancelled(self) -> None:
        # Cancelled events stay in the heap until due; without this, timers reset all the time would grow it for ever.
        self._cancelled += 1
        if self._cancelled > COMPACT_ABOVE and self._cancelled * 2 > len(self._heap):
            self._heap[:] = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0
