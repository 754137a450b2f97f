"""What tests of several folders share: how Hypothesis draws, an image, and supervisors of each kind."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, settings

from node.runtime import lxc_obstacles, supervisor
from node.runtime.lxc.lxc import LxcRuntime

# "same" draws the same examples on every machine, so that a run fails for what changed, not by chance; "search" draws
# others each time (`--hypothesis-profile=search`, with `--hypothesis-seed=N` the same ones again). Neither looks at a
# clock, which on a shared machine measures the neighbours; a failure prints what reproduces it.
settings.register_profile(
    "same",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("search", settings.get_profile("same"), derandomize=False)
settings.load_profile("same")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show why a test was run once more, too: what passes the second time is still a fault somewhere."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"run once more: {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)
        for title, text in report.sections:
            terminalreporter.write_line(f"--- {title}\n{text}")


# fmt: off
APPLETS = (
    "sh", "cat", "chmod", "dd", "echo", "env", "false", "grep", "head", "id", "ip", "kill", "ls", "mkdir", "mknod",
    "mount", "nc", "ping", "ps", "sleep", "true", "umount", "unshare", "wget", "wc", "yes",
)
# fmt: on


@pytest.fixture(scope="session")
def busybox_image() -> Iterator[Path]:
    """A root file system of busybox alone, in a directory that the mapped users of a container may pass."""
    top = Path(tempfile.mkdtemp(prefix="fofoca-image."))
    top.chmod(0o711)
    for name in ("bin", "dev", "proc", "sys", "tmp", "etc"):
        (top / name).mkdir()
    busybox = shutil.which("busybox")
    if busybox:
        shutil.copy(busybox, top / "bin/busybox")
        for applet in APPLETS:
            (top / "bin" / applet).symlink_to("busybox")
    yield top
    shutil.rmtree(top)


@pytest.fixture(scope="session")
def supervisors() -> Iterator[dict[str, tuple[str, ...]]]:
    """The command of each kind of supervisor: "compiled" (the twin again where no compiler is) and "twin"."""
    cache = Path(tempfile.mkdtemp(prefix="fofoca-bin."))
    cache.chmod(0o711)
    yield {
        "compiled": supervisor.build(cache),
        "twin": (sys.executable, "-I", "-S", str(supervisor.TWIN)),
    }
    shutil.rmtree(cache)


@pytest.fixture
async def lxc_runtime(supervisors: dict[str, tuple[str, ...]]) -> AsyncIterator[LxcRuntime]:
    """LXC with a directory and a control group of its own. Skips where LXC cannot run."""
    obstacles = lxc_obstacles()
    if obstacles or shutil.which("busybox") is None:
        pytest.skip("; ".join(obstacles) or "no busybox")
    root = Path(tempfile.mkdtemp(prefix="fofoca-lxc."))
    root.chmod(0o711)
    runtime = LxcRuntime(root, supervisors["compiled"], f"fofoca-test-{os.getpid()}/{root.name[-8:]}")
    try:
        yield runtime
    finally:
        with trio.CancelScope(shield=True):
            await runtime.purge()
        shutil.rmtree(root)
