"""Everything that runs inside: how many there are, and signals to them."""

import contextlib
import os
import signal

from node.runtime.twin.files import read_text, write_text
from node.runtime.twin.orders import Orders


def is_init(pid: int) -> bool:
    """Of the container: LXC's own, which would cut the grace short."""
    for line in read_text(f"/proc/{pid}/status").splitlines():
        if line.startswith("NSpid:"):
            return line.count("\t") > 1 and line.split()[-1] == "1"
    return False


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
        if not final:
            self.thaw()
        if not self.orders.lxc:
            reached += self.signal_session(number)
        killed = final and any(write_text(f"{path}/payload/cgroup.kill", "1") for path in self.orders.cgroups)
        if not killed:
            reached += self.signal_payload(number)
        if final:
            self.thaw()
        return reached

    def signal_session(self, number: int) -> int:
        reached = 0
        if self.child > 0 and self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child, number)
                reached = 1
        if number == signal.SIGKILL:
            for word in read_text(f"/proc/self/task/{os.getpid()}/children").split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(word), number)
        return reached

    def signal_payload(self, number: int) -> int:
        reached = 0
        for inner, _, _ in os.walk(f"{self.orders.cgroups[0]}/payload" if self.orders.cgroups else ""):
            for word in read_text(f"{inner}/cgroup.procs").split():
                if int(word) > 0 and (number != signal.SIGTERM or not is_init(int(word))):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(word), number)
                        reached += 1
        return reached

    def thaw(self) -> None:
        for path in self.orders.cgroups:
            write_text(f"{path}/payload/freezer.state", "THAWED")
            write_text(f"{path}/payload/cgroup.freeze", "0")
