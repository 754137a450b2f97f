"""The wheel holds exactly the four packages, with everything that belongs to them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOTS = {"scheduler", "cluster", "sim", "node"}
DATA_SUFFIXES = {".c", ".html", ".js", ".css", ".svg"}


def package_folders() -> set[str]:
    return {
        ".".join(path.parent.relative_to(ROOT).parts) for root in ROOTS for path in (ROOT / root).rglob("__init__.py")
    }


def test_every_package_is_declared() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    assert declared == package_folders()


@pytest.mark.slow
def test_the_wheel_holds_exactly_the_packages(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignore = ("--exclude=.git", "--exclude=.venv", "--exclude=*.egg-info", "--exclude=build")
    source.mkdir()
    archive = subprocess.run(["tar", "-C", str(ROOT), *ignore, "-c", "."], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-C", str(source), "-x"], input=archive, check=True)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    command = [sys.executable, "-m", "pip", "wheel", *options, "."]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == ROOTS
    wanted = {
        path.relative_to(ROOT).as_posix()
        for root in ROOTS
        for path in (ROOT / root).rglob("*")
        if path.suffix in DATA_SUFFIXES | {".py"} or path.name == "py.typed"
    }
    assert wanted <= set(names)
