"""The directories of this node that its operator lets containers have, and the way to one below them.

Owns: what an operator writes of a root, whom it is for, and the opening of a folder below it so that no link and no
rename leads out: openat2(2) with RESOLVE_BENEATH, and from then on the descriptor, never the path again.
May not know: containers, mounts, jobs.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from node.errors import InvalidConfig
from node.host.errors import HostError
from node.host.mount_calls import open_beneath

NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?")
IDS = re.compile(r"(\d{1,10})(?:-(\d{1,10}))?", re.ASCII)
ID_MAX = (1 << 32) - 2
IDS_MAX = 65_536
EXPECTED = "expected PATH[:OPTION,...] with the options rw, create, by-owner, owners=NAME+NAME, ids=FIRST[-LAST]"


class VolumeError(HostError):
    """A volume that a container can't have: names it and why."""


@dataclass(frozen=True, slots=True)
class VolumeRoot:
    """One directory and what may be done below it."""

    name: str
    path: Path
    writable: bool = False
    create: bool = False
    by_owner: bool = False
    owners: frozenset[str] | None = None
    """None: everybody."""
    first_id: int = 0
    last_id: int = IDS_MAX - 1
    """The ids on disk that are 0, 1, ... inside containers."""

    def obstacle(self) -> str | None:
        """Why this root can't be offered, in an operator's words; None if it can."""
        try:
            status = os.stat(self.path)
        except OSError as error:
            return f"{self.path}: {error.strerror}"
        if not stat.S_ISDIR(status.st_mode):
            return f"{self.path} is no directory"
        if self.writable and self.first_id == 0 and not (_closed(self.path) or _nosuid(self.path)):
            return (
                f"containers could leave set-user-id files of root where local users reach them: "
                f"chmod 0700 {self.path}, or mount it nosuid, or give it ids of its own (ids=FIRST-LAST)"
            )
        return None


def read_roots(table: Mapping[str, str]) -> dict[str, VolumeRoot]:
    """Return the roots of a configuration's table, by name; InvalidConfig."""
    return {name: _read_root(name, text) for name, text in table.items()}


def _read_root(name: str, text: str) -> VolumeRoot:
    field = f"files.volumes.{name}"
    if not NAME.fullmatch(name):
        raise InvalidConfig(field, name, "expected a name of 1 to 32 small letters, digits, _ and -")
    path, _, rest = text.partition(":")
    words = dict.fromkeys(("rw", "create", "by-owner"), False)
    found: dict[str, str] = {}
    for option in rest.split(",") if rest else []:
        key, equals, value = option.partition("=")
        if (key in words) == bool(equals) or (equals and key not in ("owners", "ids")):
            raise InvalidConfig(field, text, EXPECTED)
        found[key] = value
    if not path.startswith("/") or ".." in path.split("/") or ("owners" in found and not all(_owners(found))):
        raise InvalidConfig(field, text, EXPECTED)
    first_id, last_id = _read_ids(field, found.get("ids", f"0-{IDS_MAX - 1}"))
    owners = frozenset(_owners(found)) if "owners" in found else None
    return VolumeRoot(
        name, Path(path), "rw" in found, "create" in found, "by-owner" in found, owners, first_id, last_id
    )  # fmt: skip


def _owners(found: Mapping[str, str]) -> list[str]:
    return found["owners"].split("+")


def _read_ids(field: str, text: str) -> tuple[int, int]:
    match = IDS.fullmatch(text)
    first = int(match[1]) if match else -1
    last = int(match[2]) if match and match[2] else first
    if not (match and first <= last <= ID_MAX and last - first < IDS_MAX):
        raise InvalidConfig(field, text, f"expected ids=FIRST[-LAST], {IDS_MAX} ids at most")
    return first, last


def _closed(path: Path) -> bool:
    """Whether other users of the host can't pass this directory or one above it."""
    real = path.resolve()
    return any(not each.stat().st_mode & stat.S_IXOTH for each in (real, *real.parents))


def _nosuid(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_NOSUID)


def open_folder(root: VolumeRoot, owner: str, folder: str) -> int:
    """A descriptor (O_PATH) of a folder below a root, made if it is missing and the root allows that.

    Raises VolumeError. The caller closes it.
    """
    try:
        with _opened(os.open(root.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as top:
            if not root.by_owner:
                return _open_below(root, top, folder)
            if root.create:
                _make(root, top, owner)
            # From here on the owner's folder is what no link leads out of.
            with _opened(open_beneath(top, owner, follow=False)) as own:
                return _open_below(root, own, folder)
    except OSError as error:
        raise VolumeError(f"volume {root.name}, folder {folder or '.'}: {_reason(error)}") from None


def _open_below(root: VolumeRoot, top: int, folder: str) -> int:
    parts = folder.split("/") if folder and root.create else []
    for depth in range(len(parts)):
        _make(root, top, "/".join(parts[: depth + 1]))
    return open_beneath(top, folder or ".")


def _make(root: VolumeRoot, top: int, path: str) -> None:
    """Make one directory if it is missing; it belongs to the container's root."""
    above, _, name = path.rpartition("/")
    with _opened(open_beneath(top, above or ".")) as parent, suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
        with _opened(open_beneath(parent, name, follow=False)) as made:
            # Only what is fresh from mkdir: something else may have been renamed to this place.
            if os.fstat(made).st_uid == os.geteuid():
                os.chown(f"/proc/self/fd/{made}", root.first_id, root.first_id)


@contextmanager
def _opened(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    words = {
        errno.EXDEV: "a link leads out of the volume",
        errno.ELOOP: "there is a link where none may be",
        errno.ENOENT: "there is no such folder",
        errno.ENOTDIR: "it is no folder",
    }
    return words.get(error.errno or 0, error.strerror or str(error))
