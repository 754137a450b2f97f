"""The limits of this node's containers from their start to their end: resolved, changed while they run, cores owned.

Owns which cores each container may run on: those that one owns are taken from all others before it starts, and given
back when it is gone for good. Of one container nothing is changed twice at a time. May not know: jobs, admission.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

import trio

from node import logs
from node.host.cores import CorePool
from node.limit_policy import LimitPolicy, NotOffered
from node.runtime.limits import FurtherLimits
from node.runtime.protocol import ContainerError, ContainerSpec, Feature
from scheduler.spec.limits import Limits, members

log = logs.get("limits")


@dataclass(slots=True)
class _Running:
    """A container as it is, and what its job asked for."""

    spec: ContainerSpec
    asked: Limits


class Limiter:
    """One node's. `update` is the runtime's; `pool` None: the host has no cpuset controller."""

    def __init__(
        self,
        policy: LimitPolicy,
        pool: CorePool | None,
        features: frozenset[Feature],
        update: Callable[[ContainerSpec], Awaitable[None]],
    ) -> None:
        self._policy = policy
        self._pool = pool
        self._features = features
        self._update = update
        self._running: dict[str, _Running] = {}
        self._lock = trio.Lock()

    async def add(self, spec: ContainerSpec, asked: Limits) -> ContainerSpec:
        """Return the spec with its job's limits; cores that it owns are its own from now on. Raises NodeError,
        HostError."""
        if self._pool is None and not asked.exclusive_cores:
            limits = self._policy.limits(asked, self._features)
            return spec if limits == spec.limits else replace(spec, limits=limits)
        async with self._lock:
            limits = self._policy.limits(asked, self._features)
            if asked.exclusive_cores:
                limits = await self._own(spec.name, asked.exclusive_cores, limits)
            else:
                limits = self._shared(limits, asked)
            return spec if limits == spec.limits else replace(spec, limits=limits)

    async def started(self, spec: ContainerSpec, asked: Limits) -> None:
        """It runs (or was found running): whatever changes among the cores concerns it too."""
        if self._pool is None:
            self._running[spec.name] = _Running(spec, asked)
            return
        async with self._lock:
            self._running[spec.name] = _Running(spec, asked)
            await self._spread((spec.name,))

    def ended(self, name: str) -> None:
        """It runs no more."""
        self._running.pop(name, None)

    async def removed(self, name: str) -> None:
        """Nothing is left of it: its cores are everybody's again."""
        if self._pool is not None and name in self._pool.holders():
            async with self._lock:
                await trio.to_thread.run_sync(self._pool.give_back, name)
                await self._spread(tuple(self._running))

    async def keep_only(self, names: Iterable[str]) -> None:
        """After a restart: cores of containers that are gone are given back."""
        held = set() if self._pool is None else set(self._pool.holders())
        for name in held - set(names):
            await self.removed(name)

    async def change(self, spec: ContainerSpec, asked: Limits) -> None:
        """Give a running container the limits of this spec and of what its job asks for now. Raises NodeError,
        ContainerError, with nothing changed."""
        async with self._lock:
            running = self._running.get(spec.name)
            if running is None:
                raise NotOffered("it does not run (any more)")
            limits = self._policy.limits(asked, self._features)
            if asked.exclusive_cores:
                kept = running.spec.limits.groups
                groups = replace(limits.groups, cores=kept.cores, memory_nodes=kept.memory_nodes)
                limits = replace(limits, groups=groups)
            else:
                limits = self._shared(limits, asked)
            await self._apply(running, replace(spec, limits=limits))
            running.asked = asked

    def spec(self, name: str) -> ContainerSpec | None:
        """Return a running container as it is."""
        running = self._running.get(name)
        return None if running is None else running.spec

    # --- inside; with the lock held

    async def _own(self, name: str, count: int, limits: FurtherLimits) -> FurtherLimits:
        if self._pool is None:
            raise NotOffered("this node has no cpuset controller")
        wished = {core for each in self._running.values() for core in members(each.asked.cores)}
        pinned = await trio.to_thread.run_sync(self._pool.take, name, count, wished)
        await self._spread(tuple(self._running))
        nodes = limits.groups.memory_nodes or pinned.memory_nodes
        return replace(limits, groups=replace(limits.groups, cores=pinned.cores, memory_nodes=nodes))

    def _shared(self, limits: FurtherLimits, asked: Limits) -> FurtherLimits:
        """Leave out what others own. Raises NotOffered when that is all."""
        shared = self._pool.shared() if self._pool is not None else ()
        wished = members(asked.cores)
        if not shared and wished == limits.groups.cores:
            return limits
        if not shared:
            return replace(limits, groups=replace(limits.groups, cores=wished))
        cores = tuple(core for core in wished if core in shared) if wished else shared
        if not cores:
            raise NotOffered(f"cores {asked.cores} are owned by other tasks")
        return replace(limits, groups=replace(limits.groups, cores=cores))

    async def _spread(self, names: tuple[str, ...]) -> None:
        """Bring those that own no cores to the cores that nobody owns."""
        for name in names:
            running = self._running.get(name)
            if running is None or running.asked.exclusive_cores or self._pool is None:
                continue
            limits = self._shared(running.spec.limits, running.asked)
            try:
                await self._apply(running, replace(running.spec, limits=limits))
            except ContainerError as error:  # it has just ended, mostly
                log.warning("a container stays on its cores", container=name, why=str(error))

    async def _apply(self, running: _Running, spec: ContainerSpec) -> None:
        if spec != running.spec:
            await self._update(spec)
            running.spec = spec
