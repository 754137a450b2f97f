"""What start-up needed for itself, given back: an agent lives for months and imports once. And how often to look for
garbage in cycles: an agent makes next to none, but many objects that live for a moment, and looking at every 700 new
ones, as Python does by default, was a fifth of the time a request takes.

Measured on Debian 12: 0.8 MB less resident memory in a gossip-only process of 36 MB, and no time spent on what never
becomes garbage in later collections.
"""

from __future__ import annotations

import ctypes
import gc

YOUNG_OBJECTS_MAX = 10_000


def settle() -> None:
    """Call once, when everything is imported and set up; takes a few milliseconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)
