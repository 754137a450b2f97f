"""Several images laid over each other, as a container sees them: where a path is found, and who a user is.

Reads the images' files without ever following a link on the host's side: a link's text is the image author's. Links are
resolved within the stack, as the container's kernel would.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from node.host.errors import ImageError
from node.host.image_config import EMPTY, ImageConfig

LINKS_MAX = 40
PASSWD_BYTES_MAX = 1 << 20
ID_MAX = 65_535
"""The last id of a container's user namespace."""

_NUMBER = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class User:
    """Who a container's command runs as, inside the container."""

    uid: int = 0
    gid: int = 0
    home: str = "/root"


@dataclass(frozen=True, slots=True)
class ImageStack:
    """Root file systems, topmost first, and how the topmost that says so is run."""

    roots: tuple[Path, ...]
    config: ImageConfig = EMPTY

    def user(self) -> User:
        """Return the user the image wants; blocks. Raises ImageError for one its /etc/passwd does not know."""
        return find_user(self.roots, self.config.user) if self.config.user else User()


def locate(roots: tuple[Path, ...], path: str) -> Path | None:
    """Return the file a path means in a container on these roots; None if there is none. What is found is no link."""
    at: list[str] = []
    ahead = path.split("/")[::-1]
    links = 0
    while ahead:
        part = ahead.pop()
        if part == "..":
            at = at[:-1]
        elif part not in ("", "."):
            full = _topmost(roots, [*at, part])
            if full is None:
                return None
            if full.is_symlink():
                links += 1
                target = os.readlink(full)
                at = [] if target.startswith("/") else at
                ahead += target.split("/")[::-1]
            else:
                at.append(part)
        if links > LINKS_MAX:
            return None
    return _topmost(roots, at) if at else roots[0]


def _topmost(roots: tuple[Path, ...], parts: list[str]) -> Path | None:
    """Return the topmost entry of a path without links; a file above hides a directory below, as overlayfs has it."""
    for root in roots:
        full = root
        for part in parts[:-1]:
            full = full / part
            if os.path.lexists(full) and not _is_directory(full):
                return None
        full = root.joinpath(*parts)
        if os.path.lexists(full):
            return full
    return None


def _is_directory(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)


def find_user(roots: tuple[Path, ...], wanted: str) -> User:
    """Return the user and group that `USER[:GROUP]` means, names or numbers."""
    name, _, group = wanted.partition(":")
    entries = _table(roots, "/etc/passwd")
    entry = next((each for each in entries if name == each[0]), None)
    if entry is None and _NUMBER.fullmatch(name):
        entry = next((each for each in entries if each[2:3] == [name]), [name, "", name, "0", "", "/"])
    if entry is None or len(entry) < 6:
        raise ImageError(f"the image wants to run as user {name!r}, which its /etc/passwd does not have")
    gid = _group(roots, group) if group else entry[3]
    return User(_id(wanted, entry[2]), _id(wanted, gid), entry[5] if entry[5].startswith("/") else "/")


def _group(roots: tuple[Path, ...], name: str) -> str:
    if _NUMBER.fullmatch(name):
        return name
    entry = next((each for each in _table(roots, "/etc/group") if each[0] == name and len(each) > 2), None)
    if entry is None:
        raise ImageError(f"the image wants to run in group {name!r}, which its /etc/group does not have")
    return entry[2]


def _id(wanted: str, text: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > ID_MAX:
        raise ImageError(f"the image wants to run as {wanted!r}, which is id {text[:20]!r}; expected 0 to {ID_MAX}")
    return int(text)


def _table(roots: tuple[Path, ...], path: str) -> list[list[str]]:
    file = locate(roots, path)
    if file is None:
        return []
    with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), errors="replace") as opened:
        return [line.split(":") for line in opened.read(PASSWD_BYTES_MAX).splitlines()]
