"""What a simulation's user can get wrong, in one place: each message names the thing, its value and what is right.

Bugs of ours are not here: they raise whatever they raise.
"""

from __future__ import annotations


class SimulationError(Exception):
    """The caller's fault; nothing was simulated and nothing written. Its text is one line for a user's eyes."""


class BadTrace(SimulationError):
    """A file that cannot be read, or a line in it that makes no sense."""

    def __init__(self, path: str, why: str, line: int = 0) -> None:
        super().__init__(f"{path}{f':{line}' if line else ''}: {why}")
        self.path = path
        self.line = line


class BadValue(SimulationError):
    """A parameter outside its range."""

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(f"{name}: {value} is not valid; {expected}")
        self.name = name
