"""What gossip remembers across restarts: this node's identity and the last known peers, in one small file.

The boot epoch of a new life is above the last one's and above the clock's seconds, so it rises even when the file or
the clock is lost; only losing both at once needs the other nodes' help (they tell a node of its earlier life).
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Final

from cluster.membership import Address, Identity

FILE_NAME: Final = "gossip.json"

logger = logging.getLogger("fofoca.gossip")


class GossipMemory:
    """The identity and the last known peers, in one file that is replaced as a whole."""

    def __init__(self, name: str, directory: Path | None) -> None:
        self._name = name
        self.path = None if directory is None else directory / FILE_NAME

    def load(self, wall_s: int) -> tuple[int, tuple[Address, ...]]:
        """Return (boot epoch of this life, last known peers). A broken file counts as none: time orders lives too."""
        if self.path is None or not self.path.exists():
            return wall_s, ()
        try:
            kept = json.loads(self.path.read_bytes())
            peers = tuple((str(host), int(port)) for host, port in kept["peers"])
            if kept["name"] != self._name:
                return wall_s, peers
            return max(wall_s, int(kept["boot_epoch"]) + 1), peers
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s: can't be read (%s); starting with the clock's boot epoch %d", self.path, error, wall_s)
            return wall_s, ()

    def save(self, identity: Identity, peers: tuple[Address, ...]) -> None:
        """Replace the file. Errors: OSError."""
        if self.path is None:
            return
        kept = {
            "name": identity.name,
            "boot_epoch": identity.boot_epoch,
            "incarnation": identity.incarnation,
            "peers": [list(peer) for peer in peers],
        }
        fresh = self.path.with_suffix(".new")
        with open(fresh, "wb") as file:
            file.write(json.dumps(kept).encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self.path)
