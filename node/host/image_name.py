"""How images are called: NAME, NAME:TAG, or sha256:DIGEST. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from node.host.errors import ImageError

DEFAULT_TAG = "latest"
DIGEST_PREFIX = "sha256:"
_NAME = re.compile(r"[a-z0-9][a-z0-9._/-]{0,127}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, order=True)
class ImageName:
    """A checked name and tag."""

    name: str
    tag: str = DEFAULT_TAG

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}"


def parse_image_name(text: str) -> ImageName:
    """Return the name and tag in NAME[:TAG]; raises ImageError saying what would be right."""
    name, colon, tag = text.partition(":")
    if not _NAME.fullmatch(name) or name == "sha256":
        raise ImageError(
            f"image name {name!r}: use 1 to 128 of a-z 0-9 . _ / - and begin with a letter or digit"
            " (and not sha256, which begins a digest)"
        )
    if colon and not _TAG.fullmatch(tag):
        raise ImageError(f"image tag {tag!r}: use 1 to 128 of A-Z a-z 0-9 . _ - and begin with none of . -")
    return ImageName(name, tag if colon else DEFAULT_TAG)


def is_digest(text: str) -> bool:
    """Say whether the text is a whole digest."""
    return _DIGEST.fullmatch(text) is not None


def parse_digest(text: str) -> str:
    """Return the digest unchanged; raises ImageError if it is none."""
    if not is_digest(text):
        raise ImageError(f"image digest {text!r}: use sha256: and 64 hexadecimal digits")
    return text
