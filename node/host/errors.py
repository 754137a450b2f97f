"""What can go wrong on the host, drawn in one place; every text is fit for a user's eyes."""

from __future__ import annotations

import errno

from node.errors import CallerError, DiskFull, NodeError


class HostError(NodeError):
    """The root: the host lacks something or refuses it."""


class ImageError(HostError, CallerError):
    """The caller's fault: an image that does not exist, is in use, or has an impossible name."""


class ImageInUse(ImageError):
    """The image cannot be removed now."""


class ArchiveError(ImageError):
    """The archive or directory is refused whole; names the entry and what would be right. Nothing was stored."""


class NoSpace(ArchiveError, DiskFull):
    """The disk is full, or the store has no room by its bound. Nothing was stored."""


def not_stored(what: str, error: OSError) -> ArchiveError:
    """Return the refusal for an image whose file could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"{what}: no space left on the disk of this node")
    return ArchiveError(f"{what}: {error.strerror}")


class FetchInterrupted(ImageError):
    """The peer's fault: the transfer broke and may be resumed."""
