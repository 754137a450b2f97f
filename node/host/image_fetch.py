"""Downloads to files: bounded, resumable, and one for all who want the same thing.

Knows no HTTP and no image format: it gets a way to open the peer's stream at an offset, and a way to store what came.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import BinaryIO

import trio

from node.host.errors import ArchiveError, FetchInterrupted, ImageError, not_stored

ATTEMPTS_MAX = 5
BACKOFF_S = 0.2
PARTIAL_FILES_MAX = 4

OpenStream = Callable[[int], AsyncIterator[bytes]]
"""Opens a peer's stream at a byte offset; raises FetchInterrupted or OSError where another try may help."""
StoreArchive = Callable[[Path], Awaitable[None]]
"""Checks and stores a whole download; raises ArchiveError if it is not what was wanted."""


async def download(target: Path, stream: AsyncIterator[bytes], bytes_max: int) -> None:
    """Append a stream to a file; raises ArchiveError when the file would pass `bytes_max`."""
    file = await trio.to_thread.run_sync(lambda: target.open("ab"))
    try:
        size_bytes = file.tell()
        async for chunk in stream:
            size_bytes += len(chunk)
            if size_bytes > bytes_max:
                raise ArchiveError(f"more than {bytes_max} bytes; larger archives are not taken")
            await trio.to_thread.run_sync(_write, file, chunk)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(file.close)
            if hasattr(stream, "aclose"):
                await stream.aclose()


class _Fetch:
    """One download that several callers wait for."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.ended = trio.Event()
        self.error: ImageError | None = None


class SharedFetches:
    """All downloads under way, by what is wanted. What arrived of a broken one stays for the next call."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._fetches: dict[str, _Fetch] = {}

    def progress(self) -> dict[str, tuple[int, int]]:
        """Return how many bytes have come, and about how many are to come in all (0: not known), of each download."""
        return {key: (_size_bytes(self._partial(key)), fetch.total_bytes) for key, fetch in self._fetches.items()}

    async def fetch(self, key: str, open_stream: OpenStream, store: StoreArchive, total_bytes: int = 0) -> None:
        """Download and store; or wait for the caller who does, and share the outcome.

        Returns without having stored only if that caller was cancelled: ask again then. Raises ImageError.
        """
        ongoing = self._fetches.get(key)
        if ongoing is not None:
            await ongoing.ended.wait()
            if ongoing.error is not None:
                raise type(ongoing.error)(*ongoing.error.args) from ongoing.error
            return
        fetch = self._fetches[key] = _Fetch(total_bytes)
        try:
            await self._fetch(key, open_stream, store)
        except ImageError as error:
            fetch.error = error
            raise
        finally:
            del self._fetches[key]
            fetch.ended.set()

    async def _fetch(self, key: str, open_stream: OpenStream, store: StoreArchive) -> None:
        partial = self._partial(key)
        await trio.to_thread.run_sync(self._make_room)
        try:
            await self._download_resuming(partial, open_stream)
            await store(partial)
        except ArchiveError:
            # Wrong, or without room: there is nothing to resume. After a cancellation the file is still good.
            await trio.to_thread.run_sync(partial.unlink, True)
            raise
        await trio.to_thread.run_sync(partial.unlink)

    async def _download_resuming(self, partial: Path, open_stream: OpenStream) -> None:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            offset = await trio.to_thread.run_sync(_size_bytes, partial)
            try:
                await download(partial, open_stream(offset), self._bytes_max)
            except (FetchInterrupted, OSError) as error:
                if attempt == ATTEMPTS_MAX:
                    raise FetchInterrupted(f"the transfer broke {attempt} times: {error}") from error
                await trio.sleep(BACKOFF_S * 2**attempt)
            else:
                return

    def _partial(self, key: str) -> Path:
        return self._folder / f"{key}.part"

    def _make_room(self) -> None:
        """Bound the broken downloads that wait for another try: the oldest go."""
        waiting = [path for path in self._folder.glob("*.part") if path.stem not in self._fetches]
        waiting.sort(key=lambda path: path.stat().st_mtime)
        for path in waiting[: max(0, len(waiting) - PARTIAL_FILES_MAX)]:
            path.unlink()


def _write(file: BinaryIO, chunk: bytes) -> None:
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:
        raise not_stored("the archive cannot be stored", error) from error


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
