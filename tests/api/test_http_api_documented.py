"""docs/http-api.md speaks of every path, field and problem there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from node.api import problems
from node.api.app import ROUTES, RPC_PATH
from node.api.schemas import JobBody
from node.api.server import LOCAL_CONNECTIONS_MAX
from scheduler.spec.part import Part

TEXT = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text()
JOB_PAGE = (Path(__file__).parents[2] / "docs" / "job.md").read_text()
PARTS = sorted(Part.__subclasses__(), key=lambda part: part.__name__)


def test_every_path_and_method_has_its_heading():
    headings = set(re.findall(r"^### (.*)$", TEXT, re.MULTILINE))
    names = {"{reference:path}": "NAME[:TAG]"}
    names |= {f"{{{name}}}": name.upper() for name in ("id", "name", "session", "kind", "key")}
    expected = {f"POST {RPC_PATH}"}
    for path, handlers in ROUTES.items():
        for placeholder, name in names.items():
            path = path.replace(placeholder, name)
        expected |= {f"{method} {path}" for method in handlers}
    assert headings == expected


def test_every_field_of_a_submission_is_in_the_table_with_its_default():
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", TEXT, re.MULTILINE))
    body = JobBody(argv=["x"])
    assert set(JobBody.__struct_fields__) <= set(rows)
    for name in ("cpu_milli", "memory_bytes", "priority", "attempts_max", "pids_max"):
        assert int(rows[name]) == getattr(body, name), name
    for name in ("name", "kind", "on_lost", "network"):
        assert rows[name].strip("`") == getattr(body, name), name


@pytest.mark.parametrize("part", PARTS)
def test_every_field_of_a_part_is_in_its_table(part: type[Part]):
    section = re.search(rf"^## {part.__name__.lower()}$(.*?)(?=^## |\Z)", JOB_PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None
    rows = set(re.findall(r"^\| `(\w+)` \| [^|]* \|", section[1], re.MULTILINE))
    assert set(part.__struct_fields__) <= rows


def test_every_problem_is_in_the_table():
    kinds = {(str(status), name) for _, status, name, _ in problems._KINDS}
    rows = re.findall(r"^\| (\d{3}) \| ([^|]*) \|", TEXT, re.MULTILINE)
    documented = {(status, name) for status, names in rows for name in re.findall(r"`([^`]*)`", names)}
    assert documented == kinds | {("401", "bad-seal"), ("500", "internal")}


def test_bounds_are_as_documented():
    assert f"{LOCAL_CONNECTIONS_MAX} more on the unix socket" in TEXT
