"""Images across nodes: what a name means, who has the content, and getting it from there.

A name given on one node is told to all others at once and again to every node that appears, so that a job may name it
anywhere; the content travels only when a container needs it, checked by its digest (node/host/images.py).
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, aclosing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle
from pathlib import Path

import msgspec
import trio

from node import logs
from node.errors import Busy, InvalidValue, NotFound, PeerError, UnknownImage
from node.host.errors import FetchInterrupted, ImageError
from node.host.image_build import BuildOrder, BuildSettings
from node.host.image_config import EMPTY
from node.host.image_name import is_digest, join_stack, parse_image_name, split_stack
from node.host.image_room import Idle
from node.host.image_stack import ImageStack
from node.host.images import Image, ImageStore
from node.image_names import ImageNames, NamedImage, decode, encode
from node.image_upkeep import ImageUpkeep
from node.peers import Peers
from scheduler.images import encode as holdings

TELL_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 60.0
READ_BYTES_MAX = 4 << 20

log = logs.get("images")


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """The operator's word on this node's images."""

    unnamed_keep_s: float = 86_400.0
    build: BuildSettings = field(default_factory=BuildSettings)


class _Read(msgspec.Struct, frozen=True, array_like=True):
    digest: str
    offset: int
    bytes_max: int


_decode_read = msgspec.msgpack.Decoder(_Read).decode


class ImageExchange:
    """The images of the cluster as one node sees them. `alive` names the other nodes that can be asked."""

    def __init__(
        self,
        store: ImageStore,
        names: ImageNames,
        peers: Peers,
        alive: Callable[[], Sequence[str]],
        settings: ImageSettings | None = None,
    ) -> None:
        self.store = store
        self._names = names
        self._peers = peers
        self._alive = alive
        self._sources: dict[str, str] = {}
        self.settings = settings or ImageSettings()
        self.upkeep = ImageUpkeep(store, names, self._holders, self.settings.unnamed_keep_s)
        peers.register("image.names", self._on_names)
        peers.register("image.has", self._on_has)
        peers.register("image.read", self._on_read)

    def announce(self, publish: Callable[[bytes], None]) -> None:
        """Publish which images are here, now and whenever that changes."""

        def changed() -> None:
            here = sorted(self.store.images(), key=lambda image: -image.last_used_unix_s)
            publish(holdings(image.digest for image in here))

        self.store.changed = changed
        changed()

    # --- names

    async def digest_of(self, reference: str) -> str:
        """Return what a user's image reference means now, in digests; UnknownImage when no node knows it."""
        try:
            parts = split_stack(reference)
        except ImageError as error:
            raise UnknownImage(reference, str(error)) from None
        return join_stack([await self._digest_of(part) for part in parts])

    async def _digest_of(self, reference: str) -> str:
        if is_digest(reference):
            if self.store.resolve(reference) is None and not await self._holders(reference):
                raise UnknownImage(reference)
            return reference
        try:
            name = str(parse_image_name(reference))
        except ImageError as error:
            raise UnknownImage(reference, str(error)) from None
        if self._names.digest(name) is None:
            await self._tell_all(())
        digest = self._names.digest(name)
        if digest is None:
            raise UnknownImage(reference)
        return digest

    async def tell(self, node: str) -> None:
        """Exchange names with a node that appeared."""
        await self._exchange_names(node, encode(self._names.entries()))

    # --- what the API shows

    def list(self) -> Sequence[Image]:
        """Return the images whose content is on this node, or on its way here: once for each name in the cluster."""
        here = {image.digest: image for image in self.store.images()}
        coming = {digest: _coming(digest, *progress) for digest, progress in self.store.fetching().items()}
        names = self._names.by_digest()
        named = [_named(image, name) for digest, image in (coming | here).items() for name in names.get(digest, [""])]
        return sorted(named, key=lambda image: (not image.name, image.name, image.tag, image.digest))

    async def put(self, name: str, tag: str, tar: AsyncIterator[bytes]) -> Image:
        """Import a root file system's tar and tell all nodes its name; raises ImageError with nothing stored."""
        image = await self.store.import_tar(f"{name}:{tag}", tar)
        await self._give(f"{image.name}:{image.tag}", image.digest, image.size_bytes)
        return image

    async def build(self, name: str, tag: str, order: BuildOrder) -> AsyncGenerator[str | Image, None]:
        """Build an image on this node and tell all nodes its name; yield what is done meanwhile, then the image."""
        async with aclosing(self.store.build(f"{name}:{tag}", order, self.settings.build)) as steps:
            async for step in steps:
                if isinstance(step, Image):
                    await self._give(f"{name}:{tag}", step.digest, step.size_bytes)
                yield step

    async def prune(self, unused_for_s: float, dry_run: bool) -> Sequence[Idle]:
        """Remove from this node what nobody used for so long and the cluster can do without; return it."""
        return await self.upkeep.prune(unused_for_s, dry_run)

    def outdated_names(self, keep_last: int) -> Sequence[str]:
        """Return of every NAME all but its `keep_last` newest tags."""
        tags: dict[str, list[NamedImage]] = {}
        for entry in self._names.entries():
            if entry.digest:
                tags.setdefault(parse_image_name(entry.name).name, []).append(entry)
        ordered = (sorted(entries, key=lambda entry: -entry.version) for entries in tags.values())
        return sorted(entry.name for entries in ordered for entry in entries[keep_last:])

    async def remove(self, name: str, tag: str) -> None:
        """Remove a name everywhere, and the content from this node; ImageInUse while containers need it here."""
        reference = f"{name}:{tag}"
        digest = self._names.digest(reference)
        if self.store.resolve(reference) is not None:
            await self.store.remove(reference)
        elif digest is None:
            raise NotFound(f"image {reference}: there is none of that name")
        await self._give(reference, "", 0)
        await self._let_go(reference, digest)

    async def export(self, name: str, tag: str) -> AsyncIterator[bytes]:
        """Return an image's canonical tar, fetched from another node first if it is not here; NotFound."""
        digest = self._names.digest(f"{name}:{tag}")
        if digest is None:
            raise NotFound(f"image {name}:{tag}: there is none of that name")
        await self.ensure(digest)
        return self.store.export(digest)

    # --- content

    async def ensure(self, digest: str) -> Path:
        """Return the image's root file system on this node, fetched from another if need be; ImageError."""
        if self.store.resolve(digest) is None:
            holders = await self._holders(digest)
            if not holders:
                raise ImageError(f"image {digest}: no node that answers has it")
            log.info("fetching an image", digest=digest, sources=" ".join(holders))
            nodes = list(holders)
            random.shuffle(nodes)  # so that not all fetch from the same one
            stream = partial(self._stream, cycle(nodes), digest)
            try:
                await self.store.fetch(digest, stream, size_bytes=max(holders.values()))
            finally:
                self._sources.pop(digest, None)
        return self.store.rootfs(digest)

    async def acquire(self, digests: Sequence[str], user: str) -> None:
        """Have all these images here and hold them for a user, who releases each; ImageError, and none is held."""
        with ExitStack() as undo:
            for digest in digests:
                while self.store.resolve(digest) is None:
                    await self.ensure(digest)
                self.store.acquire(digest, user)
                undo.callback(self.store.release, digest, user)
            undo.pop_all()

    def coming(self, digest: str, name: str) -> str:
        """Return what is to be said of an image on its way here, "" when it is not."""
        progress = self.store.fetching().get(digest)
        if progress is None:
            return ""
        source = self._sources.get(digest)
        percent = _coming(digest, *progress).percent
        return f"fetching image {name}{f' from {source}' if source else ''}{f': {percent} %' if progress[1] else ''}"

    def hold(self, digests: Sequence[str], user: str) -> tuple[str, ...]:
        """Hold those of these images that are here for a user; return them."""
        here = tuple(digest for digest in digests if self.store.resolve(digest) is not None)
        for digest in here:
            self.store.acquire(digest, user)
        return here

    def stack(self, digests: Sequence[str]) -> ImageStack:
        """Return the root file systems of images that are here, and how the topmost that says so is run."""
        configs = [self.store.facts(digest).config for digest in digests]
        return ImageStack(
            tuple(self.store.rootfs(digest) for digest in digests),
            next((config for config in configs if config), EMPTY),
        )

    async def _stream(self, holders: Iterator[str], digest: str, offset: int) -> AsyncIterator[bytes]:
        """Yield the canonical tar from an offset on; each try is with the next holder."""
        holder = self._sources[digest] = next(holders)
        while True:
            read = _Read(digest, offset, READ_BYTES_MAX)
            try:
                chunk = await self._peers.call(holder, "image.read", msgspec.msgpack.encode(read), READ_TIMEOUT_S)
            except (PeerError, Busy) as error:
                raise FetchInterrupted(str(error)) from error
            if not chunk:
                return
            offset += len(chunk)
            yield chunk

    async def _holders(self, digest: str) -> dict[str, int]:
        """Return the nodes that have the content, and the bytes they say it has."""
        holders: dict[str, int] = {}

        async def ask(node: str) -> None:
            with suppress(PeerError, Busy, ValueError):
                if size := await self._ask(node, "image.has", digest.encode()):
                    holders[node] = int(size)

        async with trio.open_nursery() as nursery:
            for node in self._alive():
                nursery.start_soon(ask, node)
        return holders

    # --- the wire

    async def _give(self, name: str, digest: str, size_bytes: int) -> None:
        entry = self._names.give(name, digest, size_bytes, int(time.time() * 1000))
        await self._names.keep()
        await self._tell_all([entry])

    async def _on_names(self, sender: str, payload: bytes) -> bytes:
        try:
            entries = decode(payload)
        except ValueError as error:
            raise InvalidValue("image.names", payload[:16], f"expected a list of names ({error})") from None
        await self._merge(entries)
        return encode(self._names.entries())

    async def _exchange_names(self, node: str, payload: bytes) -> None:
        """Tell a node names and take over those it answers with; it is told again when it comes up the next time."""
        try:
            await self._merge(decode(await self._ask(node, "image.names", payload)))
        except (PeerError, Busy, ValueError, OSError) as error:
            log.info("names of images not exchanged", node=node, why=str(error))

    async def _merge(self, entries: Sequence[NamedImage]) -> None:
        former = {entry.name: self._names.digest(entry.name) for entry in entries}
        removed = [entry.name for entry in self._names.merge(entries) if not entry.digest]
        await self._names.keep()
        for name in removed:
            await self._let_go(name, former[name])
        for entry in entries:
            if entry.digest and former[entry.name] not in (None, entry.digest):
                await self._forget_local(entry)

    async def _forget_local(self, entry: NamedImage) -> None:
        """A name given here means other content now; what it meant stays: waiting jobs may mean it."""
        local = self.store.resolve(entry.name)
        if local is not None and local.digest != self._names.digest(entry.name):
            await self.store.forget_name(entry.name)

    async def _let_go(self, name: str, digest: str | None) -> None:
        """Remove what a removed name meant here. Content whose name only moved stays: waiting jobs may mean it."""
        try:
            if self.store.resolve(name) is not None:
                await self.store.remove(name)
            if digest and self.store.resolve(digest) is not None and not self._names.means(digest):
                await self.store.remove(digest)
        except ImageError as error:
            log.info("a removed image is kept while it is in use", image=name, why=str(error))

    async def _on_has(self, sender: str, payload: bytes) -> bytes:
        image = self.store.resolve(payload.decode(errors="replace"))
        return b"%d" % image.size_bytes if image is not None else b""

    async def _on_read(self, sender: str, payload: bytes) -> bytes:
        try:
            read = _decode_read(payload)
        except msgspec.DecodeError as error:
            raise InvalidValue(
                "image.read", payload[:16], f"expected a digest, an offset and a size ({error})"
            ) from None
        data, bytes_max = bytearray(), min(max(read.bytes_max, 0), READ_BYTES_MAX)
        async with aclosing(self.store.export(read.digest, read.offset)) as pieces:
            async for piece in pieces:
                data += piece
                if len(data) >= bytes_max:
                    break
        return bytes(data[:bytes_max])

    async def _ask(self, node: str, method: str, payload: bytes) -> bytes:
        return await self._peers.call(node, method, payload, TELL_TIMEOUT_S)

    async def _tell_all(self, entries: Sequence[NamedImage]) -> None:
        payload = encode(entries)
        async with trio.open_nursery() as nursery:
            for node in self._alive():
                nursery.start_soon(self._exchange_names, node, payload)


def _named(image: Image, name: str) -> Image:
    named = parse_image_name(name) if name else None
    return replace(image, name=named.name if named else "", tag=named.tag if named else "")


def _coming(digest: str, here_bytes: int, total_bytes: int) -> Image:
    percent = min(99, 100 * here_bytes // total_bytes) if total_bytes else 0
    return Image("", "", digest, total_bytes, 0, percent=percent)
