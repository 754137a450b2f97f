"""What start-up needed for itself, given back: an agent lives for months and imports once.

Measured on Debian 12: 0.8 MB less resident memory in a gossip-only process of 36 MB, and no time spent on what never
becomes garbage in later collections.
"""

from __future__ import annotations

import ctypes
import gc


def settle() -> None:
    """Call once, when everything is imported and set up; takes a few milliseconds."""
    gc.collect()
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)
