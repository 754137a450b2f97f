"""A real lab for a module of tests. Nothing is left behind, also on failure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.agents import Agents
from tests.end_to_end.command_line import CommandLine, remains_of

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real machines are noisy: a test on real parts that fails is run once more, and listed as rerun either way. The
    emulated machine takes minutes, and runs its own again in there."""
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("guest") is None:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """With a failure goes what each agent saw and said: it may come once in a hundred runs, and elsewhere."""
    report = yield
    agents = getattr(item, "funcargs", {}).get("agents")
    if report.failed and report.when == "call" and isinstance(agents, Agents):
        report.sections.append(("the agents", agents.describe()))
    return report


@pytest.fixture(scope="module")
def lab_name() -> Iterator[str]:
    """A name no other test and no user has; whatever is there under it at the end is removed."""
    name = "t" + os.environ.get("PYTEST_XDIST_WORKER", "main") + str(os.getpid() % 10_000)
    yield name
    CommandLine(name)("lab", "down")
    assert remains_of(name) == []


@pytest.fixture(scope="module")
def fofoca(lab_name: str) -> CommandLine:
    return CommandLine(lab_name)
