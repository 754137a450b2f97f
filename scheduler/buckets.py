"""The tightest or the emptiest of many nodes for a request of CPU and memory, without looking at all of them.

Same meaning as `scheduler.score` over two dimensions: best fit is the node with the least left over, spread the one
with the most, as the mean share of the node's own capacity; equal ones by the lowest number. Exact: shares are compared
as integers.

Nodes of equal capacity form a group; a group's nodes lie in buckets by free CPU, eight to a power of two (as in TLSF,
Masmano et al., ECRTS 2004), sorted within a bucket by what is free in both dimensions together. In a bucket all free
CPU is nearly alike, so that this order is nearly that of free memory and the first node that fits is a few steps from
where a binary search lands. A bucket that cannot beat what was found is never opened. Costs grow with the number of
groups; clusters have few kinds of nodes.

Owns the order of nodes by what is free; knows no jobs, no reports and no labels.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import NamedTuple

STEP_BITS = 3


class Found(NamedTuple):
    """A node, and what it would have left: `left / whole` is its share over both dimensions."""

    node: int
    left: int
    whole: int


class _Group:
    """The nodes of one capacity. A node's key grows with its free share: cpu x whole memory + memory x whole cpu.

    `filled` has a bit for every bucket that is not empty.
    """

    __slots__ = ("buckets", "cpu", "filled", "memory")

    def __init__(self, cpu: int, memory: int) -> None:
        self.cpu = cpu
        self.memory = memory
        self.buckets: list[list[tuple[int, int]]] = [[] for _ in range(bucket_of(cpu) + 1)]
        self.filled = 0

    def put(self, node: int, cpu: int, memory: int) -> None:
        """File a node under what it has free."""
        place = bucket_of(cpu)
        insort(self.buckets[place], (cpu * self.memory + memory * self.cpu, node))
        self.filled |= 1 << place

    def take(self, node: int, cpu: int, memory: int) -> None:
        """Take a node out from where it was filed."""
        place = bucket_of(cpu)
        bucket = self.buckets[place]
        del bucket[bisect_left(bucket, (cpu * self.memory + memory * self.cpu, node))]
        if not bucket:
            self.filled &= ~(1 << place)


def bucket_of(cpu: int) -> int:
    """Return the bucket for that much free CPU: exact below 16, then eight to a power of two."""
    shift = cpu.bit_length() - STEP_BITS - 1
    return (shift << STEP_BITS) + (cpu >> shift) if shift > 0 else cpu


def least_of(bucket: int) -> int:
    """Return the least free CPU of a bucket."""
    shift = (bucket >> STEP_BITS) - 1
    return (bucket - (shift << STEP_BITS)) << shift if shift > 0 else bucket


LEAST = tuple(least_of(bucket) for bucket in range(1 << 9))
NOTHING = (1 << 128, -1)


class FreeIndex:
    """Nodes by number, each with a capacity and a free amount; amounts are integers of any unit."""

    def __init__(self) -> None:
        self._groups: dict[tuple[int, int], _Group] = {}
        self._group_of: dict[int, _Group] = {}
        self._free: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._free)

    def add(self, node: int, cpu: int, memory: int) -> None:
        """Add an empty node of that capacity (both above zero), or replace one."""
        if node in self._free:
            self.remove(node)
        group = self._groups.setdefault((cpu, memory), _Group(cpu, memory))
        self._group_of[node] = group
        self._free[node] = (cpu, memory)
        group.put(node, cpu, memory)

    def remove(self, node: int) -> None:
        """Forget a node; KeyError when it is not there."""
        cpu, memory = self._free.pop(node)
        self._group_of.pop(node).take(node, cpu, memory)

    def free(self, node: int) -> tuple[int, int]:
        """Return what a node has free."""
        return self._free[node]

    def change(self, node: int, cpu: int, memory: int) -> None:
        """Add to what a node has free (negative: take); the caller has checked that it stays within its capacity."""
        group = self._group_of[node]
        old_cpu, old_memory = self._free[node]
        group.take(node, old_cpu, old_memory)
        new_cpu, new_memory = old_cpu + cpu, old_memory + memory
        self._free[node] = (new_cpu, new_memory)
        group.put(node, new_cpu, new_memory)

    def best_fit(self, cpu: int, memory: int) -> Found | None:
        """Return the node with the least left over, None when the request fits nowhere."""
        best: Found | None = None
        for group in self._groups.values():
            found = self._tightest(group, cpu, memory)
            if found and (best is None or _order(found, best) < 0):
                best = found
        return best

    def spread(self, cpu: int, memory: int) -> Found | None:
        """Return the node with the most left over, None when the request fits nowhere."""
        best: Found | None = None
        for group in self._groups.values():
            found = self._emptiest(group, cpu, memory)
            if found and (best is None or (-_order_left(found, best), found.node) < (0, best.node)):
                best = found
        return best

    def _tightest(self, group: _Group, cpu: int, memory: int) -> Found | None:
        """Open buckets from the fullest that may fit, until none can hold anything tighter than what was found."""
        free, whole_memory = self._free, group.memory
        memory_part = memory * group.cpu
        least = needed = cpu * whole_memory + memory_part
        first = bucket_of(cpu)
        filled = group.filled >> first
        best = NOTHING
        while filled:
            offset = (filled & -filled).bit_length() - 1
            filled &= filled - 1
            if offset:
                least = LEAST[first + offset] * whole_memory + memory_part
                if least > best[0]:
                    break
            bucket = group.buckets[first + offset]
            if bucket[-1][0] < least:
                continue
            for index in range(bisect_left(bucket, (least,)), len(bucket)):
                entry = bucket[index]
                if entry >= best:
                    break
                free_cpu, free_memory = free[entry[1]]
                if free_memory >= memory and free_cpu >= cpu:
                    best = entry
                    break
        return Found(best[1], best[0] - needed, group.cpu * whole_memory) if best is not NOTHING else None

    def _emptiest(self, group: _Group, cpu: int, memory: int) -> Found | None:
        needed = cpu * group.memory + memory * group.cpu
        free, first = self._free, bucket_of(cpu)
        best: tuple[int, int] | None = None
        for place in range(group.filled.bit_length() - 1, first - 1, -1):
            for key, node in reversed(group.buckets[place]):
                if key < needed or (best is not None and key < best[0]):
                    break
                free_cpu, free_memory = free[node]
                if free_cpu >= cpu and free_memory >= memory and (best is None or (-key, node) < (-best[0], best[1])):
                    best = (key, node)
        return Found(best[1], best[0] - needed, group.cpu * group.memory) if best else None


def _order_left(one: Found, other: Found) -> int:
    """Below, at or above zero as the first has less, as much or more left."""
    return one.left * other.whole - other.left * one.whole


def _order(one: Found, other: Found) -> int:
    """By what is left, then by number."""
    return _order_left(one, other) or one.node - other.node
