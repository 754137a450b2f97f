"""What a container used, and whether it ran out of memory: by its groups, else by what the kernel says of children."""

import contextlib
import os
import resource

from node.runtime.twin.files import read_number, write_text
from node.runtime.twin.orders import Orders


class WatchError(Exception):
    """Memory exhaustion would go unnoticed."""


class Accounts:
    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.ooms = 0
        self.oom = -1

    def watch(self) -> None:
        """v1 forgets its count with the group, so it is counted as it happens; v2 keeps it. Raises WatchError."""
        if not os.path.exists(f"{self.orders.memory}/memory.oom_control"):
            return
        self.oom = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        control = os.open(f"{self.orders.memory}/memory.oom_control", os.O_RDONLY)
        if not write_text(f"{self.orders.memory}/cgroup.event_control", f"{self.oom} {control}"):
            raise WatchError("cannot watch for memory exhaustion")
        os.close(control)

    def count_ooms(self) -> int:
        if self.oom < 0:
            self.ooms = read_number(f"{self.orders.memory}/memory.events", "oom_kill ") if self.orders.memory else 0
        else:
            with contextlib.suppress(BlockingIOError):
                self.ooms += os.eventfd_read(self.oom)
        return self.ooms

    def of_groups(self) -> tuple[int, int]:
        """Peak of memory in bytes, processor time in ns; -1 for what no group counts."""
        orders = self.orders
        peak = max(read_number(f"{orders.memory}/{file}") for file in ("memory.peak", "memory.max_usage_in_bytes"))
        cpu_us = read_number(f"{orders.cpu}/cpu.stat", "usage_usec ")
        return peak, read_number(f"{orders.cpu}/cpuacct.usage") if cpu_us < 0 else cpu_us * 1000


def of_children() -> tuple[int, int]:
    """The same of what was waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_maxrss * 1024, int((usage.ru_utime + usage.ru_stime) * 1e9)
