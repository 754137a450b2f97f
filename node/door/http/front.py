"""What all connections of a door share."""

from __future__ import annotations

from dataclasses import dataclass, field

from node.door.config import Door
from node.door.http.awaking import Awaking
from node.door.http.backends import Backends
from node.door.http.counts import Counts
from node.door.http.places import Places
from node.door.http.senders import FrontEnds
from node.door.sites import Sites


@dataclass(frozen=True, slots=True)
class Front:
    """The parts of a door. `carried` bounds the requests of a site that are carried at once."""

    config: Door
    sites: Sites
    awaking: Awaking
    front_ends: FrontEnds
    backends: Backends
    carried: Places
    counts: Counts = field(default_factory=Counts)
