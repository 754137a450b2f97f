"""From what a user brings to the files of an image: one function for each kind of source. Blocking.

An archive is a root file system or a packed image (`packed_image` tells which); a packed image's layers are unpacked
one upon the other, and each must be what the image's configuration says it is.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from node.host import image_config, oci, packed_image
from node.host.directory_reader import DirectoryReader
from node.host.errors import ArchiveError
from node.host.image_config import ImageConfig
from node.host.layered_builder import LayeredBuilder
from node.host.oci import Layer
from node.host.rootfs_builder import RootfsBuilder
from node.host.rootfs_entry import Bounds, Entry
from node.host.tar_reader import ByteSource, TarReader
from node.host.unpacking import unpacked

Pulse = Callable[[], None]
"""Called often; raises when nobody wants the result any more."""


@dataclass(frozen=True, slots=True)
class Content:
    """What was put into a new root file system."""

    entries: list[Entry]
    config: ImageConfig = image_config.EMPTY


Source = Callable[[Path, Pulse], Content]
"""Fills a root file system's folder, which it makes; raises ArchiveError."""


def from_directory(path: Path, bounds: Bounds) -> Source:
    """Return the source that copies a directory."""

    def fill(rootfs: Path, pulse: Pulse) -> Content:
        builder = RootfsBuilder(rootfs, bounds)
        for member in DirectoryReader(path, bounds, pulse).members():
            builder.add(member)
        return Content(builder.finish())

    return fill


def from_archive(archive: Path, bounds: Bounds) -> Source:
    """Return the source that unpacks an archive, whichever kind it is of."""

    def fill(rootfs: Path, pulse: Pulse) -> Content:
        files = rootfs.with_name("packed")
        try:
            with unpacked(archive, bounds, pulse) as content:
                packed = packed_image.collect(TarReader(content).members(), files, bounds)
            if packed is not None:
                return _layered(oci.read(packed), rootfs, bounds, pulse)
        finally:
            shutil.rmtree(files, ignore_errors=True)
        return _plain(archive, rootfs, bounds, pulse)

    return fill


def _plain(archive: Path, rootfs: Path, bounds: Bounds, pulse: Pulse) -> Content:
    builder = RootfsBuilder(rootfs, bounds)
    with unpacked(archive, bounds, pulse) as content:
        reader = TarReader(content)
        for member in reader.members():
            builder.add(member)
        return Content(builder.finish(), image_config.decode(reader.config))


def _layered(plan: oci.ImagePlan, rootfs: Path, bounds: Bounds, pulse: Pulse) -> Content:
    builder = LayeredBuilder(rootfs, bounds)
    for number, layer in enumerate(plan.layers, 1):
        builder.begin_layer()
        try:
            _add_layer(builder, layer, bounds, pulse)
        except ArchiveError as error:
            raise ArchiveError(f"layer {number} of {len(plan.layers)}: {error}") from error
    return Content(builder.finish(), plan.config)


def _add_layer(builder: LayeredBuilder, layer: Layer, bounds: Bounds, pulse: Pulse) -> None:
    with unpacked(layer.file.path, bounds, pulse) as content:
        hashing = _Hashing(content)
        for member in TarReader(hashing).members():
            builder.add(member)
    if hashing.digest != layer.content_digest:
        raise ArchiveError(f"its content is {hashing.digest}, the configuration says {layer.content_digest}")


class _Hashing:
    """Passes bytes on and keeps their digest."""

    def __init__(self, inner: ByteSource) -> None:
        self._inner = inner
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"

    def read(self, size: int, /) -> bytes:
        content = self._inner.read(size)
        self._digest.update(content)
        return content
