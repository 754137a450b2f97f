"""Worlds in virtual time, from the command line: a seed says it all."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import sim.world


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


def test_ctrl_c_tells_how_many_worlds_were_tried(fofoca: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    real = sim.world.run_world

    def pressed_at_seven(seed: int, *arguments: Any, **words: Any) -> Any:
        if seed == 7:
            raise KeyboardInterrupt
        return real(seed, *arguments, **words)

    monkeypatch.setattr(sim.world, "run_world", pressed_at_seven)
    done = fofoca("sim", "world", "--nodes", "3", "--homes", "1", "--jobs", "3", "--seed", "5", "--seeds", "9")
    assert (done.code, done.out) == (130, "2 seeds from 5 on: none broke a promise\n")
    assert "interrupted; 2 of 9 seeds were tried" in done.err
