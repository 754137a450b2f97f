"""Options of `fofoca submit`: when a job may start, in whose name it is queued, and where it may run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OPTIONS: tuple[Callable[[Any], Any], ...] = ()


def body(options: dict[str, Any]) -> dict[str, Any]:
    """Return the part's JSON; what was not asked for is left out."""
    return {}
