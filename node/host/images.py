"""The node's images: read-only root file systems, stored once by content, named, fetched from peers, counted in use.

Owns the images folder of the data directory (layout: `image_folder`) and its bound: what nobody uses goes, longest
unused first, when something new needs the room (`image_room`). Knows nothing of containers or HTTP: who
fetches hands over a way to open the peer's stream, who runs a container says so by `acquire`. Everything slow happens
in threads; the loop only ever moves references.

An image's digest is the SHA-256 of its canonical tar (`canonical_tar`), which is also what `export` gives:
`fofoca image export X | sha256sum` prints it.

Never open a path under `rootfs()` from the host by following links: a link's text is the image author's.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import trio

from node.errors import Busy
from node.host import image_build, image_folder, image_sources
from node.host.canonical_tar import CanonicalTar
from node.host.errors import ArchiveError, ImageError, ImageInUse
from node.host.image_build import BuildOrder, BuildSettings
from node.host.image_config import EMPTY, ImageConfig
from node.host.image_fetch import OpenStream, SharedFetches, download
from node.host.image_folder import ImageFacts
from node.host.image_name import DIGEST_PREFIX, ImageName, is_digest, parse_digest, parse_image_name
from node.host.image_room import Idle, Room, Uses
from node.host.image_sources import Source
from node.host.rootfs_entry import Bounds

IMPORTS_AT_ONCE_MAX = 2
EXPORT_CHUNK_BYTES = 1024 * 1024
DISK_BYTES_MAX = 64 << 30
TAR_ENTRY_BYTES_MAX = 4 << 10
"""What an entry of a tar takes beside its content, with long names."""
EXPORT = "an export"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Image:
    """One name of a stored image; name and tag are "" if it has none."""

    name: str
    tag: str
    digest: str
    size_bytes: int
    imported_unix_s: int
    last_used_unix_s: float = field(default=0.0, compare=False)
    fetched: bool = False
    config: ImageConfig = EMPTY
    users: tuple[str, ...] = ()
    percent: int = 100
    """How much of it is here already."""


class ImageStore:
    """All images of one node; made by `open`.

    `room.expendable` is asked, before an unused image makes room for another, whether the cluster can do without it.
    """

    def __init__(self, folder: Path, bounds: Bounds | None = None, disk_bytes_max: int = DISK_BYTES_MAX) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"
        bounds = bounds or Bounds()
        # What could never be kept is not unpacked to the end, nor read: while it is, it is on the disk.
        self._bounds = replace(bounds, total_bytes_max=min(bounds.total_bytes_max, disk_bytes_max))
        self._packed_bytes_max = min(bounds.total_bytes_max, disk_bytes_max + bounds.entries_max * TAR_ENTRY_BYTES_MAX)
        self._stored: dict[str, ImageFacts] = {}
        self._names: dict[ImageName, str] = {}
        self._uses = Uses(lambda digest: image_folder.mark_used(self._folder / image_folder.hex_of(digest)))
        self.room = Room(disk_bytes_max, lambda: self.stored_bytes, self.idle, self.remove_idle)
        self._building = False
        self.removing: Callable[[Path], None] = lambda rootfs: None
        """Called in a thread before an image's files are removed."""
        self.changed: Callable[[], None] = lambda: None
        """Called when other content is here than before."""
        self._fetches = SharedFetches(self._incoming, self._packed_bytes_max)
        self._changing = trio.Lock()
        self._builders = trio.CapacityLimiter(IMPORTS_AT_ONCE_MAX)
        self._serial = itertools.count()
        self._exporting: tuple[str, CanonicalTar] | None = None

    @classmethod
    async def open(cls, folder: Path, bounds: Bounds | None = None, disk_bytes_max: int = DISK_BYTES_MAX) -> ImageStore:
        """Open the store at `folder`, created if absent; clears away what a crash left unfinished."""
        store = cls(folder, bounds, disk_bytes_max)
        await trio.to_thread.run_sync(store._read)
        return store

    def images(self) -> list[Image]:
        """Return every name, then every image without one; sorted."""
        named = [self._image(self._stored[digest], name) for name, digest in sorted(self._names.items())]
        bare = set(self._stored) - set(self._names.values())
        return named + [self._image(self._stored[digest]) for digest in sorted(bare)]

    def resolve(self, reference: str) -> Image | None:
        """Return the image called NAME, NAME:TAG or sha256:DIGEST, None if absent; ImageError if it is no name."""
        if is_digest(reference):
            facts = self._stored.get(reference)
            return self._image(facts) if facts else None
        name = parse_image_name(reference)
        digest = self._names.get(name)
        return self._image(self._stored[digest], name) if digest else None

    def rootfs(self, digest: str) -> Path:
        """Return the folder to mount read-only; `acquire` the image first."""
        self._require(digest)
        return self._folder / image_folder.hex_of(digest) / "rootfs"

    def facts(self, digest: str) -> ImageFacts:
        """Return what is known of a stored image; ImageError if it is not here."""
        self._require(digest)
        return self._stored[digest]

    def is_named(self, digest: str) -> bool:
        """Return whether a name was given to this content here."""
        return digest in self._names.values()

    async def forget_name(self, name: str) -> None:
        """Take a name away, and leave its content."""
        async with self._changing:
            if (gone := parse_image_name(name)) in self._names:
                await self._set_names({each: digest for each, digest in self._names.items() if each != gone})

    def acquire(self, digest: str, user: str = "somebody") -> None:
        """Keep the image from being removed; one `release` for each. `user` is shown to people."""
        self._require(digest)
        self._uses.begin(digest, user)

    def release(self, digest: str, user: str = "somebody") -> None:
        """Give one use back."""
        self._uses.end(digest, user)

    def users(self, digest: str) -> list[str]:
        """Return who uses an image now; sorted."""
        return self._uses.users(digest)

    def idle(self) -> list[Idle]:
        """Return the images nobody uses, longest unused first."""
        found = [
            Idle(digest, facts.size_bytes, self._uses.last_unix_s(digest), facts.fetched)
            for digest, facts in self._stored.items()
            if digest not in self._uses
        ]
        return sorted(found, key=lambda idle: idle.last_used_unix_s)

    @property
    def stored_bytes(self) -> int:
        """The sum of all images' files."""
        return sum(facts.size_bytes for facts in self._stored.values())

    def fetching(self) -> dict[str, tuple[int, int]]:
        """Return (bytes here, bytes in all, 0 if not known) of each image that is being fetched."""
        return {DIGEST_PREFIX + key: progress for key, progress in self._fetches.progress().items()}

    async def import_tar(self, name: str, stream: AsyncIterator[bytes]) -> Image:
        """Store an archive (plain, gzip, bzip2, xz or zstd) under NAME[:TAG]: a root file system or a packed image.

        A name that exists moves to the new content. Raises ArchiveError, and then nothing was stored.
        """
        image_name = parse_image_name(name)
        archive = self._new_path("tar")
        try:
            await download(archive, stream, self._packed_bytes_max)
            return await self._adopt(image_sources.from_archive(archive, self._bounds), image_name)
        finally:
            await _in_thread_to_the_end(partial(archive.unlink, missing_ok=True))

    async def build(self, name: str, order: BuildOrder, settings: BuildSettings) -> AsyncGenerator[str | Image, None]:
        """Build what is ordered and store it under NAME[:TAG]; yield what is done meanwhile, then the image."""
        image_name = parse_image_name(name)
        archive, scratch = self._new_path("tar"), self._new_path("build")
        if self._building:
            raise Busy("this node builds an image already; wait for its end, or build on another node")
        self._building = True
        try:
            async with aclosing(image_build.build(order, archive, scratch, settings)) as told:
                async for line in told:
                    yield line
            yield "I: importing the image"
            yield await self._adopt(image_sources.from_archive(archive, self._bounds), image_name)
        finally:
            self._building = False
            await _in_thread_to_the_end(partial(archive.unlink, missing_ok=True))

    async def import_directory(self, name: str, path: Path) -> Image:
        """Store a copy of a directory on this host under NAME[:TAG]; raises ArchiveError."""
        image_name = parse_image_name(name)
        await trio.to_thread.run_sync(self._check_source, path)
        return await self._adopt(image_sources.from_directory(path, self._bounds), image_name)

    async def remove(self, reference: str) -> None:
        """Remove a name, and the content with its last name; a digest removes all names.

        Raises ImageInUse while somebody uses the content, ImageError for what does not exist.
        """
        async with self._changing:
            image = self.resolve(reference)
            if image is None:
                raise ImageError(f"image {reference!r}: this node has none of that name")
            all_names = self._names_of(image.digest)
            gone = all_names if is_digest(reference) else {ImageName(image.name, image.tag)}
            await self._drop(gone, image.digest if gone == all_names else None)

    async def remove_idle(self, digest: str) -> bool:
        """Remove an image and all its names unless it is used or gone; return whether it was removed."""
        async with self._changing:
            if digest not in self._stored or digest in self._uses:
                return False
            await self._drop(self._names_of(digest), digest)
            return True

    async def _drop(self, gone: set[ImageName], digest: str | None) -> None:
        """Remove names, and with them their content if a digest is given."""
        kept = {name: named for name, named in self._names.items() if name not in gone}
        if digest is not None:
            await self._remove_content(digest, kept)
        await self._set_names(kept)

    async def _remove_content(self, digest: str, kept: dict[ImageName, str]) -> None:
        if digest in self._uses:
            raise ImageInUse(
                f"image {digest} is in use by {', '.join(self.users(digest)[:8])}; stop its containers first"
            )
        # Out of the index first, with its names, so that nobody acquires it meanwhile.
        facts, names = self._stored.pop(digest), self._names
        self._names, self._exporting = kept, None
        folder = self._folder / image_folder.hex_of(digest)
        try:
            await _in_thread_to_the_end(partial(self.removing, folder / "rootfs"))
            doomed = await _in_thread_to_the_end(partial(image_folder.withdraw, folder, self._incoming))
        except BaseException:
            self._stored[digest], self._names = facts, names
            raise
        self._uses.forget(digest)
        self.changed()
        await _in_thread_to_the_end(partial(shutil.rmtree, doomed, ignore_errors=True))  # else at the next opening

    async def export(self, digest: str, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield the canonical tar from a byte offset on, in pieces of about 1 MiB; the image is in use meanwhile."""
        self.acquire(digest, EXPORT)
        try:
            pieces = (await self._canonical_tar(digest)).stream(offset)
            while chunk := await trio.to_thread.run_sync(_next_chunk, pieces):
                yield chunk
        finally:
            self.release(digest, EXPORT)

    async def _canonical_tar(self, digest: str) -> CanonicalTar:
        # A peer reads piece by piece; the list of entries is not to be read anew for each.
        if self._exporting is None or self._exporting[0] != digest:
            folder = self.rootfs(digest).parent
            tar = await trio.to_thread.run_sync(image_folder.read_canonical_tar, folder, self._stored[digest])
            self._exporting = digest, tar
        return self._exporting[1]

    async def fetch(self, digest: str, open_stream: OpenStream, name: str | None = None, size_bytes: int = 0) -> Image:
        """Get an image from a peer unless it is here; callers who want the same one share one download.

        `size_bytes`: about how much it is, if that is known; for `fetching` and to make room beforehand.
        A broken transfer is resumed where it stopped (`image_fetch`). The content is checked against the digest.
        Raises ImageError.
        """
        image_name = parse_image_name(name) if name else None

        async def store(archive: Path) -> None:
            await self._adopt(image_sources.from_archive(archive, self._bounds), None, expected_digest=digest)

        while parse_digest(digest) not in self._stored:
            async with self.room.kept(size_bytes):
                pass  # Better no room before the transfer than after it.
            await self._fetches.fetch(image_folder.hex_of(digest), open_stream, store, size_bytes)
        async with self._changing:
            self._require(digest)
            await self._set_name(image_name, digest)
        return self._image(self._stored[digest], image_name)

    async def _adopt(self, source: Source, name: ImageName | None, expected_digest: str | None = None) -> Image:
        """Build an image in a thread, check it, then store and name it; a cancelled or failed one leaves nothing."""
        folder = self._new_path("image")
        fetched = expected_digest is not None
        build = partial(image_folder.build, folder, source, trio.from_thread.check_cancelled, fetched=fetched)
        try:
            facts = await trio.to_thread.run_sync(build, limiter=self._builders)
            if expected_digest not in (None, facts.digest):
                raise ArchiveError(f"the content's digest is {facts.digest}, wanted was {expected_digest}")
            async with self.room.kept(0 if facts.digest in self._stored else facts.size_bytes), self._changing:
                facts = await self._publish(folder, facts)
                await self._set_name(name, facts.digest)
        finally:
            await _in_thread_to_the_end(partial(shutil.rmtree, folder, ignore_errors=True))
        return self._image(facts, name)

    async def _publish(self, folder: Path, facts: ImageFacts) -> ImageFacts:
        known = self._stored.get(facts.digest)
        written = await _in_thread_to_the_end(partial(image_folder.publish, folder, self._folder, facts))
        if known is not None and known.fetched and not facts.fetched:
            # Imported here now: this node is to keep it.
            facts = msgspec.structs.replace(known, fetched=False)
            await _in_thread_to_the_end(partial(image_folder.write_facts, self._folder, facts))
        else:
            facts = known or written
        self._stored[facts.digest] = facts
        self._uses.touch(facts.digest)
        self.changed()
        return facts

    def _check_source(self, path: Path) -> None:
        if path.is_symlink() or not path.is_dir():
            raise ArchiveError(f"{path}: is no directory (links are not followed)")
        if self._folder.resolve().is_relative_to(path.resolve()):
            raise ArchiveError(f"{path}: holds the image store itself; name the root file system's own directory")

    async def _set_name(self, name: ImageName | None, digest: str) -> None:
        if name and self._names.get(name) != digest:
            await self._set_names(self._names | {name: digest})

    async def _set_names(self, names: dict[ImageName, str]) -> None:
        texts = {str(name): digest for name, digest in names.items()}
        await _in_thread_to_the_end(partial(image_folder.write_names, self._folder, texts))
        self._names = names

    def _read(self) -> None:
        """Fill the store from the disk, and clear away what a crash left."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        image_folder.clear_incoming(self._incoming)
        for path in self._folder.iterdir():
            facts = image_folder.read_facts(path)
            if facts is not None:
                self._stored[facts.digest] = facts
                self._uses.remember(facts.digest, image_folder.last_used_unix_s(path))
        for text, digest in image_folder.read_names(self._folder).items():
            if digest in self._stored:
                self._names[parse_image_name(text)] = digest

    def _image(self, facts: ImageFacts, name: ImageName | None = None) -> Image:
        label = (name.name, name.tag) if name else ("", "")
        return Image(
            *label,
            digest=facts.digest,
            size_bytes=facts.size_bytes,
            imported_unix_s=facts.imported_unix_s,
            last_used_unix_s=self._uses.last_unix_s(facts.digest),
            fetched=facts.fetched,
            config=facts.config,
            users=tuple(self.users(facts.digest)),
        )

    def _names_of(self, digest: str) -> set[ImageName]:
        return {name for name, named in self._names.items() if named == digest}

    def _require(self, digest: str) -> None:
        if digest not in self._stored:
            raise ImageError(f"image {digest}: not on this node")

    def _new_path(self, suffix: str) -> Path:
        return self._incoming / f"{next(self._serial)}.{suffix}"


async def _in_thread_to_the_end(work: Callable[[], T]) -> T:
    """Run what must not stop half-way, whether or not the caller is cancelled."""
    result: list[T] = []
    with trio.CancelScope(shield=True):
        result.append(await trio.to_thread.run_sync(work))
    return result[0]


def _next_chunk(pieces: Iterator[bytes]) -> bytes:
    """Join pieces to about one chunk, so that a thousand small files are not a thousand trips to a thread."""
    chunk = bytearray()
    for piece in pieces:
        chunk += piece
        if len(chunk) >= EXPORT_CHUNK_BYTES:
            break
    return bytes(chunk)
