"""How images are called: NAME, NAME:TAG, sha256:DIGEST, or several of these as a stack. Pure.

A stack `app;runtime;base` is one root file system of several images, each laid over those behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from node.host.errors import ImageError

DEFAULT_TAG = "latest"
DIGEST_PREFIX = "sha256:"
STACK_SEPARATOR = ";"
STACK_MAX = 8
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


def split_stack(reference: str) -> tuple[str, ...]:
    """Return the images of a stack, topmost first; ImageError for too many, for an empty one or the same one twice."""
    parts = tuple(reference.split(STACK_SEPARATOR))
    if not all(parts) or len(parts) > STACK_MAX or len(set(parts)) < len(parts):
        raise ImageError(f"image {reference[:200]!r}: a stack is 1 to {STACK_MAX} different images, parted by ;")
    return parts


def join_stack(parts: Iterable[str]) -> str:
    """Return the reference of a stack."""
    return STACK_SEPARATOR.join(parts)


def check_reference(reference: str) -> None:
    """Raise ImageError unless this is a name, a digest or a stack of them."""
    for part in split_stack(reference):
        if not is_digest(part):
            parse_image_name(part)
