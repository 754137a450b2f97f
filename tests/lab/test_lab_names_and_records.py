"""What a lab leaves on the machine has names known beforehand, and its record tells a keeper from a stranger."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from node.errors import InvalidValue
from node.lab import configuration, keeper, layout, leftovers, record
from node.lab.configuration import Endpoint, NodeShape
from node.lab.record import Lab, LabNode


@pytest.fixture(autouse=True)
def own_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(layout, "is_root", lambda: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FOFOCA_LAB", raising=False)


def node(name: str = "n1", **changes: object) -> LabNode:
    known = {"name": name, "number": 1, "host": "127.0.0.1", "api_port": 1, "gossip_port": 2, "api_socket": "/s"}
    return LabNode(**{**known, "data": "/d", "config": "/c", "log": "/l", "netns": "", **changes})  # type: ignore[arg-type]


def test_a_lab_knows_its_own_namespaces_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [name for name in ("fofoca-n1", "fofoca-fab", "fofoca-n12", "fofoca-nx", "fofoca-t-n1", "n1", "fofoca-")
            if layout.is_namespace(name)] == ["fofoca-n1", "fofoca-fab", "fofoca-n12"]  # fmt: skip
    monkeypatch.setenv("FOFOCA_LAB", "t")
    assert layout.is_namespace("fofoca-t-n1")
    assert not layout.is_namespace("fofoca-n1")
    assert not layout.is_namespace("fofoca-tt-n1")


@pytest.mark.parametrize("name", ["../x", "A", "1a", "a" * 13, "a-b", "a/b"])
def test_a_labs_name_is_no_path(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("FOFOCA_LAB", name)
    with pytest.raises(InvalidValue, match="FOFOCA_LAB"):
        layout.state_folder()


def test_a_home_too_deep_for_a_socket_is_left_for_a_shorter_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/" + "x" * 100)
    longest = layout.data_folder() / "n200" / "run" / "api.sock"
    assert len(os.fsencode(longest)) <= layout.SOCKET_PATH_BYTES_MAX


def test_a_record_comes_back_as_it_was_and_is_nobody_elses() -> None:
    lab = Lab(runtime="lxc", isolated=True, token="secret", nodes=(node("n1"), node("n2")), owner_uid=0)
    record.store(lab)
    assert record.load() == lab
    assert record.path().stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nodes": 3}', '{"nodes": [], "unknown": 1}'])
def test_a_damaged_record_is_no_lab(text: str) -> None:
    record.path().parent.mkdir(parents=True)
    record.path().write_text(text)
    assert record.load() is None


def test_a_process_with_a_keepers_number_is_no_keeper() -> None:
    me = os.getpid()
    assert record.is_on(node(keeper_pid=me, keeper_start_ticks=record.start_ticks(me)))
    assert not record.is_on(node(keeper_pid=me, keeper_start_ticks=1))
    assert not record.is_on(node())


def test_an_agents_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LOG_BYTES_MAX", 100)
    log = keeper.BoundedLog(tmp_path / "n1.log")
    for number in range(100):
        log.write(b"line %03d\n" % number)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["n1.log", "n1.log.1"]
    assert all(file.stat().st_size <= 100 for file in files)
    assert files[0].read_bytes().endswith(b"line 099\n")


def test_an_agents_configuration_is_one_the_agent_takes(tmp_path: Path) -> None:
    from node import config
    from node.keys import create_key

    key = tmp_path / "key"
    create_key(key)
    one = node(
        config=str(tmp_path / "n1.toml"),
        data=str(tmp_path / "n1"),
        api_socket=str(tmp_path / "n1" / "run" / "api.sock"),
    )
    places = [Endpoint("127.0.0.1", 1000 + number, 2000 + number, 3000 + number) for number in range(5)]
    configuration.write(one, places[0], places, NodeShape(1500, 1 << 28, 2.0, 1.5), "process", key)
    read = config.load(Path(one.config))
    assert (read.node_name, read.node.number) == ("n1", 1)
    assert (read.door.listen, read.door.front_ends) == ("127.0.0.1:3000", ("127.0.0.0/8",))
    assert read.cluster.seeds == ("127.0.0.1:2001", "127.0.0.1:2002", "127.0.0.1:2003")
    assert (read.resources.cpu_milli, read.resources.overcommit_cpu, read.resources.overcommit_memory) == (
        1500,
        2.0,
        1.5,
    )
    assert read.runtime.cgroup_root == "fofoca-lab/n1"


def test_nothing_remains_where_nothing_was() -> None:
    assert list(leftovers.remains()) == []
