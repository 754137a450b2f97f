"""Which nodes have which images: what a node tells of it, and what that is worth when a task is placed.

A node gossips the first bytes of the digests it has, the ones used last first, within one kilobyte. The answer may be
stale or cut short, and two digests may begin alike: it costs a transfer, never a wrong image, for nodes fetch what they
lack. So it is a term of the score and no rule: a full node with the image is no reason to wait.
"""

from __future__ import annotations

from collections.abc import Iterable

KEY = "images"
"""Under which a node publishes what it has."""
PREFIX_BYTES = 8
HELD_MAX = 120
WEIGHT = 0.1
"""What having all of a task's images is worth: as much as being a tenth better by the policy's own score."""


def prefix(digest: str) -> bytes:
    """Return the first bytes of a digest such as sha256:0123..."""
    return bytes.fromhex(digest.partition(":")[2][: 2 * PREFIX_BYTES])


def encode(digests: Iterable[str]) -> bytes:
    """Return what a node publishes, from its digests in the order of their last use, the newest first."""
    return b"".join(prefix(digest) for _, digest in zip(range(HELD_MAX), digests, strict=False))


def decode(value: bytes) -> frozenset[bytes]:
    """Read what a node published; more than a node would say is cut off."""
    starts = range(0, min(len(value), PREFIX_BYTES * HELD_MAX) - PREFIX_BYTES + 1, PREFIX_BYTES)
    return frozenset(value[start : start + PREFIX_BYTES] for start in starts)


def wanted(image_digest: str) -> tuple[bytes, ...]:
    """Return what a job's image is in the words of nodes, each image of a stack; empty for a job without one."""
    return tuple(prefix(digest) for digest in image_digest.split(";") if digest)


def locality(images: tuple[bytes, ...], held: frozenset[bytes]) -> float:
    """Return what a node's images are worth for a task, in [0, WEIGHT]: all of it where it has all of them."""
    return WEIGHT * (sum(each in held for each in images) / len(images)) if images else 0.0
