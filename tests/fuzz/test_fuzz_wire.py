"""A short run of the fuzzer beside it."""

import runpy
from pathlib import Path

import pytest


@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_input_brings_out_declared_errors_only(seed: int) -> None:
    script = runpy.run_path(str(Path(__file__).with_name("fuzz_wire.py")))
    assert script["fuzz"](4000, seed) < 5
