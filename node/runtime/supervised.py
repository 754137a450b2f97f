"""What the runtimes with real processes share: one directory and one supervisor per container.

Owns: the order of steps and the definite state of every name after any death. May not know: LXC, control groups.
A backend says how to set up (`_set_up`), what to execute (`_command`), and how to clear what a dead supervisor left
(`_clean`).

The lock decides who lives: a supervisor holds it from before its first instruction to its end, so an agent that was
killed between any two steps leaves either a held lock (it runs) or a free one (it ended, or never began).
"""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import trio

from node.runtime import supervisor
from node.runtime.directory import ContainerDirectory, all_directories
from node.runtime.logs import read_log
from node.runtime.protocol import (
    NAME_PATTERN,
    ContainerError,
    ContainerSpec,
    Entrance,
    Exit,
    Feature,
    LogChunk,
    Recovered,
    SpecError,
    Started,
    StartError,
    Stream,
    UnknownContainerError,
    UnsupportedError,
    UpdateError,
    Usage,
    name_taken,
    unmet,
    with_limits,
)
from node.runtime.spares import Spares

KILL_TIMEOUT_S = 10.0
KILL_ALONE_TIMEOUT_S = 5.0
POLL_INTERVAL_S = 0.002


def life_orders(spec: ContainerSpec) -> list[tuple[str, object]]:
    """What a supervisor must know to end a container without us."""
    return [
        ("grace_ms", int(spec.stop_grace_s * 1000)),
        ("time_limit_ms", int((spec.time_limit_s or 0) * 1000)),
        ("stop_signal", _number(spec.stop_signal)),
        ("warn_signal", _number(spec.warn_signal) if spec.warn_signal else 0),
        ("warn_ms", int(spec.warn_s * 1000)),
        ("warn_alone", int(spec.warn_alone)),
        ("log_bytes", spec.log_bytes_max),
    ]


def _number(name: str) -> int:
    return signal.Signals[f"SIG{name}"].value


