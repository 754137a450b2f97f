"""Nodes and demands of a node-wise replay: CPU, memory, and GPUs of which a task may take a share.

Owns what fits and what is taken. A demand asks for CPU, memory and `gpus` devices of `gpu_milli` thousandths each: a
share of one device, or several whole ones. It may name the models it runs on. Amounts are integers; nothing is ever
below zero or above its capacity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

WHOLE_MILLI = 1000


class Demand(NamedTuple):
    """What one task asks for; `models` are the GPU models it accepts, empty for any."""

    cpu_milli: int
    memory_mib: int
    gpus: int = 0
    gpu_milli: int = 0
    models: tuple[str, ...] = ()

    @property
    def kind(self) -> int:
        """What it takes of GPUs: 0 nothing, -1 a share of one, or how many whole ones."""
        return self.gpus if self.gpu_milli >= WHOLE_MILLI or not self.gpus else -1


class NodeSpec(NamedTuple):
    """What one node has."""

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int = 0
    model: str = ""


class Node:
    """A node's free amounts; `devices` holds what each GPU has left, `kinds` how many tasks of each kind use them."""

    __slots__ = ("cpu_milli", "devices", "kinds", "memory_mib", "spec")

    def __init__(self, spec: NodeSpec) -> None:
        self.spec = spec
        self.cpu_milli = spec.cpu_milli
        self.memory_mib = spec.memory_mib
        self.devices = [WHOLE_MILLI] * spec.gpus
        self.kinds: dict[int, int] = {}

    def fits(self, demand: Demand) -> bool:
        """Whether a demand can be taken now."""
        if demand.cpu_milli > self.cpu_milli or demand.memory_mib > self.memory_mib:
            return False
        if not demand.gpus:
            return True
        if demand.models and self.spec.model not in demand.models:
            return False
        if demand.gpus == 1:
            return bool(self.devices) and max(self.devices) >= demand.gpu_milli
        return sum([free >= demand.gpu_milli for free in self.devices]) >= demand.gpus

    def take(self, demand: Demand, devices: Sequence[int]) -> None:
        """Take a demand that fits, its share from these devices."""
        self._change(demand, devices, 1)

    def give_back(self, demand: Demand, devices: Sequence[int]) -> None:
        """Undo `take`."""
        self._change(demand, devices, -1)

    def _change(self, demand: Demand, devices: Sequence[int], sign: int) -> None:
        self.cpu_milli -= sign * demand.cpu_milli
        self.memory_mib -= sign * demand.memory_mib
        for device in devices:
            self.devices[device] -= sign * demand.gpu_milli
        if demand.gpus:
            count = self.kinds.pop(demand.kind, 0) + sign
            if count:
                self.kinds[demand.kind] = count
