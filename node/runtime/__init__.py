"""Container runtimes: `open_runtime` picks and opens one, `protocol` says what all of them promise."""

from node.runtime.opening import RuntimeKind, UnavailableError, lxc_obstacles, open_runtime
from node.runtime.protocol import (
    ContainerError,
    ContainerSpec,
    Exit,
    LogChunk,
    NetworkSpec,
    Recovered,
    Runtime,
    SpecError,
    Started,
    StartError,
    UnknownContainerError,
    UnsupportedError,
    UpdateError,
    Usage,
    reduced,
    unmet,
)

__all__ = [
    "ContainerError",
    "ContainerSpec",
    "Exit",
    "LogChunk",
    "NetworkSpec",
    "Recovered",
    "Runtime",
    "RuntimeKind",
    "SpecError",
    "StartError",
    "Started",
    "UnavailableError",
    "UnknownContainerError",
    "UnsupportedError",
    "UpdateError",
    "Usage",
    "lxc_obstacles",
    "open_runtime",
    "reduced",
    "unmet",
]
