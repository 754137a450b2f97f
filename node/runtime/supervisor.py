"""Builds the supervisor, starts one for a container, and watches it.

Owns: the compiled supervise.c (or its twin supervise.py), the spawn, and waiting for a supervisor's end.
May not know: what the supervised command is. A supervisor is no child to rely on: after a restart of the agent it is
a stranger known by its lock, so everything here works with both.

A supervisor costs some 100 KiB (the Python twin some 8 MiB) and a millisecond.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

from node.runtime.directory import ContainerDirectory

SOURCE = Path(__file__).with_name("supervise.c")
TWIN = Path(__file__).with_name("supervise.py")
COMPILERS = ("musl-gcc", "cc", "gcc", "clang", "tcc")
FLAGS: tuple[tuple[str, ...], ...] = (("-Os", "-static", "-s"), ("-O1",), ())
COMPILE_TIMEOUT_S = 60
STATUS_FD, LOCK_FD = 3, 4
HIGH_FD = 10
ALL_SIGNALS = frozenset(signal.valid_signals())
USAGE_ERROR = 2
POLL_INTERVAL_S = 0.002


def build(cache: Path, compilers: Sequence[str] = COMPILERS) -> tuple[str, ...]:
    """The command that runs a supervisor: compiled once for each version of the source, or the Python twin where
    no compiler works. Blocks for about a second the first time."""
    key = hashlib.sha256(SOURCE.read_bytes() + platform.machine().encode()).hexdigest()[:16]
    binary = cache / f"supervise-{key}"
    if _works(binary) or any(_compile(compiler, flags, binary) for compiler in compilers for flags in FLAGS):
        return (str(binary),)
    return (sys.executable, "-I", "-S", str(TWIN))


def _compile(compiler: str, flags: Sequence[str], binary: Path) -> bool:
    if shutil.which(compiler) is None:
        return False
    binary.parent.mkdir(parents=True, exist_ok=True)
    temporary = binary.with_name(f".{binary.name}.{os.getpid()}")
    command = [compiler, *flags, "-o", str(temporary), str(SOURCE)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=COMPILE_TIMEOUT_S, check=False)
        if done.returncode == 0 and _works(temporary):
            temporary.replace(binary)
            return True
    except (OSError, subprocess.TimeoutExpired):
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return False


def _works(binary: Path) -> bool:
    """It runs here and complains about missing arguments."""
    try:
        return subprocess.run([str(binary)], capture_output=True, timeout=10, check=False).returncode == USAGE_ERROR
    except (OSError, subprocess.TimeoutExpired):
        return False


class Spawned:
    """A supervisor that this process has just started."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self._status = status

    async def started(self) -> bool:
        """True once its command is being executed, False if it ended before."""
        try:
            await trio.lowlevel.wait_readable(self._status)
            return os.read(self._status, 16) != b""
        finally:
            self.close()

    def close(self) -> None:
        if self._status >= 0:
            os.close(self._status)
            self._status = -1


def spawn(
    program: Sequence[str], directory: ContainerDirectory, command: Sequence[str], env: Mapping[str, str]
) -> Spawned:
    """Starts a supervisor in a session of its own, with all signals blocked until it listens, and with no
    descriptor of ours but two. Raises BlockingIOError if the container has one, OSError if none can be started."""
    opened: list[int] = []
    try:
        opened.append(directory.lock())
        lock = _high(opened, opened[0])
        status, status_end = os.pipe2(os.O_CLOEXEC)
        opened.append(status_end)
        try:
            pid = os.posix_spawn(
                program[0],
                [*program, str(directory.path), *command],
                env,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, _high(opened, status_end), STATUS_FD),
                    (os.POSIX_SPAWN_DUP2, lock, LOCK_FD),
                ],
                setsid=True,
                setsigmask=ALL_SIGNALS,
                setsigdef=[signal.SIGPIPE],
            )
        except BaseException:
            os.close(status)
            raise
        return Spawned(pid, status)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _high(opened: list[int], descriptor: int) -> int:
    """A copy beyond the numbers that the spawn assigns, so that no assignment overwrites a source."""
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH_FD)
    opened.append(copy)
    return copy


def hasten(program: Sequence[str], group: Path) -> int | None:
    """Has the kernel begin now what whoever changes its control group first after a pause has to wait for: a grace
    period of RCU, 5 to 15 ms, and none for those who follow within some 30 ms (cgroup_threadgroup_rwsem in the
    kernel's kernel/cgroup/cgroup.c, kernel/rcu/sync.c; measured on Linux 6.18). Meanwhile no group can be made.

    Returns the process to reap, which joins `group` and ends; None where it would start more slowly than it helps."""
    if len(program) > 1:
        return None
    null = [(os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) for number in (0, 1, 2)]
    return os.posix_spawn(program[0], [*program, "--join", str(group)], {}, file_actions=null, setsid=True)


async def wait_gone(directory: ContainerDirectory) -> None:
    """Returns when the container has no supervisor (any more). Any number may wait, each with its own pidfd."""
    while directory.is_locked():
        pidfd = _open_pidfd(directory)
        if pidfd is None:
            await trio.sleep(POLL_INTERVAL_S)  # it has its lock and will write its pid in a moment
            continue
        try:
            await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)


async def wait_child(pid: int) -> None:
    """Returns when a supervisor that this process started, and has not reaped, has ended: its pid is still its own."""
    pidfd = os.pidfd_open(pid)
    try:
        await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)


def reap(pid: int) -> bool:
    """Takes the remains of a process that this one started, if it has ended; whether nothing is left of it."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def send_signal(directory: ContainerDirectory, number: signal.Signals) -> bool:
    """False if there is no supervisor to send it to."""
    pidfd = _open_pidfd(directory)
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def _open_pidfd(directory: ContainerDirectory) -> int | None:
    """The lock is asked after the pidfd is open: while it is held its holder lives, and so the pid is still his."""
    pid = directory.supervisor_pid()
    if pid is None:
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if directory.is_locked():
        return pidfd
    os.close(pidfd)
    return None
