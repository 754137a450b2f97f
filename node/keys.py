"""The cluster's keys as a file that nobody but its owner can read.

One key a line, 32 random bytes as base64; the first one seals. A line `# version N` counts the changes made to the
cluster's keys: of two nodes' files, the one with the higher version is newer. A file of one line is version 0.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import os
import re
import secrets
from pathlib import Path
from typing import Annotated

import msgspec

from cluster.seal import KEY_BYTES, KEYS_MAX
from node.errors import InvalidConfig
from node.host.durable_file import write_durably

FILE_BYTES_MAX = 4_096
VERSION_LINE = re.compile(rb"# version (\d{1,18})")
WHERE = "cluster.key_file"

Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]


class ClusterKeys(msgspec.Struct, frozen=True, array_like=True, order=True, forbid_unknown_fields=True):
    """The cluster's keys at one version, the one that seals first. The greater of two is the one to hold."""

    version: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
    keys: Annotated[tuple[Key, ...], msgspec.Meta(min_length=1, max_length=KEYS_MAX)]

    def __repr__(self) -> str:
        return f"ClusterKeys(version={self.version}, {len(self.keys)} keys)"

    @property
    def primary(self) -> bytes:
        """The key that seals."""
        return self.keys[0]


def create_key(path: Path) -> None:
    """Make a new key file, readable by its owner alone; FileExistsError rather than overwriting one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_keys(path: Path) -> ClusterKeys:
    """Return what a key file holds; InvalidConfig when it is missing, malformed or readable by others."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise InvalidConfig(WHERE, str(path), f"expected a file only its owner can read: chmod 600 {path}")
            content = file.read(FILE_BYTES_MAX)
    except OSError as error:
        raise InvalidConfig(WHERE, str(path), f"expected a readable file ({error.strerror})") from None
    try:
        return _parse(content)
    except (binascii.Error, ValueError):
        raise InvalidConfig(
            WHERE, str(path), f"expected 32 random bytes as base64, on each of 1 to {KEYS_MAX} lines"
        ) from None


def write_keys(path: Path, keys: ClusterKeys) -> None:
    """Replace a key file in one step; blocks until it is durable. Raises OSError and leaves the old one."""
    lines = [b"# version %d" % keys.version, *(base64.b64encode(key) for key in keys.keys)]
    # Agents on one host may share a file; one at a time writes it.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        write_durably(path, b"\n".join(lines) + b"\n", mode=0o600)
    finally:
        os.close(folder)


def parse_key(text: str | bytes) -> bytes:
    """Return the key that base64 stands for; ValueError."""
    key = base64.b64decode(text, validate=True)
    if len(key) != KEY_BYTES:
        raise ValueError(f"{len(key)} bytes are no key")
    return key


def _parse(content: bytes) -> ClusterKeys:
    version, keys = 0, list[bytes]()
    for line in content.split(b"\n"):
        line = line.strip()
        if found := VERSION_LINE.fullmatch(line):
            version = int(found[1])
        elif line:
            keys.append(parse_key(line))
    if not 1 <= len(keys) <= KEYS_MAX or len(set(keys)) != len(keys):
        raise ValueError(f"{len(keys)} keys, or one of them twice")
    return ClusterKeys(version, tuple(keys))
