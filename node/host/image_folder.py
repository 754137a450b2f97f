"""One stored image on disk: how it is made, checked, listed and thrown away. Blocking; the store calls it from threads.

    images/
        names.json                  {"busybox:latest": "sha256:..."}
        <64 hex digits>/            one image; complete from the moment it bears this name
            image.json              size, time, how it is run; its own modification time is that of the last use
            entries.msgpack         what the root file system holds, sorted: owners and modes as the archive had them
            rootfs/                 the files
        incoming/                   everything unfinished; emptied when the store opens, but for broken downloads

A crash leaves either no image or a whole one: the folder is built under incoming/, synced, renamed, and the rename
synced. The rootfs must not be changed by anyone; every container of this node shares it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from node.host import image_config
from node.host.canonical_tar import CanonicalTar
from node.host.errors import ImageError, ImageInUse, not_stored
from node.host.image_config import EMPTY, ImageConfig
from node.host.image_name import DIGEST_PREFIX
from node.host.image_sources import Content, Pulse, Source
from node.host.rootfs_entry import Entry

FORMAT = 1
PARTIAL_NAME = re.compile(r"[0-9a-f]{64}\.part")


class ImageFacts(msgspec.Struct, frozen=True):
    """What is known of a stored image, whatever its names."""

    digest: str
    size_bytes: int
    """The sum of its files."""
    imported_unix_s: int
    format: int = FORMAT
    config: ImageConfig = EMPTY
    fetched: bool = False
    """Whether it is a copy of another node's: that node keeps it."""


def build(folder: Path, source: Source, pulse: Pulse, *, fetched: bool = False) -> ImageFacts:
    """Build an image in a new folder, durable but not yet under its own name; raises ArchiveError."""
    with _explained("the image cannot be stored"):
        folder.mkdir(mode=0o700)
        content = source(folder / "rootfs", pulse)
        facts = ImageFacts(
            digest=_digest(content, folder / "rootfs", pulse),
            size_bytes=sum(entry.size_bytes for entry in content.entries),
            imported_unix_s=int(time.time()),
            config=content.config,
            fetched=fetched,
        )
        (folder / "entries.msgpack").write_bytes(msgspec.msgpack.encode(content.entries))
        (folder / "image.json").write_bytes(msgspec.json.encode(facts))
        _sync_file_system(folder)
    return facts


def publish(folder: Path, images: Path, facts: ImageFacts) -> ImageFacts:
    """Give a built image its own name; if the same content is there already, throw the new copy away.

    Returns what is written of the one that stays.
    """
    final = images / hex_of(facts.digest)
    if final.exists():
        shutil.rmtree(folder)
        return read_facts(final) or facts
    with _explained("the image cannot be stored"):
        folder.rename(final)
        sync_folder(images)
    return facts


def write_facts(images: Path, facts: ImageFacts) -> None:
    """Replace what is written of a stored image, durably and in one step."""
    with _explained("what is known of the image cannot be stored"):
        _replace(images, images / hex_of(facts.digest) / "image.json", msgspec.json.encode(facts))


def read_facts(folder: Path) -> ImageFacts | None:
    """Return what image.json says, None if the folder is no image that this version can use."""
    try:
        facts = msgspec.json.decode((folder / "image.json").read_bytes(), type=ImageFacts)
    except (OSError, msgspec.DecodeError):
        return None
    usable = facts.format == FORMAT and hex_of(facts.digest) == folder.name and (folder / "rootfs").is_dir()
    return facts if usable else None


def last_used_unix_s(folder: Path) -> float:
    """Return when somebody last began or ended to use the image, or when it came."""
    return (folder / "image.json").stat().st_mtime


def mark_used(folder: Path) -> None:
    """Remember that the image is used now, as well as the disk lets us."""
    with suppress(OSError):
        os.utime(folder / "image.json")


def read_canonical_tar(folder: Path, facts: ImageFacts) -> CanonicalTar:
    """Return the tar of a stored image, ready to stream."""
    try:
        entries = msgspec.msgpack.decode((folder / "entries.msgpack").read_bytes(), type=list[Entry])
    except (OSError, msgspec.DecodeError) as error:
        raise ImageError(f"the stored image is damaged: {folder.name}/entries.msgpack: {error}") from error
    return CanonicalTar(entries, folder / "rootfs", image_config.encode(facts.config))


def withdraw(folder: Path, incoming: Path) -> Path:
    """Take a stored image's name away for good and return where its files are, to be removed.

    Refuses while anything is mounted in it, because a removal would go into the mount.
    """
    mounted = _mount_below(folder)
    if mounted is not None:
        raise ImageInUse(f"{mounted} is a mount inside the image; unmount it first")
    doomed = incoming / f"{folder.name}.removed"
    with _explained(f"image {folder.name} cannot be removed"):
        folder.rename(doomed)
        sync_folder(folder.parent)
    return doomed


def write_names(images: Path, names: dict[str, str]) -> None:
    """Replace names.json, durably and in one step."""
    with _explained("the image's name cannot be stored"):
        _replace(images, images / "names.json", msgspec.json.format(msgspec.json.encode(names, order="sorted")))


def _replace(images: Path, path: Path, content: bytes) -> None:
    temporary = images / "incoming" / path.name
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_folder(path.parent)


def read_names(images: Path) -> dict[str, str]:
    """Return names.json; empty if there is none yet."""
    try:
        return msgspec.json.decode((images / "names.json").read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise ImageError(f"{images}/names.json is damaged ({error}); move it away and name the images anew") from error


def hex_of(digest: str) -> str:
    """Return a digest without its prefix: the name of the image's folder."""
    return digest.removeprefix(DIGEST_PREFIX)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)


def clear_incoming(incoming: Path) -> None:
    """Throw away what a crash left unfinished; a broken download stays, for whoever wants the same image again."""
    incoming.mkdir(mode=0o700, exist_ok=True)
    for path in incoming.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif not PARTIAL_NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _digest(content: Content, rootfs: Path, pulse: Pulse) -> str:
    digest = hashlib.sha256()
    for piece in CanonicalTar(content.entries, rootfs, image_config.encode(content.config)).stream():
        pulse()
        digest.update(piece)
    return DIGEST_PREFIX + digest.hexdigest()


def _sync_file_system(folder: Path) -> None:
    # One syncfs instead of an fsync for each of ten thousand files.
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(folder_fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(folder_fd)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn the disk's refusal into an ImageError."""
    try:
        yield
    except OSError as error:
        raise not_stored(f"{what} ({error.filename})" if error.filename else what, error) from error


def _mount_below(folder: Path) -> str | None:
    prefix = str(folder.resolve()) + "/"
    for line in mount_table().splitlines():
        mount_point = line.split()[4].encode().decode("unicode_escape")
        if mount_point.startswith(prefix):
            return mount_point
    return None


def mount_table() -> str:
    """Return what is mounted, as proc(5) describes /proc/self/mountinfo."""
    return Path("/proc/self/mountinfo").read_text()
