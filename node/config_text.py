"""The configuration as text: a TOML file of what differs from the defaults, and the reference in docs/config.md."""

from __future__ import annotations

import dataclasses
from typing import Any

from node.config import AgentConfig, all_sections
from node.settings import bound_in_words, declaration_of, fields_of, kind_in_words


def to_toml(config: AgentConfig) -> str:
    """Return the file that makes this configuration; what has its default is left out."""
    lines: list[str] = []
    for section in all_sections():
        values, defaults = getattr(config, section.section), section()
        changed = [
            entry.name
            for entry in dataclasses.fields(section)
            if getattr(values, entry.name) != getattr(defaults, entry.name)
        ]
        if changed:
            lines += [f"[{section.section}]", *(f"{name} = {_toml(getattr(values, name))}" for name in changed), ""]
    return "\n".join(lines)


def document() -> str:
    """Return docs/config.md."""
    lines = [
        "# The agent's configuration",
        "",
        "`fofoca agent --config FILE` reads TOML. Every setting has a default; an empty file makes a node of its own",
        "on loopback. Unknown settings and wrong values are refused at start. Sizes take `64M` or `1.5G` (powers of",
        "1024) beside plain bytes, durations `500ms`, `30s`, `5m` or `1h` beside plain seconds, cores `1.5` or",
        "`250m` (as texts) beside plain millicores.",
    ]
    for section in all_sections():
        lines += ["", f"## [{section.section}]", "", section.about, ""]
        lines += ["| setting | type, bound | default | meaning |", "|---|---|---|---|"]
        lines += [_documented(entry, kind) for entry, kind in fields_of(section)]
    return "\n".join(lines) + "\n"


def _documented(entry: Any, kind: Any) -> str:
    declaration = declaration_of(entry)
    bound = bound_in_words(declaration) or declaration.expected
    kind_and_bound = kind_in_words(entry.name, kind) + (f": {bound}" if bound else "")
    default = declaration.unset or f"`{_toml(entry.default)}`"
    meaning = f"{declaration.meaning} *{declaration.trade_off}*" if declaration.trade_off else declaration.meaning
    return f"| `{entry.name}` | {kind_and_bound} | {default} | {meaning} |"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04X}" for c in escaped) + '"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    return str(value)


if __name__ == "__main__":
    print(document(), end="")
