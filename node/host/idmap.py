"""Idmapped mounts: files owned by some ids on disk appear as owned by a range of host ids.

Owns: user namespaces as maps of ids, and the directory of images' read-only mounts, one for each (directory, first id),
shared by all containers of that range. May not know: containers, LXC. A mount lives in the agent's mount namespace;
`ensure` makes it anew where it is missing.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from node.host import mount_calls
from node.host.mount_calls import MountError

__all__ = ["IdMap", "IdMaps", "IdmappedMounts", "MountError", "is_mounted"]

MAPS_KEPT_MAX = 64


@dataclass(frozen=True, slots=True)
class IdMap:
    """`count` ids from `on_disk` on appear as those from `on_host` on; all others as nobody's."""

    on_disk: int
    on_host: int
    count: int


class IdMaps:
    """Descriptors of user namespaces, the kernel's form of a map; the ones used last are kept. For any thread."""

    def __init__(self, kept_max: int = MAPS_KEPT_MAX) -> None:
        self._kept_max = kept_max
        self._kept: OrderedDict[IdMap, int] = OrderedDict()
        self._lock = threading.Lock()

    def attach(self, source: int, shown: str, target: Path, attributes: int, ids: IdMap) -> None:
        """Mount a directory there with its ids mapped. Blocks for milliseconds for a new map. Raises MountError."""
        with self._lock:
            try:
                mount_calls.attach(source, shown, target, attributes, self._namespace(ids))
            finally:
                self._forget(self._kept_max)

    def close(self) -> None:
        """Forget all maps; mounts keep theirs."""
        with self._lock:
            self._forget(0)

    def _namespace(self, ids: IdMap) -> int:
        if ids not in self._kept:
            self._kept[ids] = _user_namespace(ids)
        self._kept.move_to_end(ids)
        return self._kept[ids]

    def _forget(self, count: int) -> None:
        while len(self._kept) > count:
            os.close(self._kept.popitem(last=False)[1])


class IdmappedMounts:
    """Mounts below one directory, made when first asked for."""

    def __init__(self, directory: Path, width: int) -> None:
        self._directory = directory
        self._width = width
        self._maps = IdMaps(kept_max=0)  # each map is needed once for each image

    def path(self, source: Path, first_id: int) -> Path:
        status = source.stat()
        return self._directory / f"{status.st_dev:x}-{status.st_ino:x}-{first_id}"

    def ensure(self, source: Path, first_id: int) -> Path:
        """The mount of source for ids first_id and up. Blocks for some milliseconds when it has to be made.
        Raises MountError, FileNotFoundError."""
        target = self.path(source, first_id)
        if not is_mounted(target, source):
            target.mkdir(parents=True, exist_ok=True)
            target.parent.chmod(0o711)  # whatever the agent's umask is: mapped roots walk through
            descriptor = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                attributes = mount_calls.RDONLY | mount_calls.NODEV
                self._maps.attach(descriptor, str(source), target, attributes, IdMap(0, first_id, self._width))
            finally:
                os.close(descriptor)
        return target

    def release(self, source: Path) -> None:
        """Unmounts the source's mounts; what runs on them keeps its own hold."""
        status = source.stat()
        for target in self._directory.glob(f"{status.st_dev:x}-{status.st_ino:x}-*"):
            _remove(target)

    def release_all(self) -> None:
        for target in self._directory.glob("*"):
            _remove(target)
        with suppress(OSError):
            self._directory.rmdir()


def is_mounted(target: Path, source: Path) -> bool:
    try:
        there, wanted = target.stat(), source.stat()
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino)


def _remove(target: Path) -> None:
    mount_calls.detach(target)
    with suppress(OSError):
        target.rmdir()


def _user_namespace(ids: IdMap) -> int:
    """A descriptor of a user namespace of this map. Its only process is ended again; a helper program and no fork, for
    the agent has threads."""
    with subprocess.Popen(
        ["unshare", "--user", "--", "sh", "-c", "echo; read line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as helper:
        assert helper.stdout is not None, "asked for above"
        helper.stdout.readline()
        try:
            for file in ("uid_map", "gid_map"):
                Path(f"/proc/{helper.pid}/{file}").write_text(f"{ids.on_disk} {ids.on_host} {ids.count}\n")
            return os.open(f"/proc/{helper.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise MountError(f"cannot map ids from {ids.on_host}: {error.strerror}") from error
