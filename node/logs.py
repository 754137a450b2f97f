"""Structured logs on stderr over the standard library's logging: one event a line, as JSON or for people's eyes.

    log = logs.get("peers")
    log.warning("refused a body", sender="10.0.0.2", why="replayed")

A line has a bound, and what came from outside can neither forge a line nor move the terminal's cursor.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("json", "text")
VALUE_LENGTH_MAX = 2_000

_FIELDS = "fofoca_fields"


class Log:
    """A named source of events; keyword arguments become the event's fields."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"fofoca.{name}")

    def debug(self, message: str, **fields: Any) -> None:
        """For whoever hunts a bug."""
        self._write(logging.DEBUG, message, fields)

    def info(self, message: str, **fields: Any) -> None:
        """What an operator wants to read once."""
        self._write(logging.INFO, message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        """Something went wrong and was coped with."""
        self._write(logging.WARNING, message, fields)

    def error(self, message: str, **fields: Any) -> None:
        """Something an operator must act on."""
        self._write(logging.ERROR, message, fields)

    def exception(self, message: str, **fields: Any) -> None:
        """Our bug: inside an `except`, with its traceback."""
        self._write(logging.ERROR, message, fields, traceback=True)

    def _write(self, level: int, message: str, fields: dict[str, Any], traceback: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", message, extra={_FIELDS: fields}, exc_info=traceback)


def get(name: str) -> Log:
    """Return the log of one part of the node, such as `peers`."""
    return Log(name)


def configure(level: str = "info", style: str = "text", node: str = "", stream: TextIO | None = None) -> None:
    """Send everything of `level` and above to stderr, our own and the libraries' alike (those from warning on)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(node) if style == "json" else HumanLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("fofoca").setLevel(level.upper())


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, log, node, message, then the event's fields."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        event: dict[str, Any] = {"time": _timestamp(record), "level": record.levelname.lower(), "log": _name(record)}
        if self._node:
            event["node"] = self._node
        event["message"] = _cut(record.getMessage())
        event.update({key: _plain(value) for key, value in getattr(record, _FIELDS, {}).items()})
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event, separators=(",", ":"))


class HumanLines(logging.Formatter):
    """Time, level and message, then fields as `key=value`; a traceback follows indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line (more only for tracebacks), without its end."""
        fields = "".join(f" {key}={_word(value)}" for key, value in getattr(record, _FIELDS, {}).items())
        clock = time.strftime("%H:%M:%S", time.localtime(record.created)) + f".{int(record.msecs):03d}"
        line = f"{clock} {record.levelname[0]} {_name(record)}: {_printable(_cut(record.getMessage()))}{fields}"
        if record.exc_info:
            line += "\n    " + self.formatException(record.exc_info).replace("\n", "\n    ")
        return line


def _name(record: logging.LogRecord) -> str:
    return record.name.removeprefix("fofoca.")


def _timestamp(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _cut(text: str) -> str:
    return text if len(text) <= VALUE_LENGTH_MAX else text[:VALUE_LENGTH_MAX] + "..."


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    return _cut(str(value))


def _word(value: Any) -> str:
    text = _printable(_cut(str(value)))
    return text if text and not any(letter in text for letter in ' "=') else json.dumps(text, ensure_ascii=False)


def _printable(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