class SupervisedRuntime(ABC):
    """Base of the backends. `root` holds one directory per container and what the backend shares among them."""

    def __init__(self, root: Path, program: Sequence[str]) -> None:
        self._root = root / "containers"
        self._program = tuple(program)
        self._running: set[str] = set()
        self._children: dict[str, int] = {}
        self._directories: dict[str, ContainerDirectory] = {}
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._spares = Spares(self._root)

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    @abstractmethod
    def features(self) -> frozenset[Feature]: ...

    @property
    def abilities(self) -> frozenset[str]:
        return frozenset()

    @abstractmethod
    def _set_up(self, spec: ContainerSpec, directory: ContainerDirectory) -> None:
        """Everything but the process, in a thread. The directory exists. Raises ContainerError, OSError."""

    @abstractmethod
    def _command(self, spec: ContainerSpec, directory: ContainerDirectory) -> tuple[list[str], dict[str, str]]:
        """What the supervisor executes, and with which environment."""

    @abstractmethod
    def _clean(self, name: str) -> None:
        """Kills and removes what lives outside the container's directory, in a thread. Idempotent."""

    @abstractmethod
    def _sample(self, name: str) -> Usage:
        """Raises OSError for a container that is ending."""

    def _verify(self, spec: ContainerSpec) -> str | None:
        """After the start: what is wrong with it, if anything."""
        return None

    async def _set_to(self, work: Callable[..., None], *arguments: object) -> None:
        """Does what sets up a container or clears it away: in a thread, for it may take long."""
        await trio.to_thread.run_sync(work, *arguments)

    def _change(self, old: ContainerSpec, new: ContainerSpec) -> None:
        """Brings what runs from one's limits to the other's, in a thread. Raises ContainerError or OSError, having put
        back the former ones; called with a difference only."""
        raise UnsupportedError(self.name, ("limits",))

    def _explain(self, directory: ContainerDirectory, ending: Exit) -> Exit:
        """The exit with a better reason, where the backend knows one."""
        return ending

    async def reserve(self, spec: ContainerSpec) -> None:
        await trio.lowlevel.checkpoint()

    async def prepare(self, spec: ContainerSpec) -> None:
        missing = unmet(spec, self.features)
        if missing:
            raise UnsupportedError(self.name, missing)
        await self._set_to(self._prepare, spec)

    def _prepare(self, spec: ContainerSpec) -> None:
        directory, spare = self._directory(spec.name), self._spares.take()
        try:
            directory.create(spec, spare)
        except OSError as error:
            if spare is not None:
                self._spares.give_back(spare)
            if not isinstance(error, FileExistsError):
                raise
            raise name_taken(spec.name) from None
        self._directories[spec.name] = directory
        try:
            self._set_up(spec, directory)
        except OSError as error:
            raise StartError(spec.name, str(error)) from error

    async def start(self, spec: ContainerSpec) -> Started:
        directory = self._known(spec.name)
        command, env = self._command(spec, directory)
        try:
            spawned = supervisor.spawn(self._program, directory, command, env)
        except OSError as error:
            raise StartError(spec.name, f"no supervisor: {error}") from error
        self._children[spec.name] = spawned.pid
        self._running.add(spec.name)
        if not await spawned.started():
            ending = await self.wait(spec.name)
            raise StartError(spec.name, ending.error or "ended before its command ran")
        await self._check_started(spec, directory)
        return Started(spawned.pid, trio.current_time())

    async def _check_started(self, spec: ContainerSpec, directory: ContainerDirectory) -> None:
        wrong = self._verify(spec)
        if wrong is None:
            return
        with trio.move_on_after(KILL_ALONE_TIMEOUT_S):  # perhaps it has just ended and is being cleared away
            await supervisor.wait_gone(directory)
            return
        await self.kill(spec.name)
        await self.wait(spec.name)
        raise StartError(spec.name, wrong)

    async def update(self, spec: ContainerSpec) -> None:
        missing = unmet(spec, self.features)
        if missing:
            raise UnsupportedError(self.name, missing)
        directory = self._known(spec.name)
        old = directory.spec()
        if old is None or directory.exit() is not None or not directory.is_locked():
            raise UpdateError(spec.name, "it does not run (any more)")
        new = with_limits(old, spec)
        if new != old:
            await trio.to_thread.run_sync(self._update, directory, old, new)

    def _update(self, directory: ContainerDirectory, old: ContainerSpec, new: ContainerSpec) -> None:
        """The intent is written first: whoever takes over after a death in between changes from there."""
        try:
            directory.write_changed(new)
            self._change(old, new)
        except (ContainerError, OSError) as error:
            with suppress(OSError):
                directory.write_changed(old)
            raise (error if isinstance(error, ContainerError) else UpdateError(old.name, str(error))) from error

    async def stop(self, name: str, grace_s: float) -> None:
        directory = self._known(name)
        try:
            directory.write("stop", str(max(0, int(grace_s * 1000))).encode())
            await self._notify(directory)
        except OSError:  # a full disk: by signal, which knows the spec's grace and none
            supervisor.send_signal(directory, signal.SIGTERM if grace_s > 0 else signal.SIGQUIT)

    async def freeze(self, name: str) -> None:
        raise UnsupportedError(self.name, ("freeze",))

    async def thaw(self, name: str) -> None:
        raise UnsupportedError(self.name, ("freeze",))

    def is_frozen(self, name: str) -> bool:
        return False

    def entrance(self, name: str, *, tty: bool = False) -> Entrance:
        raise UnsupportedError(self.name, ("enter",))

    async def kill(self, name: str) -> None:
        await self.stop(name, 0)

    async def set_lease(self, name: str, lease_s: float) -> None:
        directory = self._known(name)
        deadline_ms = int((time.clock_gettime(time.CLOCK_BOOTTIME) + lease_s) * 1000)
        former_ms = directory.lease_deadline_ms()
        directory.write("lease", str(deadline_ms).encode())
        if former_ms is None or deadline_ms < former_ms:  # a supervisor looks again by itself when a lease has passed
            await self._notify(directory)

    async def _notify(self, directory: ContainerDirectory) -> None:
        """Has the supervisor read its orders. One that has not begun to listen reads them when it does."""
        while not supervisor.send_signal(directory, signal.SIGHUP) and directory.is_locked():  # noqa: ASYNC110
            await trio.sleep(POLL_INTERVAL_S)

    async def wait(self, name: str) -> Exit:
        directory = self._known(name)
        if name in self._children:
            await supervisor.wait_child(self._children[name])
        ending = directory.exit()
        if ending is None:
            await supervisor.wait_gone(directory)
            ending = directory.exit()
        if ending is None and not directory.had_supervisor():
            raise UnknownContainerError(f"container {name} was prepared, but not started")
        if ending is None:
            ending = await trio.to_thread.run_sync(self._bury, directory)
        self._forget(name)
        return self._explain(directory, ending)

    def _bury(self, directory: ContainerDirectory) -> Exit:
        """Settles a container that has neither supervisor nor exit. In a thread."""
        if not directory.of_this_boot():
            error = "the host was restarted while it ran"
        elif directory.had_supervisor():
            error = "its supervisor was killed, and the container with it"
        else:
            error = "the agent ended before it was started"
        self._clean(directory.name)
        directory.write_exit(Exit(started_unix_s=directory.started_unix_s(), ended_unix_s=time.time(), error=error))
        ending = directory.exit()
        assert ending is not None, "just written"
        return ending

    def _forget(self, name: str) -> None:
        self._running.discard(name)
        if name in self._children and supervisor.reap(self._children[name]):
            del self._children[name]

    async def recover(self) -> list[Recovered]:
        return await trio.to_thread.run_sync(self._recover)

    def _recover(self) -> list[Recovered]:
        self._spares.remove_all()
        found = [self._settle(directory) for directory in all_directories(self._root)]
        self._running = {container.name for container in found if container.running}
        return found

    def _settle(self, directory: ContainerDirectory) -> Recovered:
        """An exit that is written is the end, even while its supervisor takes a moment to go."""
        spec = directory.spec()
        if directory.exit() is None and directory.is_locked():
            return Recovered(directory.name, running=True, spec=spec)
        ending = directory.exit()
        ending = self._explain(directory, ending) if ending is not None else self._bury(directory)
        return Recovered(directory.name, running=False, exit=ending, spec=spec)

    async def remove(self, name: str) -> None:
        directory = self._directory(name)
        if directory.is_locked():
            await self._end(directory)
        self._forget(name)
        self._directories.pop(name, None)
        await self._set_to(self._clean_and_discard, directory)
        self._forget(name)
        self._children.pop(name, None)

    def _clean_and_discard(self, directory: ContainerDirectory) -> None:
        self._clean(directory.name)
        if not self._spares.give(directory.path):
            directory.discard()

    async def _end(self, directory: ContainerDirectory) -> None:
        """By its supervisor; without it, should it not obey."""
        with trio.move_on_after(KILL_TIMEOUT_S):
            await self.kill(directory.name)
            await supervisor.wait_gone(directory)
            return
        supervisor.send_signal(directory, signal.SIGKILL)
        with trio.move_on_after(KILL_ALONE_TIMEOUT_S):
            await supervisor.wait_gone(directory)
            return
        raise ContainerError(f"the supervisor of {directory.name} does not die; is its disk gone?")

    def usage(self) -> Mapping[str, Usage]:
        samples = {}
        for name in self._running:
            with suppress(OSError, ValueError):
                samples[name] = self._sample(name)
        return samples

    def log_path(self, name: str, stream: Stream) -> Path:
        return self._root / name / stream

    def read_log(self, name: str, stream: Stream, offset: int, bytes_max: int) -> LogChunk:
        return read_log(self._known(name).path, stream, offset, bytes_max)

    def forget_rootfs(self, rootfs: Path) -> None:  # noqa: B027 (a runtime may have nothing to forget)
        """Nothing is kept of an image."""

    async def purge(self) -> None:
        async with trio.open_nursery() as nursery:
            for directory in all_directories(self._root):
                nursery.start_soon(self.remove, directory.name)
        self._spares.remove_all()
        self._root.rmdir()

    def _directory(self, name: str) -> ContainerDirectory:
        if name in self._directories:
            return self._directories[name]
        if not NAME_PATTERN.fullmatch(name):
            raise SpecError(f"name is {name!r}; it should be 1 to 63 of a-z 0-9 . -, a letter or digit first")
        return ContainerDirectory(self._root / name)

    def _known(self, name: str) -> ContainerDirectory:
        directory = self._directory(name)
        if name not in self._directories and not directory.exists():
            raise UnknownContainerError(f"no container {name} on this node")
        return directory
