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
SUITE = ("tests/end_to_end/test_lxc_limits.py", "tests/end_to_end/test_lxc_further_limits.py")
TIMEOUT_S = 1200


@pytest.mark.guest
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64 (qemu-system-x86)")
@pytest.mark.skipif(not (CACHE / "root").is_dir(), reason=f"no machine in {CACHE}; make one by tools/guest-v2 build")
def test_the_limits_of_containers_hold_on_pure_v2() -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    command = [str(ROOT / "tools" / "guest-v2"), "run", *SUITE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
