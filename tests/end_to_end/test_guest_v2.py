"""The same limits on pure cgroup v2, in an emulated machine: what this host's own kernel interface can't show."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("FOFOCA_GUEST_CACHE") or Path.home() / ".cache/fofoca/guest-v2")
SHORT = ("tests/end_to_end/test_lxc_limits.py", "tests/end_to_end/test_lxc_further_limits.py")
REST = (
    "tests/contract/test_runtime_contract.py",
    "tests/end_to_end/test_lxc_entering.py",
    "tests/end_to_end/test_lxc_escapes.py",
    "tests/end_to_end/test_lxc_files.py",
    "tests/end_to_end/test_lxc_images.py",
    "tests/end_to_end/test_lxc_isolation.py",
    "tests/end_to_end/test_lxc_opening.py",
    "tests/end_to_end/test_resolver_forwards.py",
    "tests/host/test_network_rules.py",
    "-k",
    "not process and not twin",
)
"""Plain processes and the supervisor's twin in Python know nothing of control groups, and are slow there."""
LABS = (
    "tests/end_to_end/test_network.py",
    "tests/end_to_end/test_network_options.py",
    "tests/end_to_end/test_update_limits.py",
    "tests/end_to_end/test_files_of_jobs.py",
    "tests/end_to_end/test_inside_tasks.py",
    "-k",
    "not process",
)
"""Whole agents, with containers and networks."""
DEATHS = (
    "tests/end_to_end/test_host_restart.py",
    "tests/end_to_end/test_full_disk.py",
    "tests/end_to_end/test_census.py",
    "tests/end_to_end/test_supervisor_and_agents_death.py",
    "tests/end_to_end/test_image_life.py",
    "-k",
    "not process",
)
"""Whole agents that are killed, and what is left then."""
TIMEOUT_S = 2000
ALL = os.environ.get("FOFOCA_GUEST_ALL")

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.xdist_group("guest"),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64 (make test-guest)"),
    pytest.mark.skipif(not (CACHE / "root").is_dir(), reason=f"no machine in {CACHE} (make test-guest)"),
]


def test_the_limits_of_containers_hold_on_pure_v2() -> None:
    in_guest(SHORT)


@pytest.mark.skipif(not ALL, reason="takes ten minutes (make test-guest)")
def test_labs_of_agents_run_on_pure_v2() -> None:
    in_guest(LABS)


@pytest.mark.skipif(not ALL, reason="takes ten minutes (make test-guest)")
def test_agents_and_hosts_may_die_on_pure_v2() -> None:
    in_guest(DEATHS)


@pytest.mark.skipif(not ALL, reason="takes ten minutes (make test-guest)")
def test_all_else_that_containers_promise_holds_on_pure_v2() -> None:
    in_guest(REST)


def in_guest(tests: tuple[str, ...]) -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    command = [str(ROOT / "tools" / "guest-v2"), "run", *tests]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False)
    print(done.stdout[-8000:])
    assert done.returncode == 0, done.stderr
