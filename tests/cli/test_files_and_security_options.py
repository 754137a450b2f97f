"""What the options of files and confinement become, and what a mistake in one is told."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from node.cli.failures import Failure
from node.cli.options import files, security

NOTHING = {"volumes": (), "tmpfs": (), "scratch": None, "secrets": (), "read_only_root": None, "root_size": None}


def body(**options: Any) -> dict[str, Any]:
    return files.body({**NOTHING, **options})


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("homes:shimoo/home:/home/shimoo", {"name": "homes", "folder": "shimoo/home", "target": "/home/shimoo"}),
        ("homes/shimoo/home:/home/shimoo", {"name": "homes", "folder": "shimoo/home", "target": "/home/shimoo"}),
        ("data:/data:ro", {"name": "data", "target": "/data", "read_only": True}),
        ("data:in:/data:ro", {"name": "data", "folder": "in", "target": "/data", "read_only": True}),
        ("data:/data:rw", {"name": "data", "target": "/data"}),
    ],
)
def test_a_volume_is_written_as_it_is_read(text: str, volume: dict[str, Any]) -> None:
    assert body(volumes=(text,)) == {"volumes": [volume]}


def test_sizes_take_units_and_targets_have_defaults() -> None:
    assert body(tmpfs=("/run:16M",)) == {"tmpfs": [{"target": "/run", "size_bytes": 16 << 20}]}
    assert body(scratch="1G") == {"scratch": {"size_bytes": 1 << 30}}
    assert body(root_size="64M") == {"root_bytes": 64 << 20}
    assert body(scratch="1G:/work") == {"scratch": {"size_bytes": 1 << 30, "target": "/work"}}
    assert body(read_only_root=True) == {"read_only_root": True}
    assert body() == {}


def test_secrets_come_from_files_variables_and_stdin_never_from_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_bytes(b"\0binary\xff")
    monkeypatch.setenv("TOKEN_OF_MINE", "hunter2")
    found = body(secrets=(f"key=@{tmp_path}/key", "token=$TOKEN_OF_MINE"))["secrets"]
    assert [(each["name"], base64.b64decode(each["content"])) for each in found] == [
        ("key", b"\0binary\xff"),
        ("token", b"hunter2"),
    ]
    with pytest.raises(Failure, match="expected NAME=@FILE") as refused:
        body(secrets=("key=hunter2",))
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"volumes": ("homes",)}, "volume"),
        ({"volumes": ("a:b:c:d",)}, "volume"),
        ({"tmpfs": ("/run",)}, "tmpfs"),
        ({"secrets": ("key=@/not/there",)}, "No such file"),
        ({"secrets": ("key=$NOT_SET_ANYWHERE",)}, "no variable NOT_SET_ANYWHERE"),
        ({"secrets": ("=@x",)}, "secret"),
    ],
)
def test_a_mistake_is_told_by_its_option(options: dict[str, Any], why: str) -> None:
    with pytest.raises(Failure, match=why):
        body(**options)


def test_what_was_not_asked_of_confinement_is_left_out() -> None:
    nothing: dict[str, Any] = {"seccomp": None, "capabilities_add": (), "capabilities_drop": (), "masked_paths": ()}
    assert security.body(nothing) == {}
    asked = {**nothing, "seccomp": "strict", "capabilities_drop": ("all",)}
    assert security.body(asked) == {"seccomp": "strict", "capabilities_drop": ["all"]}


def test_the_check_of_a_host_is_for_people_and_for_programs(fofoca: Callable[..., Any]) -> None:
    shown, told = fofoca("node", "check", "--all"), fofoca("node", "check", "--json")
    findings = json.loads(told.out)
    assert {"name", "severity", "found", "meaning", "fix"} == set(findings[0])
    assert all(each["name"] in shown.out for each in findings)
    errors = any(each["severity"] == "error" for each in findings)
    assert (shown.code, told.code) == ((1, 1) if errors else (0, 0))
