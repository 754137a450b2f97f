"""What this node has and what is used of it, told to the scheduling machine now and then.

`used` is what the node's own containers use where the capacity is configured (several nodes may share one machine),
and the whole host's use where the node is the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from node import logs
from node.host.inventory import Inventory, UsageSampler
from node.runtime.protocol import Usage
from scheduler.events import Event, Measured
from scheduler.model import Resources

INTERVAL_S = 2.0

log = logs.get("measuring")


class Meter:
    """Samples this node; `containers`: what each running one uses; `room`: whether the disk has any for more."""

    def __init__(
        self,
        inventory: Inventory,
        labels: Mapping[str, str],
        host: UsageSampler | None,
        containers: Callable[[], Mapping[str, Usage]],
        room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._inventory = inventory
        self._labels = tuple(sorted({**dict(inventory.labels), **labels}.items()))
        self._host = host
        self._containers = containers
        self._room = room
        self._cpu_ns: dict[str, int] = {}
        self._sampled_s = trio.current_time()

    async def run(self, post: Callable[[Event], None]) -> None:
        """Post a Measured at once and then every INTERVAL_S, until cancelled; what can't be measured is left out."""
        while True:
            try:
                post(self.sample())
            except OSError as error:
                log.warning("this node's use can't be measured", why=str(error))
            await trio.sleep(INTERVAL_S)

    def sample(self) -> Measured:
        """Measure once; CPU is the mean since the sample before."""
        return Measured(
            capacity=self._inventory.capacity,
            allocatable=self._inventory.allocatable,
            used=self._host.sample().used if self._host else self._sample_containers(),
            labels=self._labels,
            room=self._room(),
        )

    def _sample_containers(self) -> Resources:
        usage = self._containers()
        elapsed_s = max(trio.current_time() - self._sampled_s, 0.001)
        burnt_ns = sum(max(0, now.cpu_ns - self._cpu_ns.get(name, 0)) for name, now in usage.items())
        self._cpu_ns = {name: now.cpu_ns for name, now in usage.items()}
        self._sampled_s += elapsed_s
        return Resources(round(burnt_ns / elapsed_s / 1e6), sum(now.memory_bytes for now in usage.values()))
