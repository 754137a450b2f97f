"""Which version this is: by the metadata of the installed package, else by the checkout that it runs from."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

UNKNOWN = "unknown"
_CHECKOUT = Path(__file__).parents[1] / "pyproject.toml"


def version(checkout: Path = _CHECKOUT) -> str:
    """Return it, as in "0.1.0"; "unknown" where neither says it."""
    try:
        return metadata.version("fofoca")
    except metadata.PackageNotFoundError:
        return _of(checkout)


def _of(checkout: Path) -> str:
    try:
        project = tomllib.loads(checkout.read_text())["project"]
        return str(project["version"]) if project["name"] == "fofoca" else UNKNOWN
    except (OSError, tomllib.TOMLDecodeError, KeyError):
        return UNKNOWN
