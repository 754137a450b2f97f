"""Containers that exist in trio's clock alone: for tests of whatever uses a runtime.

A `FakeHost` is what outlives an agent; a `FakeRuntime` is one agent's handle on it. Commands are words, not programs:

    exit CODE               ends at once
    sleep SECONDS [CODE]    ends then; at SIGTERM with 143
    traps SIGNAL CODE       ends with the code at that signal, and of no other but KILL
    stubborn                says "deaf", then ends only when killed
    write TEXT              writes a line, ends with 0
    missing                 does not start
    oom                     is killed for lack of memory
"""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

import trio

from node.runtime.entering import HELPER
from node.runtime.protocol import (
    ContainerSpec,
    EnterError,
    Entrance,
    Exit,
    Feature,
    FreezeError,
    LogChunk,
    Recovered,
    Started,
    StartError,
    Stream,
    UnknownContainerError,
    UpdateError,
    Usage,
    name_taken,
    with_limits,
)
from scheduler.abilities import WORDS

ALL_FEATURES: frozenset[Feature] = frozenset(get_args(Feature))
KILLED = 137


@dataclass
class _Container:
    spec: ContainerSpec
    started_s: float | None = None
    exit: Exit | None = None
    output: bytes = b""
    ends_at_s: float = math.inf
    ending: Exit = field(default_factory=lambda: Exit(exit_code=0))
    lease_s: float = math.inf
    frozen: bool = False
    changed: trio.Event = field(default_factory=trio.Event)

    def plan(self, at_s: float, ending: Exit) -> None:
        """Ends it then, unless it ends before."""
        if at_s < self.ends_at_s:
            self.ends_at_s, self.ending = at_s, ending
            self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


class FakeHost:
    """The machine below: give it to the next FakeRuntime, as an agent's restart would."""

    def __init__(self, start_delay_s: float = 0.0) -> None:
        self.containers: dict[str, _Container] = {}
        self.start_delay_s = start_delay_s
        self.log: list[tuple[str, str]] = []
        """(step, name), in order."""


