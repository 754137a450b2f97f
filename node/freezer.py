"""Who has a container of this node stand still: its owner, or preemption. One at a time, and neither thaws the other's.

Carries out FreezeContainer and ThawContainer and answers each with what the kernel says; serves owners, and doors for
their sites. Orders for one container are carried out one after the other. Decides nothing (scheduler.frost does).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from node import logs
from node.errors import CallerError, NotFound
from node.host.cgroups import CgroupError
from node.runtime.protocol import ContainerError, Runtime, UnknownContainerError
from node.turns import Turns
from scheduler.events import ContainerFrozen, ContainerThawed, Event, FreezeContainer, ThawContainer
from scheduler.model import AllocationId

log = logs.get("freezer")

THAW_RETRY_S = 1.0
_TROUBLE = (ContainerError, CgroupError, OSError)


class Freezer:
    """Of one node. `live`: whether a container still runs; `frozen` is told of each that was frozen, or may go on."""

    def __init__(
        self,
        runtime: Runtime,
        post: Callable[[Event], None],
        live: Callable[[AllocationId], bool],
        frozen: Callable[[str, bool], None],
        nursery: trio.Nursery,
    ) -> None:
        self._runtime = runtime
        self._post = post
        self._live = live
        self._frozen = frozen
        self._nursery = nursery
        self._preempted: dict[AllocationId, int] = {}
        self._turns = Turns()

    def recover(self, preempted: Mapping[AllocationId, int]) -> None:
        """After a restart, before anybody can ask for anything: these are preemption's, for those jobs."""
        self._preempted = dict(preempted)

    async def set_frozen(self, container: str, frozen: bool) -> None:
        """Freeze a container for its owner, or let it go on. Raises NotFound, CallerError."""
        async with self._turns.take(container):
            job = self._preempted.get(AllocationId.parse(container))
            if job is not None:
                raise CallerError(
                    f"{container} was frozen for job {job} by preemption, and goes on by itself when its CPU is free"
                )
            try:
                await (self._runtime.freeze(container) if frozen else self._runtime.thaw(container))
            except UnknownContainerError as error:
                raise NotFound(str(error)) from None
            except ContainerError as error:
                raise CallerError(str(error)) from None
            self._frozen(container, frozen)
        log.info("frozen" if frozen else "thawed", container=container)

    def perform(self, action: FreezeContainer | ThawContainer) -> None:
        """Carry out what preemption asks, in the background."""
        if isinstance(action, FreezeContainer):
            self._nursery.start_soon(self._freeze, action)
        else:
            self._nursery.start_soon(self._thaw, action.id)

    async def _freeze(self, action: FreezeContainer) -> None:
        name = str(action.id)
        self._preempted = {id: job for id, job in self._preempted.items() if self._live(id)}
        async with self._turns.take(name):
            why = await self._why_not(name, action)
            if why:
                log.warning("can't be frozen by preemption", container=name, job=action.job, why=why)
            else:
                log.info("frozen by preemption", container=name, job=action.job)
                self._frozen(name, True)
        self._post(ContainerFrozen(action.id, why))

    async def _why_not(self, name: str, action: FreezeContainer) -> str:
        """Freeze it; return why not, if it can't be."""
        if not action.again and self._runtime.is_frozen(name):
            return "its owner froze it"
        self._preempted[action.id] = action.job
        try:
            await self._runtime.freeze(name)
        except _TROUBLE as error:
            del self._preempted[action.id]
            return str(error)
        return ""

    async def _thaw(self, id: AllocationId) -> None:
        """However often that has to be tried, for as long as there is something to be thawed."""
        name = str(id)
        async with self._turns.take(name):
            while self._live(id):
                try:
                    await self._runtime.thaw(name)
                    break
                except _TROUBLE as error:
                    log.warning("can't be thawed, and is tried again", container=name, why=str(error))
                    await trio.sleep(THAW_RETRY_S)
            self._preempted.pop(id, None)
            self._frozen(name, False)
        log.info("goes on after preemption", container=name)
        self._post(ContainerThawed(id))
