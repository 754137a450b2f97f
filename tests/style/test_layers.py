"""Imports point one way, and the deciding packages stay pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("scheduler", "cluster", "sim", "node")
MAY_IMPORT = {
    "scheduler": set(),
    "cluster": set(),
    "sim": {"scheduler", "cluster"},
    "node": {"scheduler", "cluster"},
}  # fmt: skip
ONLY_HERE_SIM = "node/cli/"
PURE = ("scheduler", "cluster")
# Whatever brings in time, chance or the outside world.
IMPURE_NAMES = """asyncio fcntl http httpx logging multiprocessing os pathlib psutil secrets select selectors signal
socket ssl subprocess sys tempfile threading time trio urllib"""
IMPURE = frozenset(IMPURE_NAMES.split())
ONLY_USERS = {"httpx": {"node/ledger/etcd_gateway.py"}}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every import, those inside functions included; those for type checkers too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield node.lineno, node.module or ""


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    wrong = []
    for path in modules(package):
        where = path.relative_to(ROOT).as_posix()
        allowed = MAY_IMPORT[package] | {package}
        if where.startswith(ONLY_HERE_SIM):
            allowed |= {"sim"}
        for line, name in imports(path):
            top = name.split(".")[0]
            if top in PACKAGES and top not in allowed:
                wrong.append(f"{where}:{line} imports {name}")
            if top in ("tests", "benchmarks"):
                wrong.append(f"{where}:{line} imports {name}")
    assert not wrong


@pytest.mark.parametrize("package", PURE)
def test_the_deciding_packages_know_no_clock_no_chance_and_no_outside(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(package)
        for line, name in imports(path)
        if name.split(".")[0] in IMPURE
    ]
    assert not wrong


@pytest.mark.parametrize("package", PURE)
def test_the_deciding_packages_draw_from_given_randomness_only(package: str) -> None:
    """`random.Random` is a type and a stream made of a seed; the module's own functions share one hidden stream."""
    wrong = []
    for path in modules(package):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "random"
                and node.attr != "Random"
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} random.{node.attr}")
    assert not wrong


def test_the_http_client_has_one_user() -> None:
    for library, users in ONLY_USERS.items():
        found = {
            path.relative_to(ROOT).as_posix()
            for package in PACKAGES
            for path in modules(package)
            for _, name in imports(path)
            if name.split(".")[0] == library
        }
        assert found <= users


def test_the_command_lines_frame_starts_light() -> None:
    """Modules that every command loads import nothing heavy at their top."""
    heavy = {"rich", "trio", "httpx", "msgspec", "cryptography", "starlette", "hypercorn", "psutil", "asyncio"}
    light = [ROOT / "node" / "caller.py", ROOT / "node" / "quantities.py", ROOT / "node" / "errors.py"]
    light += [*sorted((ROOT / "node" / "cli").rglob("*.py")), ROOT / "node" / "lab" / "record.py"]
    wrong = []
    for path in light:
        for node in ast.parse(path.read_text()).body:
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            wrong += [f"{path.relative_to(ROOT)} imports {name}" for name in names if name.split(".")[0] in heavy]
    assert not wrong
