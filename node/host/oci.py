"""What a packed image says of itself: its layers, lowest first, and how it is run.

Reads an OCI image layout ("OCI Image Layout", "Image Manifest", "Image Configuration" of the image specification) and
the manifest.json of `docker save`. Every file is checked against the digest and size that whoever names it gives; the
layers' content against the configuration's `diff_ids` by who unpacks them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from node.host.errors import ArchiveError
from node.host.image_config import ImageConfig, checked
from node.host.packed_image import DOCKER_MANIFEST, OCI_INDEX, OCI_MARK, PackedFile, PackedFiles

LAYERS_MAX = 256
INDEX_DEPTH_MAX = 3
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64", "ppc64le": "ppc64le"}

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAMED_BY_DIGEST = re.compile(r"(?:blobs/sha256/|sha256:)?([0-9a-f]{64})(\.json)?")

T = TypeVar("T")


class _Platform(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""


class _Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    digest: str
    size: int
    media_type: str = ""
    platform: _Platform | None = None


class _Index(msgspec.Struct, frozen=True):
    manifests: list[_Descriptor]


class _Manifest(msgspec.Struct, frozen=True):
    config: _Descriptor
    layers: list[_Descriptor]


class _Run(msgspec.Struct, frozen=True, rename="pascal"):
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    env: list[str] | None = None
    user: str | None = None
    working_dir: str | None = None


class _RootFs(msgspec.Struct, frozen=True):
    diff_ids: list[str]


class _Configuration(msgspec.Struct, frozen=True):
    rootfs: _RootFs
    config: _Run | None = None
    architecture: str = ""
    os: str = ""


class _DockerImage(msgspec.Struct, frozen=True, rename="pascal"):
    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """A tar, compressed or not, and the digest of what is in it once it is not."""

    file: PackedFile
    content_digest: str


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """What is to be unpacked, lowest layer first."""

    layers: tuple[Layer, ...]
    config: ImageConfig


def read(packed: PackedFiles) -> ImagePlan:
    """Return the one image of this host's architecture; raises ArchiveError."""
    if OCI_MARK in packed and OCI_INDEX in packed:
        return _read_layout(packed)
    return _read_docker(packed)


def _read_layout(packed: PackedFiles) -> ImagePlan:
    index = _decode(packed.get(OCI_INDEX), _Index)
    manifest = _decode(_blob(packed, _chosen(packed, index, INDEX_DEPTH_MAX)), _Manifest)
    layers = [_blob(packed, layer) for layer in manifest.layers]
    return _plan(_blob(packed, manifest.config), layers)


def _chosen(packed: PackedFiles, index: _Index, depth: int) -> _Descriptor:
    """Return the manifest for this host, found through indexes in the index."""
    fitting = {each.digest: each for each in index.manifests if _fits_here(each.platform)}
    if len(fitting) != 1:
        found = f"holds {len(fitting)} images for linux/{_architecture()}"
        raise ArchiveError(f"the archive {found}; pack exactly one, by its name and tag")
    only = next(iter(fitting.values()))
    if not only.media_type.endswith((".index.v1+json", ".manifest.list.v2+json")):
        return only
    if not depth:
        raise ArchiveError(f"indexes within indexes, more than {INDEX_DEPTH_MAX} deep")
    return _chosen(packed, _decode(_blob(packed, only), _Index), depth - 1)


def _fits_here(platform: _Platform | None) -> bool:
    return platform is None or (platform.os, platform.architecture) == ("linux", _architecture())


def _architecture() -> str:
    machine = os.uname().machine
    return ARCHITECTURES.get(machine, machine)


def _blob(packed: PackedFiles, descriptor: _Descriptor) -> PackedFile:
    if not _DIGEST.fullmatch(descriptor.digest):
        raise ArchiveError(f"digest {descriptor.digest[:80]!r}; only sha256 with 64 hexadecimal digits is taken")
    file = packed.get("blobs/sha256/" + descriptor.digest.removeprefix("sha256:"))
    _check(file, descriptor.digest)
    if file.size_bytes != descriptor.size:
        raise ArchiveError(f"{file.name}: has {file.size_bytes} bytes, its descriptor says {descriptor.size}")
    return file


def _check(file: PackedFile, digest: str) -> None:
    if file.digest != digest:
        raise ArchiveError(f"{file.name}: its content is {file.digest}, wanted was {digest}")


def _read_docker(packed: PackedFiles) -> ImagePlan:
    images = _decode(packed.get(DOCKER_MANIFEST), list[_DockerImage])
    if len(images) != 1:
        names = ", ".join(tag for image in images[:8] for tag in (image.repo_tags or ())[:1])
        raise ArchiveError(f"the archive holds {len(images)} images ({names[:200]}); save exactly one")
    files = [packed.get(name) for name in (images[0].config, *images[0].layers)]
    for file in files:
        if found := _NAMED_BY_DIGEST.fullmatch(file.name):
            _check(file, f"sha256:{found[1]}")
    return _plan(files[0], files[1:])


def _plan(config_file: PackedFile, layers: Sequence[PackedFile]) -> ImagePlan:
    configuration = _decode(config_file, _Configuration)
    platform = _Platform(configuration.architecture, configuration.os)
    if platform != _Platform() and not _fits_here(platform):
        raise ArchiveError(
            f"the image is for {platform.os}/{platform.architecture}; this node runs linux/{_architecture()}"
        )
    digests = configuration.rootfs.diff_ids
    if not 1 <= len(layers) <= LAYERS_MAX or len(layers) != len(digests):
        raise ArchiveError(
            f"the image has {len(layers)} layers and digests of {len(digests)}; expected 1 to {LAYERS_MAX} and as many"
        )
    if not all(_DIGEST.fullmatch(digest) for digest in digests):
        raise ArchiveError("the image's configuration names a layer by something else than a sha256 digest")
    pairs = zip(layers, digests, strict=True)
    return ImagePlan(tuple(Layer(*pair) for pair in pairs), _config(configuration.config or _Run()))


def _config(run: _Run) -> ImageConfig:
    return checked(
        ImageConfig(
            entrypoint=tuple(run.entrypoint or ()),
            cmd=tuple(run.cmd or ()),
            env=tuple(_variables(run.env or ())),
            user=run.user or "",
            workdir=run.working_dir or "",
        )
    )


def _variables(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Return each variable once, with its last value."""
    return list({name: value for name, _, value in (line.partition("=") for line in lines)}.items())


def _decode(file: PackedFile, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(file.text(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArchiveError(f"{file.name}: is not what an image of its kind has there ({str(error)[:200]})") from None
