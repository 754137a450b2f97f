"""Limits of a spec: what no cluster could take is refused by field, and nodes that lack what is asked are avoided."""

from __future__ import annotations

import pytest

from scheduler.abilities import describe, requirements
from scheduler.errors import InvalidSpec
from scheduler.fit import unmet
from scheduler.model import JobSpec, Resources
from scheduler.spec.limits import HugePages, Limits, check

PLAIN = {"limits": "cpuset,hugetlb-2MB"}
TWO_CORES = {**PLAIN, "max.core": "1", "max.memory-node": "0"}


def asking(limits: Limits) -> JobSpec:
    return JobSpec("a", ("true",), Resources(1, 1), limits=limits)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(cores="0,2-3"), "it has no core 3"),
        (Limits(memory_nodes="1"), "it has no memory node 1"),
    ],
)
def test_a_node_without_the_cores_or_memory_nodes_asked_for_is_avoided(limits: Limits, said: str) -> None:
    asked = requirements(asking(limits))
    lacking = unmet(asked, TWO_CORES)
    assert lacking is not None
    assert describe(lacking) == said
    assert unmet(requirements(asking(Limits(cores="0-1", memory_nodes="0"))), TWO_CORES) is None
    assert unmet(asked, PLAIN) is None, "a node that does not say how many it has finds out at the start"


@pytest.mark.parametrize("size_bytes", [-1, 3 << 20, (2 << 20) + 1, 1 << 62])
def test_huge_pages_come_whole(size_bytes: int) -> None:
    check(Limits(huge_pages=(HugePages(page="2MB", bytes=4 << 20),)))
    with pytest.raises(InvalidSpec, match=r"limits\.huge_pages\.bytes"):
        check(Limits(huge_pages=(HugePages(page="2MB", bytes=size_bytes),)))
