"""How a section of the configuration is declared, read, checked and documented: one declaration a field serves all.

    @dataclass(frozen=True, kw_only=True)
    class Api(Section, name="api", about="..."):
        port: int = setting(8642, "TCP port of the HTTP API", low=1, high=65_535)

Units come from names: a `..._bytes` field also takes "64M", `..._s` takes "5m", `..._milli` takes "1.5" (cores).
A section checks itself at construction, so that a configuration made in Python is as sound as one from a file.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from node.errors import InvalidConfig, InvalidValue
from node.quantities import parse_cpu, parse_duration, parse_size

TEXT_LENGTH_MAX = 4_096
LIST_LENGTH_MAX = 1_000

_QUANTITIES: dict[str, Callable[[str, str], float]] = {
    "_bytes": parse_size,
    "_s": parse_duration,
    "_milli": parse_cpu,
}
_TYPE_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What is known of a field beside its name, type and default."""

    meaning: str
    trade_off: str = ""
    unset: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    """Of a text, or each of a list; of a table, its names."""
    values: str = ""
    """The pattern of a table's texts."""
    expected: str = ""


def setting(
    default: Any,
    meaning: str,
    *,
    trade_off: str = "",
    unset: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    pattern: str = "",
    values: str = "",
    expected: str = "",
) -> Any:
    """Declare a field. `unset`: what happens without a value; `expected`: what a bad value's message asks for."""
    declaration = Declaration(
        meaning=meaning,
        trade_off=trade_off,
        unset=unset,
        low=low,
        high=high,
        choices=choices,
        pattern=pattern,
        values=values,
        expected=expected,
    )
    metadata = {"declaration": declaration}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A table of the file. Frozen; wrong values never get past the constructor (InvalidConfig)."""

    section: ClassVar[str] = ""
    about: ClassVar[str] = ""

    def __init_subclass__(cls, *, name: str = "", about: str = "", **rest: Any) -> None:
        super().__init_subclass__(**rest)
        cls.section, cls.about = name, about

    def __post_init__(self) -> None:
        for field, kind in fields_of(type(self)):
            _check(f"{self.section}.{field.name}", getattr(self, field.name), kind, declaration_of(field))

    @classmethod
    def read(cls, table: object) -> Self:
        """Make a section of a TOML table; unknown keys, wrong types and values out of range raise InvalidConfig."""
        if not isinstance(table, dict):
            raise InvalidConfig(cls.section, table, f"expected a table [{cls.section}]")
        kinds = {field.name: kind for field, kind in fields_of(cls)}
        values = {}
        for key, value in table.items():
            if key not in kinds:
                raise InvalidConfig(f"{cls.section}.{key}", value, unknown_key(key, list(kinds)))
            values[key] = _convert(f"{cls.section}.{key}", value, kinds[key])
        return cls(**values)


def unknown_key(key: str, known: list[str]) -> str:
    """Return what to say about a key that does not exist."""
    close = difflib.get_close_matches(key, known, n=1)
    return "there is no such setting" + (f", did you mean `{close[0]}`?" if close else f"; known: {', '.join(known)}")


def fields_of(cls: type[Section]) -> list[tuple[dataclasses.Field[Any], Any]]:
    """Return the fields of a section with their resolved types, in the order of declaration."""
    hints = typing.get_type_hints(cls)
    return [(field, hints[field.name]) for field in dataclasses.fields(cls)]


def declaration_of(field: dataclasses.Field[Any]) -> Declaration:
    """Return what `setting` declared."""
    declaration: Declaration = field.metadata["declaration"]
    return declaration


def kind_in_words(name: str, kind: Any) -> str:
    """Return a field's type as a reader of the documentation would say it."""
    kind, _ = _plain_kind(kind)
    if typing.get_origin(kind) is tuple:
        return "list of texts"
    if typing.get_origin(kind) is dict:
        return "table of texts"
    suffix = _quantity_suffix(name)
    return {"_bytes": "size", "_s": "duration", "_milli": "cores"}.get(suffix, _TYPE_NAMES[kind].split(" ", 1)[-1])


def bound_in_words(declaration: Declaration) -> str:
    """Return a field's bound as a message or a table says it, or nothing."""
    if declaration.choices:
        return "one of " + ", ".join(declaration.choices)
    low, high = declaration.low, declaration.high
    if low is not None and high is not None:
        return f"from {low:,} to {high:,}"
    if low is not None:
        return f"{low:,} or more"
    return f"{high:,} or less" if high is not None else ""


def _plain_kind(kind: Any) -> tuple[Any, bool]:
    """Take `X | None` apart into X and whether None may be."""
    if isinstance(kind, types.UnionType):
        return next(part for part in typing.get_args(kind) if part is not type(None)), True
    return kind, False


def _quantity_suffix(name: str) -> str:
    return next((suffix for suffix in _QUANTITIES if name.removesuffix("_max").endswith(suffix)), "")


def _convert(name: str, value: Any, kind: Any) -> Any:
    kind, _ = _plain_kind(kind)
    suffix = _quantity_suffix(name)
    if suffix and isinstance(value, str):
        try:
            return _QUANTITIES[suffix](value, name)
        except InvalidValue as error:
            raise InvalidConfig(error.field, error.value, error.expected) from None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return tuple(value) if typing.get_origin(kind) is tuple and isinstance(value, list) else value


def _check(name: str, value: Any, kind: Any, declaration: Declaration) -> None:
    kind, optional = _plain_kind(kind)
    if optional and value is None:
        return
    if typing.get_origin(kind) in (tuple, dict):
        _check_collection(name, value, typing.get_origin(kind), declaration)
    elif type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise InvalidConfig(name, value, _expected(declaration, _TYPE_NAMES[kind]))
    elif kind is str:
        _check_text(name, value, declaration)
    elif (declaration.low is not None and value < declaration.low) or (
        declaration.high is not None and value > declaration.high
    ):
        raise InvalidConfig(name, value, _expected(declaration, _TYPE_NAMES[kind]))


def _check_collection(name: str, value: Any, kind: Any, declaration: Declaration) -> None:
    if not isinstance(value, kind) or len(value) > LIST_LENGTH_MAX:
        words = "a list of texts" if kind is tuple else "a table of texts"
        raise InvalidConfig(name, value, _expected(declaration, f"{words}, {LIST_LENGTH_MAX} at most"))
    for item in value:
        _check_text(name, item, declaration)
    if isinstance(value, dict):
        for key, item in value.items():
            _check_text(f"{name}.{key}", item, dataclasses.replace(declaration, pattern=declaration.values))


def _check_text(name: str, value: Any, declaration: Declaration) -> None:
    sound = isinstance(value, str) and len(value) <= TEXT_LENGTH_MAX and "\0" not in value
    if sound and declaration.choices:
        sound = value in declaration.choices
    if sound and declaration.pattern:
        sound = re.fullmatch(declaration.pattern, value, re.ASCII) is not None
    if not sound:
        raise InvalidConfig(name, value, _expected(declaration, "a text"))


def _expected(declaration: Declaration, kind: str) -> str:
    if declaration.expected:
        return f"expected {declaration.expected}"
    bound = bound_in_words(declaration)
    return f"expected {bound}" if declaration.choices else f"expected {kind} {bound}".rstrip()
