"""The cluster's key as a file: 32 random bytes as base64 that nobody but its owner can read."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from pathlib import Path

from node.errors import InvalidConfig

KEY_BYTES = 32


def create_key(path: Path) -> None:
    """Make a new key file, readable by its owner alone; FileExistsError rather than overwriting one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_key(path: Path) -> bytes:
    """Return the 32 bytes of a key file; InvalidConfig when it is missing, malformed or readable by others."""
    where = "cluster.key_file"
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise InvalidConfig(where, str(path), f"expected a file only its owner can read: chmod 600 {path}")
            key = base64.b64decode(file.read(1_024).strip(), validate=True)
    except OSError as error:
        raise InvalidConfig(where, str(path), f"expected a readable file ({error.strerror})") from None
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise InvalidConfig(where, str(path), "expected 32 random bytes as base64")
    return key
