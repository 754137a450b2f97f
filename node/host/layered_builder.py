"""Builds a root file system from layers: each adds to, replaces and removes what those below it left.

The rules of OCI's "Image Layer Filesystem Changeset": `.wh.NAME` removes NAME of lower layers, `.wh..wh..opq` all that
lower layers have in its directory; neither touches what its own layer brings, wherever it stands in the archive. All
else is as in `rootfs_builder`: nothing comes twice in one layer, nothing is written through a link. aufs's own records
(`.wh..wh.plnk` and the like), which old tools left in layers, mean nothing and are passed over.
"""

from __future__ import annotations

import os
from pathlib import Path

from node.host.errors import ArchiveError
from node.host.rootfs_builder import Node, RootfsBuilder, naming
from node.host.rootfs_entry import Bounds, Kind, Member, checked_path, shown

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
AUFS = b".wh..wh."


class LayeredBuilder(RootfsBuilder):
    """Takes the members of one layer after `begin_layer`, lowest layer first."""

    def __init__(self, folder: Path, bounds: Bounds | None = None, *, privileged: bool | None = None) -> None:
        super().__init__(folder, bounds, privileged=privileged)
        self._names: dict[bytes, dict[bytes, None]] = {}
        self._fresh: set[bytes] = set()

    def begin_layer(self) -> None:
        """All that is there belongs to lower layers now."""
        self._fresh = set()

    def add(self, member: Member) -> None:
        """Create one entry, or remove what a whiteout names; raises ArchiveError."""
        if WHITEOUT not in member.name:
            super().add(member)
            return
        path = checked_path(member.name, self._bounds)
        folder, _, name = path.rpartition(b"/")
        if any(part.startswith(WHITEOUT) for part in path.split(b"/")):
            self._count_entry(member.name)
            with naming(member.name):
                self._white_out(path, folder, name)
        else:
            super().add(member)

    def _white_out(self, path: bytes, folder: bytes, name: bytes) -> None:
        if any(part.startswith(AUFS) for part in path.split(b"/")) and name != OPAQUE:
            return
        self._check_folder(path, folder)
        if name == OPAQUE:
            for child in list(self._names.get(folder, ())):
                self._remove_older(_joined(folder, child))
            return
        target = name.removeprefix(WHITEOUT)
        if not name.startswith(WHITEOUT) or target in (b"", b".", b".."):
            raise ArchiveError(f"{shown(path)}: a whiteout must name one entry of its own directory")
        self._remove_older(_joined(folder, target))

    def _check_folder(self, path: bytes, folder: bytes) -> None:
        """Lower layers' links are no way to somewhere else, for whiteouts either."""
        while folder:
            node = self._nodes.get(folder)
            if node is not None and node.kind is not Kind.DIRECTORY:
                raise ArchiveError(f"{shown(path)}: lies below {shown(folder)}, which is a {node.kind.label}")
            folder = folder.rpartition(b"/")[0]

    def _make_way(self, path: bytes) -> None:
        if path in self._fresh or not self._remove_older(path):
            super()._make_way(path)

    def _keep(self, path: bytes, node: Node) -> None:
        super()._keep(path, node)
        folder, _, name = path.rpartition(b"/")
        self._names.setdefault(folder, {})[name] = None
        self._fresh.add(path)

    def _remove_older(self, path: bytes) -> bool:
        """Remove what lower layers have at and below a path; return whether nothing is left there."""
        kept = [name for name in list(self._names.get(path, ())) if not self._remove_older(_joined(path, name))]
        node = self._nodes.get(path)
        if node is None:
            return not kept
        if path in self._fresh or kept:
            return False
        (os.rmdir if node.kind is Kind.DIRECTORY else os.unlink)(self._on_disk(path))
        folder, _, name = path.rpartition(b"/")
        del self._nodes[path]
        del self._names[folder][name]
        self._names.pop(path, None)
        return True


def _joined(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name
