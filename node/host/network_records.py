"""What each container has of this node's network, one file each: it survives the agent's death at any moment.

A record is written before the container is made and removed after it is gone, so addresses and ports are never given
away twice, and the rules can be made anew from the records alone. Beside them lie empty files named as addresses that
rest, whose time stamps say since when.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec

from node.host.network_pools import REST_S, PortKey
from scheduler.model import AllocationId

RESTING = "rest-"
GONE = "gone-"


class Interface(msgspec.Struct, frozen=True):
    """One interface of a container; `network` is "" for the node's own one."""

    network: str
    host_end: str
    address: str
    address6: str
    mac: str


class PublishedPort(msgspec.Struct, frozen=True):
    """A port of the host that leads to one of the container."""

    protocol: str
    host_port: int
    port: int

    @property
    def key(self) -> PortKey:
        """What is unique on a node."""
        return self.protocol, self.host_port


class Attachment(msgspec.Struct, frozen=True):
    """What one container has of the node's network. `owner_mark` stands for its owner in rules; unique on the node."""

    name: str
    owner: str
    owner_mark: int
    interfaces: tuple[Interface, ...]
    ports: tuple[PublishedPort, ...] = ()
    open: bool = False
    rate_out: int = 0
    traffic_class: str = ""
    """MAJOR:MINOR of what it sends beyond its bridge."""
    gang_size: int = 0
    """How many tasks its gang has; 0: it is in none."""
    members: tuple[str, ...] = ()
    """Containers that share it, `name` being the first that came; empty: it is of one container, alone."""
    left: tuple[str, ...] = ()
    """Members that are gone."""

    @property
    def containers(self) -> tuple[str, ...]:
        """Those that are in it now."""
        return self.members or (self.name,)

    def could_take(self, id_: AllocationId) -> bool:
        """Whether that container is of the same start of the same gang: a later one of a task is of another start."""
        known = [AllocationId.parse(each) for each in (*self.members, *self.left)]
        return bool(self.members) and known[0].job == id_.job and id_.index not in [each.index for each in known]


class Records:
    """The files. Names of containers are the agent's own, `JOB.INDEX.ATTEMPT`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._cleaner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="network-records")
        directory.mkdir(parents=True, exist_ok=True)
        self.attachments = dict(self._read())

    def put(self, attachment: Attachment) -> None:
        """Write first, then let it count."""
        path = self._directory / f"{attachment.name}.json"
        scratch = path.with_suffix(".tmp")
        scratch.write_bytes(msgspec.json.encode(attachment))
        os.replace(scratch, path)
        self.attachments[attachment.name] = attachment

    def drop(self, name: str) -> None:
        """Forget a container; its addresses rest from now on. Idempotent."""
        attachment = self.attachments.pop(name, None)
        if attachment is None:
            return
        for interface in attachment.interfaces:
            (self._directory / f"{RESTING}{interface.address}").touch()
        # Forgotten at once, removed in a moment: where a file system tells its disk of every freed block, that takes
        # milliseconds.
        gone = self._directory / f"{GONE}{name}"
        with suppress(FileNotFoundError):
            (self._directory / f"{name}.json").rename(gone)
            self._cleaner.submit(gone.unlink, missing_ok=True)

    def resting(self) -> dict[str, float]:
        """Return the addresses that rest and until when (wall clock); those whose time is over are forgotten."""
        found = {}
        for path in self._directory.glob(f"{RESTING}*"):
            with suppress(FileNotFoundError):
                until_s = path.stat().st_mtime + REST_S
                if until_s > time.time():
                    found[path.name.removeprefix(RESTING)] = until_s
                else:
                    path.unlink()
        return found

    def _read(self) -> Iterator[tuple[str, Attachment]]:
        for path in (*self._directory.glob("*.tmp"), *self._directory.glob(f"{GONE}*")):
            path.unlink()  # the agent died while it wrote or removed; nothing is made of it
        for path in self._directory.glob("*.json"):
            attachment = msgspec.json.decode(path.read_bytes(), type=Attachment)
            yield attachment.name, attachment
