"""docs/protocol.md says what the code does: states, messages and settings."""

import typing
from dataclasses import fields
from pathlib import Path

import msgspec

from cluster import GossipConfig, wire
from cluster.membership import TRANSITIONS

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()


def state_diagram() -> list[str]:
    """Return the table of states as the lines of a Mermaid diagram."""
    return [
        f"    {'[*]' if old is None else old.name.lower()} --> {'[*]' if new is None else new.name.lower()}: {why}"
        for (old, new), why in TRANSITIONS.items()
    ]


def message_rows() -> list[str]:
    """Return one table row a message: kind, name, fields in their order."""
    kinds = {*typing.get_args(wire.Datagram), *typing.get_args(wire.Frame)}
    rows = [
        (info.tag, f"| {info.tag} | {kind.__name__} | {', '.join(field.name for field in info.fields)} |")
        for kind in kinds
        if isinstance(info := msgspec.inspect.type_info(kind), msgspec.inspect.StructType)
    ]
    return [row for _, row in sorted(rows)]  # type: ignore[type-var]


def setting_rows() -> list[str]:
    """Return how the table of settings must begin each row: name and default."""
    return [f"| `{field.name}` | {field.default} |" for field in fields(GossipConfig)]


def test_the_state_diagram_is_drawn_from_the_table() -> None:
    assert "\n".join(state_diagram()) in TEXT, "\n".join(state_diagram())


def test_every_message_stands_with_its_fields() -> None:
    for row in message_rows():
        assert row in TEXT, row


def test_every_setting_stands_with_its_default() -> None:
    for row in setting_rows():
        assert row in TEXT, row
