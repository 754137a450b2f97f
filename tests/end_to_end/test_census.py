"""Whatever befalls containers, supervisors and the agent, nothing of them is left (tools/census: the same with 500)."""

from __future__ import annotations

import random
import shutil

import pytest

from node.runtime import lxc_obstacles
from tests.end_to_end.census import census
from tests.end_to_end.command_line import CommandLine

MISSING = [*lxc_obstacles(), *([] if shutil.which("busybox") else ["no busybox"])]


@pytest.mark.xdist_group("census")
@pytest.mark.slow
@pytest.mark.lxc
@pytest.mark.root
@pytest.mark.skipif(bool(MISSING), reason="; ".join(MISSING))
def test_of_thirty_containers_and_their_agents_deaths_a_census_finds_nothing(fofoca: CommandLine) -> None:
    seed = random.randrange(1 << 32)
    try:
        assert census(fofoca, 30, 30, seed) == [], f"seed {seed}"
    finally:
        fofoca("lab", "down")
