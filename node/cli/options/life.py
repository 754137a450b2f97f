"""Options of `fofoca submit`: health checks, restarts and signals of a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OPTIONS: tuple[Callable[[Any], Any], ...] = ()


def body(options: dict[str, Any]) -> dict[str, Any]:
    """Return the part's JSON; what was not asked for is left out."""
    return {}
