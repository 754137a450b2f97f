"""What containers get mounted, made ready at places of our own: a runtime only binds paths that nobody else can touch.

Owns: a directory below the agent's, one folder a container and one place in it a mount; loop files of scratch space.
May not know: LXC, jobs. The mounts live in the agent's mount namespace; containers keep their own hold on them.

Scratch is a file with an ext4 of its own: its size is a hard bound on every host file system, with or without quotas,
and mke2fs writes it sparse, so that only what is used takes room.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from node.host import mount_calls
from node.host.idmap import IdMap, IdMaps, MountError
from node.host.volumes import VolumeRoot, open_folder

SCRATCH_OPTIONS = "loop,nosuid,nodev,noatime,noinit_itable"


class Staging:
    """Places below one directory. Blocking; for any thread, calls for one container not at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._maps = IdMaps()

    def volume(self, container: str, root: VolumeRoot, owner: str, folder: str, writable: bool, user_base: int) -> Path:
        """Mount a folder of a root with its ids mapped to the container's. Raises VolumeError, MountError."""
        found = open_folder(root, owner, folder)
        try:
            place = self._place(container)
            attributes = mount_calls.NOSUID | mount_calls.NODEV | (0 if writable else mount_calls.RDONLY)
            ids = IdMap(root.first_id, user_base, root.last_id - root.first_id + 1)
            self._maps.attach(found, f"volume {root.name}", place, attributes, ids)
            return place
        finally:
            os.close(found)

    def scratch(self, container: str, image: Path, size_bytes: int, user_base: int) -> Path:
        """Mount a new file system of this size, kept in a new file `image`. Raises MountError, OSError."""
        place = self._place(container)
        with image.open("xb") as file:
            _stretch(file, size_bytes)
        owner = f"root_owner={user_base}:{user_base},nodiscard,lazy_itable_init=1"
        # Checksums of metadata are what lets the tables of inodes stay unwritten: 1.6 GiB of 100.
        features = "metadata_csum,^has_journal,^resize_inode"
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-O", features, "-E", owner, str(image))
        _run("mount", "-t", "ext4", "-o", SCRATCH_OPTIONS, str(image), str(place))
        with suppress(OSError):
            (place / "lost+found").rmdir()
        return place

    def unchangeable(self, container: str, folder: Path) -> Path:
        """Mount a folder of the agent's own so that the container, even as its owner, only reads it; MountError."""
        place = self._place(container)
        found = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            attributes = mount_calls.RDONLY | mount_calls.NOSUID | mount_calls.NODEV
            mount_calls.attach(found, str(folder), place, attributes)
            return place
        finally:
            os.close(found)

    def release(self, container: str) -> None:
        """Unmount everything of a container; idempotent. Raises MountError."""
        folder = self._directory / container
        for place in folder.glob("*"):
            mount_calls.detach(place)
            place.rmdir()
        with suppress(FileNotFoundError):
            folder.rmdir()

    def names(self) -> set[str]:
        """Containers that have a folder here."""
        return {path.name for path in self._directory.glob("*")}

    def release_all(self) -> None:
        """At the end of all containers."""
        for name in self.names():
            self.release(name)
        self._maps.close()
        with suppress(FileNotFoundError):
            self._directory.rmdir()

    def _place(self, container: str) -> Path:
        folder = self._directory / container
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        for each in (self._directory, folder):
            each.chmod(0o711)  # whatever the agent's umask is: mapped roots walk through
        place = folder / str(len(list(folder.iterdir())))
        place.mkdir(mode=0o700)
        return place


def scratch_obstacle() -> str | None:
    """What keeps this host from giving scratch space; None if nothing does."""
    if shutil.which("mkfs.ext4") is None:
        return "mkfs.ext4 is not installed; install the package e2fsprogs"
    if not Path("/dev/loop-control").exists():
        return "the kernel has no loop devices; modprobe loop"
    return None


def _stretch(file: BinaryIO, size_bytes: int) -> None:
    try:
        file.truncate(size_bytes)
    except OSError as error:
        raise MountError(f"a file system of its own of {size_bytes} bytes: {error.strerror}") from error


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MountError(f"a file system of its own: {command[0]}: {' '.join(done.stderr.split()) or done.returncode}")
