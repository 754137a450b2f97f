"""Worlds in virtual time, from the command line: a seed says it all."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def test_the_same_seed_gives_the_same_gossip_byte_for_byte(fofoca: Callable[..., Any]) -> None:
    words = ["sim", "gossip", "--nodes", "8", "--duration", "20", "--seed", "7", "--json"]
    first, second = fofoca(*words), fofoca(*words)
    assert first == second
    assert json.loads(first.out)["nodes"] == 8
    assert "8 nodes, seed 7" in fofoca(*words[:-1]).out


def test_a_world_that_keeps_the_promises_ends_well(fofoca: Callable[..., Any]) -> None:
    one = fofoca("sim", "world", "--nodes", "4", "--homes", "2", "--seed", "3")
    assert one.code == 0
    assert "seed 3: 4 nodes, 2 homes" in one.out
    assert one == fofoca("sim", "world", "--nodes", "4", "--homes", "2", "--seed", "3")
    assert fofoca("sim", "world", "--nodes", "3", "--seeds", "2").out == "2 seeds from 1 on: none broke a promise\n"


def test_what_no_cluster_can_have_is_one_line(fofoca: Callable[..., Any]) -> None:
    for words in (["gossip", "--nodes", "1"], ["gossip", "--loss", "2"], ["world", "--nodes", "0"]):
        result = fofoca("sim", *words)
        assert result.code == 2
        assert result.err.startswith("fofoca: ")
