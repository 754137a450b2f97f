"""Everything that runs inside: how many there are, and signals to them."""

import contextlib
import os
import signal
from collections.abc import Iterator

from node.runtime.twin.files import read_text, write_text
from node.runtime.twin.orders import Orders

INIT, COMMAND = "1", "2"
"""Process ids inside a container: LXC's own init, and the first process that it starts."""


def ids_of(pid: int) -> list[str]:
    """A process's ids in its namespaces, ours first."""
    for line in read_text(f"/proc/{pid}/status").splitlines():
        if line.startswith("NSpid:"):
            return line.split()[1:]
    return []


def is_init(pid: int) -> bool:
    """Of the container: LXC's own, which would cut the grace short."""
    ids = ids_of(pid)
    return len(ids) > 1 and ids[-1] == INIT


class Inside:
    """The command, once there is a `child`, and what it started."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.child = 0
        self.status: int | None = None

    def count(self) -> int:
        return self.signal_payload(0)

    def signal(self, number: int) -> int:
        """How many processes it reached."""
        final = number == signal.SIGKILL
        reached = 0
        if not self.orders.lxc:
            reached += self.signal_session(number)
        killed = final and any(write_text(f"{path}/payload/cgroup.kill", "1") for path in self.orders.cgroups)
        if not killed:
            reached += self.signal_payload(number)
        self.thaw()  # only now: what is frozen bears no child that would miss the signal
        return reached

    def warn(self, number: int, alone: bool) -> int:
        """As `signal`, but what is frozen stays so, and gets it when it goes on. `alone`: to the command only."""
        if not self.orders.lxc:
            return self.signal_session(number, alone)
        return self.signal_payload(number, alone)

    def signal_session(self, number: int, alone: bool = False) -> int:
        reached = 0
        if self.child > 0 and self.status is None:
            with contextlib.suppress(ProcessLookupError):
                (os.kill if alone else os.killpg)(self.child, number)
                reached = 1
        if number == signal.SIGKILL:
            for word in read_text(f"/proc/self/task/{os.getpid()}/children").split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(word), number)
        return reached

    def signal_payload(self, number: int, alone: bool = False) -> int:
        reached = 0
        for pid in self.payload():
            if self._is_meant(pid, number, alone):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                    reached += 1
        return reached

    @staticmethod
    def _is_meant(pid: int, number: int, alone: bool) -> bool:
        if alone:
            return ids_of(pid)[1:] == [COMMAND]
        return number in (0, signal.SIGKILL) or not is_init(pid)

    def command(self) -> int:
        """The process id of the command, on this host; 0 for one that is not there (yet, or any more)."""
        return next((pid for pid in self.payload() if ids_of(pid)[1:] == [COMMAND]), 0)

    def rest(self) -> list[int]:
        """All but LXC's init."""
        return [pid for pid in self.payload() if ids_of(pid)[1:] != [INIT]]

    def kill_rest(self) -> int:
        """How many there were."""
        rest = self.rest()
        for pid in rest:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(rest)

    def payload(self) -> Iterator[int]:
        for inner, _, _ in os.walk(f"{self.orders.cgroups[0]}/payload" if self.orders.cgroups else ""):
            yield from (pid for pid in map(int, read_text(f"{inner}/cgroup.procs").split()) if pid > 0)

    def thaw(self) -> None:
        for path in self.orders.cgroups:
            write_text(f"{path}/payload/freezer.state", "THAWED")
            write_text(f"{path}/payload/cgroup.freeze", "0")
