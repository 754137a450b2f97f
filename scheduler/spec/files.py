"""Volumes, temporary and scratch space, secrets and the root file system of a task.

Targets are paths inside the container. They never lie in one another: what a task wrote into one volume must not later
decide where the next mount lands. The words of paths are plain, since runtimes part mount lines at blanks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from scheduler.spec.part import Part, require

MOUNTS_MAX = 16
SECRETS_MAX = 32
SECRET_BYTES_MAX = 32 * 1024
SECRETS_TARGET = "/run/secrets"
SCRATCH_BYTES_MIN = 8 << 20
TMPFS_BYTES_MIN = 4096
BYTES_MAX = 1 << 50
FOLDER_LENGTH_MAX = 1024
USER_ID_MAX = 65_535

_TARGET = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9_.+-]{1,128}){1,16}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?")
_SECRET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_KERNELS_OWN = ("/proc", "/sys", "/dev")

Need = tuple[str, str]
"""A node's label, and what must be in its list."""


class Volume(Part, frozen=True):
    """A directory of the node, from a root its operator allowed."""

    name: str
    target: str
    folder: str = ""
    read_only: bool = False


class Tmpfs(Part, frozen=True):
    """Files in memory, charged to the task; gone with the container."""

    target: str
    size_bytes: int


class Scratch(Part, frozen=True):
    """Room on the node's disk for one attempt, no more than its size; gone with the container."""

    size_bytes: int
    target: str = "/scratch"


class Secret(Part, frozen=True):
    """A file in memory below /run/secrets. Users send `content`; from then on there is only `sealed`."""

    name: str
    content: bytes = b""
    sealed: bytes = b""
    user_id: int | None = None

    def __repr__(self) -> str:
        return f"Secret(name={self.name!r})"


class Files(Part, frozen=True):
    """Volumes, temporary and scratch space, secrets and the root file system of a task."""

    volumes: tuple[Volume, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    scratch: Scratch | None = None
    secrets: tuple[Secret, ...] = ()
    read_only_root: bool = False
    root_bytes: int = 0


def check(files: Files) -> None:
    """Raise InvalidSpec for the first field that no cluster could take."""
    require(len(files.volumes) <= MOUNTS_MAX, "files.volumes", len(files.volumes), f"at most {MOUNTS_MAX}")
    require(len(files.tmpfs) <= MOUNTS_MAX, "files.tmpfs", len(files.tmpfs), f"at most {MOUNTS_MAX}")
    for volume in files.volumes:
        require(
            _NAME.fullmatch(volume.name), "files.volumes.name", volume.name, "name a volume of the nodes' operators"
        )
        _check_folder(volume.folder)
    for each in files.tmpfs:
        good = TMPFS_BYTES_MIN <= each.size_bytes <= BYTES_MAX
        require(good, "files.tmpfs.size_bytes", each.size_bytes, f"at least {TMPFS_BYTES_MIN} bytes")
    if files.scratch is not None:
        good = SCRATCH_BYTES_MIN <= files.scratch.size_bytes <= BYTES_MAX
        require(good, "files.scratch.size_bytes", files.scratch.size_bytes, f"at least {SCRATCH_BYTES_MIN >> 20}M")
    good = files.root_bytes == 0 or SCRATCH_BYTES_MIN <= files.root_bytes <= BYTES_MAX
    require(good, "files.root_bytes", files.root_bytes, f"at least {SCRATCH_BYTES_MIN >> 20}M, or 0: as the node says")
    _check_secrets(files.secrets)
    _check_targets(files)


def needs(files: Files) -> Iterator[Need]:
    """Yield what a node must have to carry this out."""
    for volume in files.volumes:
        yield ("volumes" if volume.read_only else "volumes-writable"), volume.name
    asked = {
        "tmpfs": files.tmpfs,
        "scratch": files.scratch,
        "secrets": files.secrets,
        "read-only-root": files.read_only_root,
        "root-size": files.root_bytes,
    }
    yield from (("files", ability) for ability, wanted in asked.items() if wanted)


def _check_folder(folder: str) -> None:
    words = folder.split("/") if folder else []
    plain = all(word not in ("", ".", "..") for word in words) and len(folder) <= FOLDER_LENGTH_MAX
    expected = "a path below the volume's root, without '..' and not starting with '/'"
    require(plain and "\0" not in folder and "\n" not in folder, "files.volumes.folder", folder, expected)


def _check_secrets(secrets: tuple[Secret, ...]) -> None:
    """Values are not named in refusals: they would end in logs and on screens."""
    require(len(secrets) <= SECRETS_MAX, "files.secrets", len(secrets), f"at most {SECRETS_MAX}")
    names = [secret.name for secret in secrets]
    require(len(set(names)) == len(names), "files.secrets", names, "each name once")
    for secret in secrets:
        require(_SECRET_NAME.fullmatch(secret.name), "files.secrets.name", secret.name, "a plain file name")
        good = secret.user_id is None or 0 <= secret.user_id <= USER_ID_MAX
        require(good, "files.secrets.user_id", secret.user_id, f"a user id inside the container, 0 to {USER_ID_MAX}")
        size = len(secret.content) or len(secret.sealed)
        require(
            size <= SECRET_BYTES_MAX, f"files.secrets {secret.name}", f"{size} bytes", f"{SECRET_BYTES_MAX} at most"
        )
        require(not secret.content, f"files.secrets {secret.name}", "in clear", "seal it before the job is taken")
        require(secret.sealed, f"files.secrets {secret.name}", "empty", "give it a content")


def _check_targets(files: Files) -> None:
    targets = [("files.volumes.target", each.target) for each in files.volumes]
    targets += [("files.tmpfs.target", each.target) for each in files.tmpfs]
    targets += [("files.scratch.target", files.scratch.target)] if files.scratch else []
    taken = [*_KERNELS_OWN, SECRETS_TARGET] if files.secrets else list(_KERNELS_OWN)
    for field, target in targets:
        expected = "an absolute path of letters, digits and _ . + -, such as /data/in"
        require(_TARGET.fullmatch(target) and len(target) <= FOLDER_LENGTH_MAX, field, target, expected)
        for other in taken:
            apart = not (f"{target}/".startswith(f"{other}/") or f"{other}/".startswith(f"{target}/"))
            require(apart, field, target, f"a path neither above nor below {other}")
        taken.append(target)
