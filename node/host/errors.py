"""What can go wrong on the host, drawn in one place; every text is fit for a user's eyes."""

from __future__ import annotations

from node.errors import CallerError, NodeError


class HostError(NodeError):
    """The root: the host lacks something or refuses it."""


class ImageError(HostError, CallerError):
    """The caller's fault: an image that does not exist, is in use, or has an impossible name."""


class ImageInUse(ImageError):
    """The image cannot be removed now."""


class ArchiveError(ImageError):
    """The archive or directory is refused whole; names the entry and what would be right. Nothing was stored."""


class FetchInterrupted(ImageError):
    """The peer's fault: the transfer broke and may be resumed."""
