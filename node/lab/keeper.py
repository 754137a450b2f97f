"""
The first process of a lab's node: it starts the agent, keeps its log within bounds, and is the plug that can be pulled.

As root it runs as process 1 of a process namespace of its own, in the node's network namespace and a private mount
namespace, whose /sys shows that network (LXC looks for bridges there) and the machine's cgroups: when it is killed,
the kernel kills everything on the node at once. Without root it is a sub-reaper: whatever the agent leaves behind
stays below it in the process tree, where `lab down` finds it.

Signals: USR1 starts the agent if it is not running, USR2 kills it with SIGKILL, TERM asks it to stop and then ends
the keeper and so the node. Only the standard library is imported: there is one keeper a node, and it should weigh
nothing.

    python -m node.lab.keeper NETNS|- FOLDER LOG COMMAND...      prints the keeper's process id and returns
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from pathlib import Path

CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
PR_SET_CHILD_SUBREAPER = 36

LOG_BYTES_MAX = 4 * 1024 * 1024  # of each of two files
STOP_GRACE_S = 10.0

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def enter_network(name: str) -> None:
    """Move this thread into a named network namespace."""
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(descriptor, CLONE_NEWNET), f"setns {name}")
    finally:
        os.close(descriptor)


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    _check(
        _libc.mount(source.encode(), target.encode(), kind.encode() if kind else None, ctypes.c_ulong(flags), None),
        f"mount {target}",
    )


def _private_mounts(folder: Path) -> None:
    """A /proc of this process namespace, and a /sys of this network namespace with the machine's cgroups in it."""
    _check(_libc.unshare(CLONE_NEWNS), "unshare")
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    aside = folder / "cgroup"
    aside.mkdir(exist_ok=True)
    _mount("/sys/fs/cgroup", str(aside), None, MS_BIND | MS_REC)
    _mount("sysfs", "/sys", "sysfs", 0)
    _mount(str(aside), "/sys/fs/cgroup", None, MS_BIND | MS_REC)
    _check(_libc.umount2(str(aside).encode(), MNT_DETACH), "umount")
    aside.rmdir()
    _mount("proc", "/proc", "proc", 0)


class BoundedLog:
    """An append-only file with one predecessor; together never more than twice LOG_BYTES_MAX."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        if self._file.tell() + len(data) > LOG_BYTES_MAX:
            self._file.close()
            self._path.replace(self._path.with_suffix(".log.1"))
            self._file = self._path.open("ab", buffering=0)
        self._file.write(data)


class Keeper:
    def __init__(self, command: list[str], log: Path) -> None:
        self._command = command
        self._log = BoundedLog(log)
        self._output, self._agent_output = os.pipe()
        self._wake, wake_writer = os.pipe()
        for descriptor in (self._wake, wake_writer):
            os.set_blocking(descriptor, False)
        self._agent_pid = 0
        self._stop_by: float | None = None
        signal.set_wakeup_fd(wake_writer)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)

    def run(self) -> None:
        self._start_agent()
        while self._stop_by is None or (self._agent_pid and time.monotonic() < self._stop_by):
            ready, _, _ = select.select([self._output, self._wake], [], [], 1.0)
            if self._output in ready:
                self._log.write(os.read(self._output, 65536))
            if self._wake in ready:
                for number in os.read(self._wake, 64):
                    self._on_signal(number)
            self._reap()
        if self._agent_pid:
            self._signal_agent(signal.SIGKILL)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGUSR1 and not self._agent_pid and self._stop_by is None:
            self._start_agent()
        elif number == signal.SIGUSR2:
            self._signal_agent(signal.SIGKILL)
        elif number == signal.SIGTERM and self._stop_by is None:
            self._stop_by = time.monotonic() + STOP_GRACE_S
            self._signal_agent(signal.SIGTERM)

    def _signal_agent(self, number: signal.Signals) -> None:
        if self._agent_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._agent_pid, number)

    def _start_agent(self) -> None:
        pid = os.fork()
        if pid == 0:
            _become_agent(self._command, self._agent_output)
        self._agent_pid = pid

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._agent_pid:
                    self._agent_pid = 0
                    self._note(f"the agent ended: {_ending(ended[1])}")

    def _note(self, text: str) -> None:
        self._log.write(f"keeper: {text}\n".encode())


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _become_agent(command: list[str], output: int) -> None:
    """In the child: a session of its own, output to the keeper's pipe, default signals, then the agent. Does not
    return.
    """
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.execvp(command[0], command)  # noqa: S606 - a list, no shell
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def _detach() -> None:
    """Leave nothing of the starter's behind: its terminal, its folder, its standard files."""
    os.setsid()
    os.chdir("/")
    nothing = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)


def main(arguments: list[str]) -> int:
    netns, folder, log, command = arguments[0], Path(arguments[1]), Path(arguments[2]), arguments[3:]
    isolated = netns != "-"
    if isolated:
        enter_network(netns)
        _check(_libc.unshare(CLONE_NEWPID), "unshare")
    # The pipe tells the starter whether the namespaces could be made.
    ready, report = os.pipe()
    pid = os.fork()
    if pid:
        os.close(report)
        trouble = b"".join(iter(lambda: os.read(ready, 4096), b""))
        if trouble:
            sys.stderr.write(trouble.decode(errors="replace") + "\n")
            return 1
        print(pid)
        return 0
    try:
        if isolated:
            _private_mounts(folder)
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        else:
            _check(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")
        os.umask(0o022)
        keeper = Keeper(command, log)
    except OSError as error:
        os.write(report, str(error).encode())
        os._exit(1)
    os.close(ready)
    os.close(report)
    _detach()
    keeper.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
