"""What an image says of how to run it: command, environment, user, working directory. Pure.

Travels with the content, in a record of the canonical tar, so that it counts for the digest and reaches every node.
The fields are those of the OCI image specification ("config" of an image configuration) that say what runs; ports,
volumes and labels are the job's business here.
"""

from __future__ import annotations

import re

import msgspec

from node.host.errors import ArchiveError

CONFIG_BYTES_MAX = 64 * 1024
WORDS_MAX = 1_000

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})?")
_WORKDIR = re.compile(r"/[^\0\n]{0,1023}")


class ImageConfig(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Defaults of a job on this image; every field may be empty."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    user: str = ""
    """A name or number, with a group after a colon or without."""
    workdir: str = ""

    @property
    def command(self) -> tuple[str, ...]:
        """What a job without a command of its own runs."""
        return self.entrypoint + self.cmd

    def __bool__(self) -> bool:
        """Whether it says anything."""
        return self != EMPTY


EMPTY = ImageConfig()
_decode = msgspec.json.Decoder(ImageConfig).decode


def encode(config: ImageConfig) -> bytes:
    """Return the one form that is part of the digest; b"" for a configuration that says nothing."""
    return msgspec.json.encode(config) if config else b""


def decode(text: bytes) -> ImageConfig:
    """Read and check what `encode` wrote; raises ArchiveError."""
    if not text:
        return EMPTY
    try:
        return checked(_decode(text))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArchiveError(f"the image's configuration in the tar is damaged: {error}") from None


def checked(config: ImageConfig) -> ImageConfig:
    """Return the configuration unchanged; raises ArchiveError for what no container could be given."""
    for word in config.command:
        _require("\0" not in word and _encodable(word), "command", word, "words without NUL")
    _require(len(config.command) <= WORDS_MAX, "command", f"{len(config.command)} words", f"at most {WORDS_MAX}")
    for name, value in config.env:
        _require(_VARIABLE.fullmatch(name), "env", name, "a name of letters, digits and _, no digit first")
        _require("\0" not in value and _encodable(value), "env", name, "a value without NUL")
    _require(not config.user or _USER.fullmatch(config.user), "user", config.user, "USER or USER:GROUP")
    good = _WORKDIR.fullmatch(config.workdir) and ".." not in config.workdir.split("/") and _encodable(config.workdir)
    _require(not config.workdir or good, "workdir", config.workdir, "an absolute path without '..'")
    size = len(encode(config))
    _require(size <= CONFIG_BYTES_MAX, "size", f"{size} bytes", f"at most {CONFIG_BYTES_MAX} bytes in all")
    return config


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _require(holds: object, field: str, value: str, expected: str) -> None:
    if not holds:
        raise ArchiveError(f"the image's configuration: {field} is {value[:80]!r}; expected {expected}")
