"""The executing node's hands: from an allocation to a container, and back to a result.

Carries out StartContainer, StopContainer and RemoveContainer, and posts ContainerStarted and ContainerEnded. Owns what
lies around the runtime: the image, the owner's user ids, the address, the kept output. Decides nothing: which
allocations there are is the scheduling machine's business, how a container is made is the runtime's.

Each container has one task of its own from its start to its end, and one for its removal. Nothing that goes wrong with
one of them, our bugs included, may reach the others: a job that trips one node must not trip all, one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace

import msgspec
import trio

from node import logs
from node.conditions import Conditions
from node.config import Runtime as RuntimeSettings
from node.container_spec import NoCommand, container_spec, result, usual_limits
from node.errors import NodeError
from node.freezer import Freezer
from node.grants import Grants
from node.health import LOOPBACK, HealthWatch
from node.host.errors import HostError
from node.host.image_name import split_stack
from node.host.image_stack import ImageStack
from node.host.mount_calls import MountError
from node.host.network import NetworkError
from node.host.user_ranges import UserRanges
from node.image_exchange import ImageExchange
from node.limiter import Limiter
from node.network import Network
from node.output import OutputStore
from node.runtime.protocol import (
    ContainerError,
    ContainerSpec,
    Exit,
    LogChunk,
    Recovered,
    Runtime,
    Stream,
    UnknownContainerError,
    Usage,
    reduced,
)
from scheduler.condition import HealthState
from scheduler.events import ContainerChanged, ContainerEnded, ContainerStarted, Event
from scheduler.leases import is_single
from scheduler.model import NOWHERE, Allocation, AllocationId, Result

log = logs.get("allocations")

STARTS_AT_ONCE_MAX = 8
REMOVE_RETRY_S = 30.0
LOG_POLL_S = 0.1
PAUSED_S = 1.0
FETCH_TELL_S = 1.0
NOT_FOUND = 127
"""What a shell says of a command that does not exist; a verdict, so that no other node tries it."""

HOST_RESTARTED = "the host was restarted"
_EXPECTED = (ContainerError, NodeError, NetworkError, MountError, HostError, OSError)
"""What may go wrong with one container on a sound node; said to its user."""


@dataclass(slots=True)
class _Live:
    """A container between StartContainer and its end."""

    allocation: Allocation
    fetching: trio.CancelScope = field(default_factory=trio.CancelScope)
    watching: trio.CancelScope = field(default_factory=trio.CancelScope)
    started: bool = False
    stop_grace_s: float | None = None
    lease_until_s: float | None = None


@dataclass(frozen=True, slots=True)
class Host:
    """What the containers of this node are made from."""

    node: str
    runtime: Runtime
    images: ImageExchange
    ranges: UserRanges
    network: Network | None
    output: OutputStore
    grants: Grants
    limiter: Limiter
    settings: RuntimeSettings
    cpu_milli: int
    address: str = ""
    """Where other nodes reach its containers; empty where these have addresses of their own for that."""


class Allocations:
    """The containers of one node."""

    def __init__(self, host: Host, post: Callable[[Event], None], nursery: trio.Nursery) -> None:
        self._host = host
        self._post = post
        self._nursery = nursery
        self._starting = trio.CapacityLimiter(STARTS_AT_ONCE_MAX)
        self._live: dict[AllocationId, _Live] = {}
        self._recovered: dict[AllocationId, Recovered] = {}
        self._images: dict[str, tuple[str, ...]] = {}
        self._removing: set[str] = set()
        self.conditions = Conditions(post, self._live.__contains__)
        self._health = HealthWatch(host.runtime, self.conditions)
        self.freezer = Freezer(host.runtime, post, self._live.__contains__, self.conditions.set_frozen, nursery)

    async def recover(self, held: Iterable[Allocation], *, restarted: bool = False) -> None:
        """After a restart: bring every allocation the machine holds and every container found into agreement.

        A held allocation goes on where it was (or is set up now, if it never was); a container that nothing holds is
        removed. `restarted`: the host was, too. Then nothing goes on, and what left no trace of having run may have
        run all the same, so it has ended.
        """
        wanted = {str(allocation.id): allocation for allocation in held}
        for found in await self._host.runtime.recover():
            if found.name in wanted:
                self._recovered[wanted[found.name].id] = found
            else:
                log.info("removing a container that belongs to no allocation", container=found.name)
                self._remove_soon(found.name)
        if self._host.network is not None:
            self._host.network.recover(wanted.keys() | self._removing)
        self._host.grants.keep_only(wanted)
        await self._host.limiter.keep_only(wanted.keys() | self._removing)
        for allocation in wanted.values():
            if restarted and not _was_seen_running(self._recovered.get(allocation.id)):
                self._lose(allocation)
            # One that may run under a lease only, and does not run, is started when there is a lease again.
            elif allocation.id in self._recovered or not is_single(allocation):
                self.start(allocation)

    def _lose(self, allocation: Allocation) -> None:
        self._recovered.pop(allocation.id, None)
        self._use(allocation)
        self._host.grants.forget(str(allocation.id))
        self._post(ContainerEnded(allocation.id, Result(error=HOST_RESTARTED)))

    def start(self, allocation: Allocation, lease_until_s: float | None = None) -> None:
        """Set up and start the container in the background. A second call for the same id renews its lease at most."""
        if allocation.id not in self._live:
            live = self._live[allocation.id] = _Live(allocation, lease_until_s=lease_until_s)
            self._nursery.start_soon(self._run, live)
        elif lease_until_s is not None:
            self.renew(allocation.id, lease_until_s)

    def renew(self, id: AllocationId, until_s: float) -> None:
        """Let the container run until this moment on trio's clock; its supervisor stops it then, unless renewed."""
        live = self._live.get(id)
        if live is not None:
            live.lease_until_s = until_s
            if live.started:
                self._nursery.start_soon(self._lease, live)

    async def _lease(self, live: _Live) -> None:
        """Tell the supervisor; if this process was paused meanwhile, tell it again with what is left."""
        told_s = -math.inf
        while live.lease_until_s is not None and trio.current_time() - told_s > PAUSED_S:
            told_s = trio.current_time()
            try:
                await self._host.runtime.set_lease(str(live.allocation.id), max(0.0, live.lease_until_s - told_s))
            except (UnknownContainerError, OSError) as error:
                log.warning("a lease can't be renewed", allocation=str(live.allocation.id), why=str(error))
                return

    def stop(self, id: AllocationId, grace_s: float, why: str) -> None:
        """End the container; ContainerEnded follows, at once when there is none."""
        live = self._live.get(id)
        log.info("stopping", allocation=str(id), why=why)
        if live is None:
            self._post(ContainerEnded(id, Result(error="no container of this allocation is on the node")))
            return
        live.stop_grace_s = grace_s
        live.fetching.cancel()
        live.watching.cancel()
        if live.started:
            self._nursery.start_soon(self._stop, str(id), grace_s)

    def remove(self, id: AllocationId) -> None:
        """Remove what is left of an ended container, in the background; its output is kept."""
        self._remove_soon(str(id))

    def usage(self) -> Mapping[str, Usage]:
        """Return what every running container uses now, by allocation."""
        return self._host.runtime.usage()

    async def read_log(
        self, id: AllocationId, stream: Stream, offset: int, limit: int, wait_s: float = 0.0
    ) -> tuple[LogChunk, bool]:
        """Return a piece of a container's output and whether the container has ended; waits for new bytes if asked."""
        deadline = trio.current_time() + wait_s
        while True:
            ended = id not in self._live
            chunk = self._read_log(str(id), stream, offset, limit)
            if chunk.data or ended or trio.current_time() >= deadline:
                return chunk, ended and chunk.offset + len(chunk.data) >= chunk.size
            await trio.sleep(LOG_POLL_S)

    def _read_log(self, name: str, stream: Stream, offset: int, limit: int) -> LogChunk:
        try:
            chunk = self._host.runtime.read_log(name, stream, offset, limit)
        except (UnknownContainerError, FileNotFoundError):
            return self._host.output.read(name, stream, offset, limit)
        if not chunk.data and name in self._removing:  # its files may go while they are read, which looks like an end
            return self._host.output.read(name, stream, offset, limit)
        return chunk

    async def _run(self, live: _Live) -> None:
        id = live.allocation.id
        try:
            ended = result(await self._live_through(live))
        except NoCommand as error:
            ended = Result(exit_code=NOT_FOUND, error=str(error))
        except _EXPECTED as error:
            ended = Result(error=str(getattr(error, "reason", error)))
        except Exception as bug:
            log.exception("a container was lost to an error of this agent", allocation=str(id))
            ended = Result(error=f"an error of this node's agent ({type(bug).__name__}); its log has more")
        live.watching.cancel()
        del self._live[id]
        self.conditions.forget(id)
        self._host.grants.forget(str(id))
        self._host.limiter.ended(str(id))
        if ended.error:
            log.warning("not run", allocation=str(id), why=ended.error)
        self._post(ContainerEnded(id, ended))

    async def _live_through(self, live: _Live) -> Exit:
        recovered = self._recovered.pop(live.allocation.id, None)
        if recovered is not None and recovered.exit is not None and recovered.exit.started_unix_s is None:
            await self._host.runtime.remove(recovered.name)  # the former agent ended in the middle of its set-up
            recovered = None
        if recovered is None:
            await self._set_up(live)
        else:
            self._use(live.allocation)
            await self._take_over(live.allocation, recovered)
        return recovered.exit if recovered and recovered.exit else await self._watch(live)

    async def _take_over(self, allocation: Allocation, found: Recovered) -> None:
        """A former agent may have ended in the middle of a change: what is held is what holds."""
        if not found.running or found.spec is None:
            return
        await self._host.limiter.started(found.spec, allocation.spec.limits)
        if why := await self._change(allocation):
            log.warning("a container keeps other limits than its job has", container=found.name, why=why)

    def change(self, allocation: Allocation, revision: int) -> None:
        """Give a running container its changed job's limits, in the background; ContainerChanged tells how it went."""
        self._nursery.start_soon(self._change_and_tell, allocation, revision)

    async def _change_and_tell(self, allocation: Allocation, revision: int) -> None:
        why = await self._change(allocation)
        if not why:
            self._check_anew(allocation)
        self._post(ContainerChanged(allocation.id, revision, why))

    def _check_anew(self, allocation: Allocation) -> None:
        """From now on what runs is checked as its changed job says."""
        live = self._live.get(allocation.id)
        if live is None or live.allocation.spec.life.health == allocation.spec.life.health:
            return
        live.watching.cancel()
        live.allocation, live.watching = allocation, trio.CancelScope()
        self.conditions.set(allocation.id, health=HealthState.NONE, why="")
        self._nursery.start_soon(self._watch_health, live)

    async def _change(self, allocation: Allocation) -> str:
        """Return what is wrong, if anything; then the former limits hold."""
        host, now = self._host, self._host.limiter.spec(str(allocation.id))
        if now is None:
            return "it does not run (any more)"
        usual = usual_limits(allocation.spec, host.settings, host.cpu_milli)
        try:
            spec = reduced(replace(now, **asdict(usual)), host.runtime.features)
            await host.limiter.change(spec, allocation.spec.limits)
        except _EXPECTED as error:
            return str(getattr(error, "reason", error))
        except Exception as bug:
            log.exception("limits could not be changed", allocation=str(allocation.id))
            return f"an error of this node's agent ({type(bug).__name__}); its log has more"
        return ""

    async def _watch(self, live: _Live) -> Exit:
        id = live.allocation.id
        live.started = True
        await self._lease(live)
        network = self._host.network
        reach = network.reach(str(id)) if network is not None else NOWHERE
        self._post(ContainerStarted(id, 0.0, msgspec.structs.replace(reach, host=self._host.address)))
        if live.stop_grace_s is not None:
            await self._stop(str(id), live.stop_grace_s)
        self.conditions.set(id, frozen=self._host.runtime.is_frozen(str(id)))
        if live.allocation.spec.life.health is not None:
            self._nursery.start_soon(self._watch_health, live)
        return await self._host.runtime.wait(str(id))

    async def _watch_health(self, live: _Live) -> None:
        """While it runs. One that is not checked any more by an error of ours is left as it is."""
        id, asked, network = live.allocation.id, live.allocation.spec.life.health, self._host.network
        if asked is None or live.stop_grace_s is not None:
            return
        addresses = network.reach(str(id)).addresses if network is not None else (LOOPBACK,)
        try:
            with live.watching:
                await self._health.watch(id, asked, addresses[0] if addresses else LOOPBACK)
        except Exception as bug:
            log.exception("the health of a container is not checked any more", allocation=str(id), why=str(bug))

    async def _stop(self, name: str, grace_s: float) -> None:
        try:
            await self._host.runtime.stop(name, grace_s)
        except UnknownContainerError:
            log.debug("gone before it was stopped", container=name)
        except Exception as error:  # Its home asks again until it has ended.
            log.exception("can't be stopped", container=name, why=str(error))

    async def _set_up(self, live: _Live) -> None:
        image = await self._image(live)
        host = self._host
        user_base = await host.ranges.base(live.allocation.owner)
        async with self._starting:
            if live.stop_grace_s is not None:
                raise NodeError("stopped before it was started")
            spec = container_spec(
                live.allocation,
                host.settings,
                node=host.node,
                cpu_milli_max=host.cpu_milli,
                image=image,
                user_base=user_base,
            )
            spec = await host.grants.add(spec, live.allocation, host.runtime.name, host.runtime.features)
            spec = reduced(await host.limiter.add(spec, live.allocation.spec.limits), host.runtime.features)
            await host.runtime.reserve(spec)
            if host.network is not None:
                spec = replace(spec, network=host.network.attach(live.allocation, user_base))
            await self._start(live, spec)
            await host.limiter.started(spec, live.allocation.spec.limits)

    async def _start(self, live: _Live, spec: ContainerSpec) -> None:
        runtime, timeout_s = self._host.runtime, self._host.settings.start_timeout_s
        with trio.move_on_after(timeout_s):
            await runtime.prepare(spec)
            await self._lease(live)
            await runtime.start(spec)
            return
        await runtime.remove(spec.name)  # or it might start after all, when nobody counts with it any more
        raise NodeError(f"its set-up took longer than {timeout_s:g} s (runtime.start_timeout_s)")

    async def _image(self, live: _Live) -> ImageStack | None:
        """Return the job's images, fetched if need be and held; None if the wait for them was cut short."""
        digests = live.allocation.spec.image_digest
        if not digests or "rootfs" not in self._host.runtime.features:
            return None
        with live.fetching, self._telling_of_fetches(live.allocation):
            await self._host.images.acquire(split_stack(digests), str(live.allocation.id))
            self._images[str(live.allocation.id)] = split_stack(digests)
            return self._host.images.stack(split_stack(digests))
        return None

    @contextmanager
    def _telling_of_fetches(self, allocation: Allocation) -> Iterator[None]:
        """Meanwhile let the task's condition say what is being fetched, and how far that is."""
        telling = trio.CancelScope()
        self._nursery.start_soon(self._tell_of_fetches, allocation, telling)
        try:
            yield
        finally:
            telling.cancel()
            self.conditions.set(allocation.id, doing="")

    async def _tell_of_fetches(self, allocation: Allocation, telling: trio.CancelScope) -> None:
        spec, images = allocation.spec, self._host.images
        named = list(zip(spec.image_digest.split(";"), spec.image.split(";"), strict=False))
        with telling:
            while True:
                await trio.sleep(FETCH_TELL_S)
                with suppress(OSError):  # what is looked at may be moved to its place meanwhile
                    coming = (images.coming(digest, name or digest) for digest, name in named)
                    self.conditions.set(allocation.id, doing=next(filter(None, coming), ""))

    def _use(self, allocation: Allocation) -> None:
        """Keep the images of a container that was found from being removed until it is."""
        if digests := allocation.spec.image_digest:
            self._images[str(allocation.id)] = self._host.images.hold(split_stack(digests), str(allocation.id))

    def _remove_soon(self, name: str) -> None:
        if name not in self._removing:
            self._removing.add(name)
            self._nursery.start_soon(self._remove, name)

    async def _remove(self, name: str) -> None:
        """Remove a container for good, however often it takes; only then its address and image are free."""
        await self._keep_output(name)
        removed = await self._removed(name)
        while not removed:
            await trio.sleep(REMOVE_RETRY_S)
            removed = await self._removed(name)
        self._removing.discard(name)
        if self._host.network is not None:
            self._host.network.detach(name)
        await self._host.limiter.removed(name)
        for digest in self._images.pop(name, ()):
            self._host.images.store.release(digest, name)

    async def _removed(self, name: str) -> bool:
        try:
            await self._host.runtime.remove(name)
        except Exception as error:
            log.exception("can't be removed, and is tried again", container=name, why=str(error))
            return False
        return True

    async def _keep_output(self, name: str) -> None:
        try:
            if self._host.output.is_any(self._host.runtime, name):
                await trio.to_thread.run_sync(self._host.output.adopt, self._host.runtime, name)
        except Exception as error:  # A full disk, mostly: the more reason to remove the container.
            log.exception("a container's output is lost", container=name, why=str(error))


def _was_seen_running(found: Recovered | None) -> bool:
    return found is not None and (found.exit is None or found.exit.started_unix_s is not None)
