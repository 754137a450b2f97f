"""A host that restarted: nothing that ran is taken for running, nothing is run twice unasked, nothing is left of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from node.host import cgroups
from node.host.boot import boot_id
from node.host.staging import scratch_obstacle
from node.runtime import lxc_obstacles
from node.runtime.spares import PREFIX
from tests.end_to_end.command_line import CommandLine, eventually

pytestmark = [
    pytest.mark.xdist_group("host-restart"),
    pytest.mark.slow,
    pytest.mark.lxc,
    pytest.mark.root,
    pytest.mark.skipif(bool(lxc_obstacles()), reason="; ".join(lxc_obstacles())),
]
SMALL = ("--image", "busybox", "--cpu", "50m", "--memory", "24M")
SLEEP = ("--", "sleep", "1000")


@pytest.fixture
def data(fofoca: CommandLine) -> Iterator[Path]:
    """The data directory of the only node of a lab."""
    fofoca.ok("lab", "up", "--nodes", 1, timeout_s=60)
    yield Path("/var/lib") / f"fofoca-lab-{fofoca.lab}" / "n1"
    fofoca("lab", "down")


def task_when(fofoca: CommandLine, job: int, state: str, attempt: int = 1) -> dict[str, Any]:
    def there() -> dict[str, Any] | None:
        with suppress(AssertionError):  # a node that is being switched on does not answer yet
            task = fofoca.task(job)
            return task if (task["state"], task["attempt"]) == (state, attempt) else None
        return None

    found: dict[str, Any] = eventually(f"attempt {attempt} of job {job} is {state}", there, 60)
    return found


def test_what_ran_has_ended_services_start_again_and_nothing_is_left(fofoca: CommandLine, data: Path) -> None:
    scratch = () if scratch_obstacle() else ("--scratch", "8M")
    service = fofoca.submit(*SMALL, *scratch, "--kind", "service", *SLEEP)
    once = fofoca.submit(*SMALL, "--attempts", 1, *SLEEP)
    never_twice = fofoca.submit(*SMALL, "--on-lost", "fail", *SLEEP)
    twice = fofoca.submit(*SMALL, "--attempts", 2, *SLEEP)
    done = fofoca.submit(*SMALL, "--", "sh", "-c", "exit 3")
    jobs = (service, once, never_twice, twice)
    for job in jobs:
        task_when(fofoca, job, "running")
    task_when(fofoca, done, "failed")
    eventually("this boot is known", (data / "boot").exists)

    fofoca.ok("lab", "kill", "n1", "--host")
    shutil.rmtree(data / "containers" / f"{never_twice}.0.1")  # a power loss takes what was not synced
    for name in ("running", "supervisor"):
        (data / "containers" / f"{once}.0.1" / name).unlink()
    in_another_boot(data)
    fofoca.ok("lab", "start", "n1")

    for job in (service, twice):
        task_when(fofoca, job, "running", attempt=2)
    for job in (once, never_twice):
        assert "the host was restarted" in task_when(fofoca, job, "failed")["reason"]
    assert fofoca.task(done)["exit_code"] == 3
    eventually("this boot is known", lambda: (data / "boot").read_text() == boot_id() + "\n")
    running = {f"{service}.0.2", f"{twice}.0.2"}
    eventually("the former boot's containers are gone", lambda: left_of(fofoca, data) == running)

    for job in (service, twice):
        fofoca.ok("cancel", job)
    eventually("nothing is left", lambda: left_of(fofoca, data) == set())


def in_another_boot(data: Path) -> None:
    """A lab's hosts share the machine's kernel: what they wrote is made to be of a boot before this one."""
    for path in (data / "boot", *data.glob("containers/*/supervisor")):
        path.write_text(path.read_text().replace(boot_id(), "0a6c1f6e-8c5e-4d2b-9b1f-3c9a7d0e5f11"))


def left_of(fofoca: CommandLine, data: Path) -> set[str]:
    """Names of containers of which there is a file, a control group, a mount's place or a record of addresses."""
    found = {entry.name for entry in (data / "containers").iterdir() if not entry.name.startswith(PREFIX)}
    found |= {entry.name for entry in (data / "staging").glob("*")}
    found |= {entry.stem for entry in (data / "network").glob("*.json")}
    found |= {entry.name for entry in (data / "secrets").glob("*")}
    for hierarchy in cgroups.detect().hierarchies:
        with suppress(FileNotFoundError):
            folder = hierarchy.mount / f"fofoca-lab-{fofoca.lab}" / "n1"
            found |= {name for name in os.listdir(folder) if (folder / name).is_dir() and not name.startswith("_")}
    return found
