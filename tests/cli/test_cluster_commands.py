"""nodes, members, images: what people see."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

NODE = {
    "name": "n1", "number": 1, "state": "alive", "capacity": {"cpu_milli": 4000, "memory_bytes": 4 << 30},
    "allocatable": {"cpu_milli": 4000, "memory_bytes": 4 << 30}, "used": {"cpu_milli": 33, "memory_bytes": 64 << 20},
    "committed": {"cpu_milli": 1000, "memory_bytes": 1 << 30}, "containers": 3, "leader": True, "accepting": False,
    "labels": {"disk": "ssd", "gpu": ""},
}  # fmt: skip
MEMBER = {
    "name": "n2", "host": "10.0.0.2", "port": 7946, "state": "suspect", "incarnation": 4,
    "boot_epoch": 9, "since_s": 130.5,
}  # fmt: skip


def test_nodes_show_how_full_they_are(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("GET", "/v1/nodes", [NODE])
    row = fofoca("nodes").out.splitlines()[1]
    for word in ("n1", "alive", "1/4", "1G/4G", "██▌·······", "33m", "64M", "queue leader, cordoned, disk=ssd, gpu"):
        assert word in row
    assert json.loads(fofoca("nodes", "--json").out) == [NODE]


def test_what_nodes_can_do_is_told_apart_from_what_their_operator_gave(fofoca: Callable[..., Any], agent: Any) -> None:
    labels = {"disk": "ssd", "limits": "rlimits,swap", "max.mtu": "1500", "network": "ipv6", "kernel": "6.1"}
    agent.prepare("GET", "/v1/nodes", [{**NODE, "labels": labels}, {**NODE, "name": "n2", "labels": labels}])
    (_, row, _) = fofoca("nodes").out.splitlines()
    assert row.endswith("queue leader, cordoned, disk=ssd")
    agent.prepare("GET", "/v1/nodes", [{**NODE, "labels": labels}, {**NODE, "name": "n2", "labels": labels}])
    rows = [line.split() for line in fofoca("nodes", "--labels").out.splitlines()[1:]]
    assert rows == [[label, value, "n1,n2"] for label, value in sorted(labels.items())]


def test_members_show_who_is_where_and_since_when(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("GET", "/v1/members", [MEMBER, {**MEMBER, "name": "n1"}])
    lines = fofoca("members").out.splitlines()
    assert [line.split()[0] for line in lines] == ["NODE", "n1", "n2"]
    assert lines[2].split() == ["n2", "10.0.0.2:7946", "suspect", "2m", "4", "9"]


def test_a_directory_is_imported_as_a_tar(fofoca: Callable[..., Any], agent: Any, tmp_path: Any) -> None:
    (tmp_path / "bin").mkdir()
    stored = {"name": "x", "tag": "1", "digest": "sha256:b", "size_bytes": 10}
    agent.prepare("PUT", "/v1/images/x:1", stored)
    assert fofoca("image", "import", "x:1", str(tmp_path)).out == "x:1  sha256:b  10\n"
    assert agent.asked[0][2][257:262] == b"ustar"


def test_an_export_appears_whole_or_not_at_all(fofoca: Callable[..., Any], agent: Any, tmp_path: Any) -> None:
    out = tmp_path / "x.tar"
    assert fofoca("image", "export", "x", "-o", str(out)).code == 2
    assert list(tmp_path.iterdir()) == []
