"""One stream of a command: a head, and a tail of two sliding segments, so that a flood costs a bounded disk."""

import contextlib
import os

from node.runtime.twin.orders import Orders

READ_BYTES = 16384


class Output:
    """One stream: a head, and a tail of two sliding segments."""

    def __init__(self, name: str, orders: Orders) -> None:
        self.name = name
        self.orders = orders
        self.pipe, self.command_end = os.pipe()
        os.set_blocking(self.pipe, False)
        if orders.owner >= 0:
            os.fchown(self.command_end, orders.owner, orders.owner)
        self.file = -1
        self.size = self.segment_end = 0
        self.tails: list[int] = []

    def next_segment(self) -> None:
        if self.file >= 0:
            os.close(self.file)
        head = self.size == 0 and self.segment_end == 0
        path = self.name if head else f"{self.name}.{self.size}"
        if not head:
            self.tails.append(self.size)
            if len(self.tails) > 2:
                with contextlib.suppress(OSError):
                    os.unlink(f"{self.name}.{self.tails.pop(0)}")
        self.segment_end = self.size + (self.orders.log_bytes // (2 if self.size == 0 else 4))
        try:
            self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError:
            self.file = -1

    def keep(self, data: bytes) -> None:
        while data:
            if self.size >= self.segment_end:
                self.next_segment()
            part = data[: self.segment_end - self.size]
            try:
                done = os.write(self.file, part)
            except OSError:
                done = len(part)
                self.segment_end = self.size + done
            self.size += done
            data = data[done:]

    def drain(self, turns: int) -> None:
        while turns > 0 and self.pipe >= 0:
            turns -= 1
            try:
                data = os.read(self.pipe, READ_BYTES)
            except BlockingIOError:
                return
            if data:
                self.keep(data)
            else:
                os.close(self.pipe)
                self.pipe = -1
