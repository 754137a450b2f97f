"""`fofoca keys`: what goes out, what people see, and who is named."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

from node.keys import create_key, read_keys

HOLDS = {"name": "n1", "seals": "3fa9", "ids": ["3fa9", "77c0"], "why": ""}
DOWN: dict[str, Any] = {"name": "n3", "seals": None, "ids": [], "why": "not asked: it is down"}
ANSWER = {"id": "3fa9", "version": 3, "nodes": [HOLDS], "lacking": []}


def test_a_new_key_prints_its_id_alone(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("POST", "/v1/keys", ANSWER)
    assert fofoca("keys", "add", "--new").out == "3fa9\n"
    assert agent.asked == [("POST", "/v1/keys", {"add": "new"})]


def test_a_key_file_is_sent_and_never_shown(fofoca: Callable[..., Any], agent: Any, tmp_path: Path) -> None:
    create_key(tmp_path / "key")
    text = base64.b64encode(read_keys(tmp_path / "key").primary).decode()
    agent.prepare("POST", "/v1/keys", ANSWER)
    result = fofoca("keys", "add", str(tmp_path / "key"))
    assert agent.asked[0][2] == {"add": text}
    assert text not in result.out + result.err


def test_add_wants_one_of_file_and_new(fofoca: Callable[..., Any], agent: Any) -> None:
    for words in ((), ("key", "--new")):
        result = fofoca("keys", "add", *words)
        assert (result.code, result.err) == (2, "fofoca: give one of FILE and --new\n")
    assert agent.asked == []


def test_nodes_an_order_did_not_reach_are_named(fofoca: Callable[..., Any], agent: Any) -> None:
    silent = {**DOWN, "name": "n2", "why": "no answer"}
    agent.prepare("POST", "/v1/keys", {**ANSWER, "nodes": [HOLDS, silent, DOWN], "lacking": ["n2"]})
    result = fofoca("keys", "remove", "77c0")
    assert result.code == 1
    assert result.err.splitlines() == [
        "fofoca: n3 was not asked: it is down",
        "fofoca: done, but not on n2; give the order again",
    ]


def test_the_list_shows_ids_by_node(fofoca: Callable[..., Any], agent: Any) -> None:
    agent.prepare("GET", "/v1/keys", {**ANSWER, "nodes": [HOLDS, DOWN]})
    lines = fofoca("keys", "list").out.splitlines()
    assert lines[1].split() == ["n1", "3fa9", "77c0"]
    assert lines[2].split(maxsplit=1) == ["n3", "not asked: it is down"]