class FakeRuntime:
    def __init__(self, host: FakeHost | None = None, clock: Callable[[], float] = trio.current_time) -> None:
        self.host = host or FakeHost()
        self._clock = clock

    @property
    def name(self) -> str:
        return "fake"

    @property
    def features(self) -> frozenset[Feature]:
        return ALL_FEATURES

    @property
    def abilities(self) -> frozenset[str]:
        return frozenset(WORDS)

    async def reserve(self, spec: ContainerSpec) -> None:
        await trio.lowlevel.checkpoint()

    async def prepare(self, spec: ContainerSpec) -> None:
        await trio.lowlevel.checkpoint()
        if spec.name in self.host.containers:
            raise name_taken(spec.name)
        self.host.containers[spec.name] = _Container(spec)
        self.host.log.append(("prepare", spec.name))

    async def start(self, spec: ContainerSpec) -> Started:
        container = self._known(spec.name)
        await trio.sleep(self.host.start_delay_s)
        self.host.log.append(("start", spec.name))
        now_s = self._clock()
        if spec.argv[0] == "missing":
            reason = f"cannot run {spec.argv[0]}: No such file or directory"
            container.exit = Exit(error=reason, ended_unix_s=now_s)
            raise StartError(spec.name, reason)
        container.started_s = now_s
        self._run(container, now_s)
        if spec.time_limit_s is not None:
            self._plan_stop(container, now_s + spec.time_limit_s, Exit(timed_out=True))
            if spec.warn_signal:
                at_s = now_s + max(0.0, spec.time_limit_s - spec.warn_s)
                self._plan_signal(container, spec.warn_signal, at_s, Exit())
        return Started(0, now_s)

    def _run(self, container: _Container, now_s: float) -> None:
        word, *rest = container.spec.argv
        if word == "exit":
            container.plan(now_s, Exit(exit_code=int(rest[0])))
        elif word == "sleep":
            container.plan(now_s + float(rest[0]), Exit(exit_code=int(rest[1]) if len(rest) > 1 else 0))
        elif word == "write":
            container.output = " ".join(rest).encode() + b"\n"
            container.plan(now_s, Exit(exit_code=0))
        elif word == "stubborn":
            container.output = b"deaf\n"
        elif word == "oom":
            container.plan(now_s, Exit(exit_code=KILLED, signal=9, oom_killed=True))

    def _plan_stop(self, container: _Container, at_s: float, why: Exit, grace_s: float | None = None) -> None:
        if grace_s != 0 and self._plan_signal(container, container.spec.stop_signal, at_s, why):
            return
        if container.spec.argv[0] in ("stubborn", "traps"):
            at_s += container.spec.stop_grace_s if grace_s is None else grace_s
            container.plan(at_s, replace(why, exit_code=KILLED, signal=9))
        else:
            code = KILLED if grace_s == 0 else 128 + signal.Signals[f"SIG{container.spec.stop_signal}"]
            container.plan(at_s, replace(why, exit_code=code, signal=code - 128))

    @staticmethod
    def _plan_signal(container: _Container, name: str, at_s: float, why: Exit) -> bool:
        """Whether its command traps the signal, and so ends by itself."""
        word, *rest = container.spec.argv
        if word != "traps" or rest[0] != name:
            return False
        container.plan(at_s, replace(why, exit_code=int(rest[1])))
        return True

    async def update(self, spec: ContainerSpec) -> None:
        container = self._known(spec.name)
        await trio.lowlevel.checkpoint()
        if container.started_s is None or self._settled(container) is not None:
            raise UpdateError(spec.name, "it does not run (any more)")
        if spec.memory_bytes and spec.memory_bytes < container.spec.memory_bytes // 2:
            raise UpdateError(spec.name, f"{container.spec.memory_bytes // 2} bytes are in use")
        container.spec = with_limits(container.spec, spec)
        self.host.log.append(("update", spec.name))

    async def stop(self, name: str, grace_s: float) -> None:
        container = self._known(name)
        await trio.lowlevel.checkpoint()
        self.host.log.append(("stop", name))
        if self._settled(container) is None:
            self._plan_stop(container, self._clock(), Exit(), grace_s)

    async def freeze(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        self._running(name, FreezeError).frozen = True
        self.host.log.append(("freeze", name))

    async def thaw(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        self._running(name, FreezeError).frozen = False
        self.host.log.append(("thaw", name))

    def is_frozen(self, name: str) -> bool:
        container = self.host.containers.get(name)
        return container is not None and container.frozen and self._settled(container) is None

    def entrance(self, name: str, *, tty: bool = False) -> Entrance:
        """There is no inside: what follows runs on this host."""
        self._running(name, EnterError)
        return Entrance((), (sys.executable, "-I", str(HELPER), "0"))

    def _running(self, name: str, error: type[FreezeError | EnterError]) -> _Container:
        container = self._known(name)
        if container.started_s is None or self._settled(container) is not None:
            raise error(name, "it does not run (any more)")
        return container

    async def kill(self, name: str) -> None:
        await self.stop(name, 0)

    async def wait(self, name: str) -> Exit:
        container = self._known(name)
        while (ending := self._settled(container)) is None:
            if container.started_s is None:
                raise UnknownContainerError(f"container {name} was prepared, but not started")
            until_s = min(container.ends_at_s, container.lease_s)
            with trio.move_on_after(until_s - self._clock()):
                await container.changed.wait()
        await trio.lowlevel.checkpoint()
        return ending

    def _settled(self, container: _Container) -> Exit | None:
        """Its exit, if by now it has ended."""
        now_s = self._clock()
        if container.exit is None and container.lease_s <= min(now_s, container.ends_at_s):
            self._plan_stop(container, container.lease_s, Exit(lease_expired=True))
            container.lease_s = math.inf
        if container.exit is None and container.ends_at_s <= now_s:
            container.exit = replace(
                container.ending, started_unix_s=container.started_s, ended_unix_s=container.ends_at_s
            )
        return container.exit

    async def set_lease(self, name: str, lease_s: float) -> None:
        container = self._known(name)
        await trio.lowlevel.checkpoint()
        container.lease_s = self._clock() + lease_s
        container.wake()

    async def recover(self) -> list[Recovered]:
        await trio.lowlevel.checkpoint()
        return [self._recovered(name, self.host.containers[name]) for name in sorted(self.host.containers)]

    def _recovered(self, name: str, container: _Container) -> Recovered:
        if container.started_s is None and container.exit is None:
            error = "the agent ended before it was started"
            container.exit = Exit(error=error, ended_unix_s=self._clock())
        ending = self._settled(container)
        return Recovered(name, running=ending is None, exit=ending, spec=container.spec)

    async def remove(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        container = self.host.containers.pop(name, None)
        if container is not None:
            self.host.log.append(("remove", name))
            container.plan(self._clock(), Exit(exit_code=KILLED, signal=9))

    def usage(self) -> Mapping[str, Usage]:
        return {
            name: Usage(memory_bytes=container.spec.memory_bytes // 2, cpu_ns=0, pids=1)
            for name, container in self.host.containers.items()
            if container.started_s is not None and self._settled(container) is None
        }

    def log_path(self, name: str, stream: Stream) -> Path:
        return Path("/nonexistent") / name / stream

    def read_log(self, name: str, stream: Stream, offset: int, bytes_max: int) -> LogChunk:
        output = self._known(name).output if stream == "stdout" else b""
        offset = min(offset, len(output))
        return LogChunk(offset, output[offset : offset + bytes_max], len(output))

    def forget_rootfs(self, rootfs: Path) -> None:
        """Nothing is kept of an image."""

    async def purge(self) -> None:
        for name in list(self.host.containers):
            await self.remove(name)

    def _known(self, name: str) -> _Container:
        try:
            return self.host.containers[name]
        except KeyError:
            raise UnknownContainerError(f"no container {name} on this node") from None
