"""Small functions, small files, a header on every module, nothing left for later."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for package in ("scheduler", "cluster", "sim", "node") for path in (ROOT / package).rglob("*.py"))
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 650
LATER = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX|Not" + r"ImplementedError)\b")


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_function_is_longer_than_a_screen() -> None:
    wrong = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    wrong.append(f"{named(path)}:{node.lineno} {node.name}: {lines} lines")
    assert not wrong


def test_no_file_is_a_warehouse() -> None:
    lengths = {named(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: count for name, count in lengths.items() if count > FILE_LINES_MAX} == {}


def test_every_module_says_what_it_owns() -> None:
    wrong = [
        named(path)
        for path in SOURCES
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not wrong


def test_nothing_is_left_for_later() -> None:
    wrong = [
        f"{named(path)}:{number}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if LATER.search(line)
    ]
    assert not wrong


def test_tests_have_unique_names_and_no_packages() -> None:
    files = sorted((ROOT / "tests").rglob("*.py"))
    assert not [named(path) for path in files if path.name == "__init__.py"]


@pytest.mark.parametrize("folder", ["requirements", "docs", "tools", ".ci", "Makefile", "README.md", "pyproject.toml"])
def test_no_file_names_a_registrys_host(folder: str) -> None:
    hosts = re.compile(r"(py" + r"pi\.org|python" + r"hosted\.org|--(extra-)?index" + r"-url|--trusted" + r"-host)")
    paths = [ROOT / folder] if (ROOT / folder).is_file() else sorted((ROOT / folder).rglob("*"))
    for path in paths:
        if path.is_file() and path.suffix not in (".svg", ".png"):
            found = hosts.search(path.read_text())
            assert found is None or path.name == "pin-requirements", f"{named(path)}: {found}"


def test_every_requirement_is_pinned_with_a_hash() -> None:
    for name in ("run.txt", "development.txt"):
        text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
        pins = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        assert pins
        assert [pin for pin in pins if "==" not in pin or "--hash=sha256:" not in pin] == []


def test_the_development_pins_are_the_run_pins_and_more() -> None:
    def pins(name: str) -> set[str]:
        text = (ROOT / "requirements" / name).read_text()
        return set(re.findall(r"^([a-z0-9._-]+==\S+)", text, re.MULTILINE | re.IGNORECASE))

    assert pins("run.txt") <= pins("development.txt")


def test_only_the_declared_packages_are_at_the_top() -> None:
    """What git tracks at the top is what we mean to ship; nothing else is importable by accident."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    if not tracked:
        pytest.skip("not a git checkout")
    tops = {name.split("/")[0] for name in tracked if name.endswith(".py")}
    assert tops <= {"scheduler", "cluster", "sim", "node", "tests", "benchmarks", "docs", "tools"}
