"""Who uses which image, since when nobody does, and the room that this gives for others.

Owns the counts of use and the bound on all images' files; knows neither names nor disks. The order is least recently
used; what the cluster can't do without is the business of `expendable`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from node.host.errors import NoSpace


@dataclass(frozen=True, slots=True)
class Idle:
    """A stored image that nobody uses now."""

    digest: str
    size_bytes: int
    last_used_unix_s: float
    fetched: bool


class Uses:
    """Counts of use by digest and user; `mark` is told of every beginning and end."""

    def __init__(self, mark: Callable[[str], None]) -> None:
        self._mark = mark
        self._users: dict[str, Counter[str]] = {}
        self._last_unix_s: dict[str, float] = {}

    def __contains__(self, digest: object) -> bool:
        """Whether somebody uses it now."""
        return digest in self._users

    def begin(self, digest: str, user: str) -> None:
        """Count one use."""
        self._users.setdefault(digest, Counter())[user] += 1
        self.touch(digest)

    def end(self, digest: str, user: str) -> None:
        """Count one use less."""
        users = self._users.get(digest, Counter())
        assert users[user] > 0, f"{digest} is released more often than acquired"
        users[user] -= 1
        if not users[user]:
            del users[user]
        if not users:
            del self._users[digest]
        self.touch(digest)

    def touch(self, digest: str) -> None:
        """It is used now."""
        self._last_unix_s[digest] = time.time()
        self._mark(digest)

    def remember(self, digest: str, last_unix_s: float) -> None:
        """It was last used then, as the disk tells."""
        self._last_unix_s[digest] = last_unix_s

    def forget(self, digest: str) -> None:
        """It is gone."""
        self._last_unix_s.pop(digest, None)

    def users(self, digest: str) -> list[str]:
        """Return who uses it; sorted."""
        return sorted(self._users.get(digest, ()))

    def last_unix_s(self, digest: str) -> float:
        """Return when somebody last began or ended to use it, or when it came; 0 for what is gone by now."""
        return self._last_unix_s.get(digest, 0.0)


async def _never(digest: str) -> bool:
    return False


class Room:
    """The bound on all images' files. `idle` lists what nobody uses, longest unused first; `remove` removes one."""

    def __init__(
        self,
        bytes_max: int,
        stored_bytes: Callable[[], int],
        idle: Callable[[], Sequence[Idle]],
        remove: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._bytes_max = bytes_max
        self._stored_bytes = stored_bytes
        self._idle = idle
        self._remove = remove
        self._expected_bytes = 0
        self._making = trio.Lock()
        self.expendable: Callable[[str], Awaitable[bool]] = _never

    @asynccontextmanager
    async def kept(self, size_bytes: int) -> AsyncGenerator[None, None]:
        """Keep room for an image that is about to be stored; raises NoSpace where there is none to be made."""
        async with self._making:
            if size_bytes:
                await self._make(size_bytes)
            self._expected_bytes += size_bytes
        try:
            yield
        finally:
            self._expected_bytes -= size_bytes

    async def _make(self, size_bytes: int) -> None:
        for idle in self._idle():
            if self._fits(size_bytes):
                return
            if await self.expendable(idle.digest):
                await self._remove(idle.digest)
        if not self._fits(size_bytes):
            raise NoSpace(
                f"no room for an image of {size_bytes} bytes: {self._stored_bytes()} of {self._bytes_max} bytes"
                " (images.disk_bytes_max) hold images that are used, or that no other node has"
            )

    def _fits(self, size_bytes: int) -> bool:
        return self._stored_bytes() + self._expected_bytes + size_bytes <= self._bytes_max
