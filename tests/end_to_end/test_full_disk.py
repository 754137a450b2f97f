"""A node whose disk is filled by one of its containers: it refuses what is new, keeps what is there, and goes on."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from node.host.staging import scratch_obstacle
from node.runtime import lxc_obstacles
from tests.end_to_end.command_line import CommandLine, Ran, eventually

OBSTACLES = [*lxc_obstacles(), *([obstacle] if (obstacle := scratch_obstacle()) else [])]
pytestmark = [
    pytest.mark.xdist_group("full-disk"),
    pytest.mark.slow,
    pytest.mark.lxc,
    pytest.mark.root,
    pytest.mark.skipif(bool(OBSTACLES), reason="; ".join(OBSTACLES)),
]
SMALL = ("--image", "busybox", "--cpu", "50m", "--memory", "24M")
RESERVE_BYTES = 16 << 20
ONTO_A_SMALL_DISK = """
data=$1
truncate -s 64M "$data.disk"
mkfs.ext4 -q -F -m 0 "$data.disk"
mkdir "$data.large"
mount --bind "$data" "$data.large"
mount -o loop "$data.disk" "$data"
chmod 711 "$data"
tar -C "$data.large" --exclude=./run -c . | tar -C "$data" -x
mkdir -m 700 "$data/run"
mount --bind "$data.large/run" "$data/run"
"""
"""In the node's own mount namespace, which ends with the lab; the API's socket stays where others find it."""


class SmallNode:
    """The only node of a lab, with a data directory on a disk of 64 MiB."""

    def __init__(self, lab: CommandLine) -> None:
        self.lab = lab
        lab.ok("lab", "up", "--nodes", 1, timeout_s=120)
        folder = Path("/run") / f"fofoca-lab-{lab.lab}"
        self.log = folder / "n1.log"
        (record,) = json.loads((folder / "lab.json").read_text())["nodes"]
        self.data = Path(f"/proc/{record['keeper_pid']}/root{record['data']}")
        lab.ok("lab", "kill", "n1")
        eventually("the agent is gone", lambda: lab("nodes").code != 0)
        config = folder / "n1.toml"
        text = config.read_text()
        config.write_text(text.replace("[resources]\n", f"[resources]\nreserve_disk_bytes = {RESERVE_BYTES}\n"))
        inside = [
            "nsenter",
            "-m",
            "-t",
            str(record["keeper_pid"]),
            "sh",
            "-ec",
            ONTO_A_SMALL_DISK,
            "sh",
            record["data"],
        ]
        subprocess.run(inside, check=True, capture_output=True, timeout=30)
        self.restart()

    def restart(self) -> None:
        self.lab.ok("lab", "start", "n1")
        eventually("the agent is back", lambda: self.lab("nodes").code == 0, 60)

    def free_bytes(self) -> int:
        found = os.statvfs(self.data)
        return found.f_bavail * found.f_frsize

    def running(self, job: int) -> dict[str, Any]:
        def task() -> dict[str, Any] | None:
            found = self.lab.task(job)
            assert found["state"] in ("pending", "running"), found
            return found if found["state"] == "running" else None

        found: dict[str, Any] = eventually(f"job {job} runs", task, 60)
        return found

    def files(self) -> set[str]:
        return {str(path.relative_to(self.data)) for path in (self.data / "images").glob("*/*")}


@pytest.fixture
def node(fofoca: CommandLine) -> Iterator[SmallNode]:
    try:
        yield (small := SmallNode(fofoca))
        print(small.log.read_text()[-4000:])
    finally:
        fofoca("lab", "down")


def test_a_full_disk_stops_nothing_but_what_is_new(node: SmallNode, tmp_path: Path) -> None:
    lab, archive = node.lab, archive_of(tmp_path, 8 << 20)
    quiet = lab.submit(*SMALL, "--", "sh", "-c", "echo begun; while ! [ -e /go ]; do sleep 0.1; done; echo over")
    node.running(quiet)
    images = node.files()
    hog = lab.submit(
        *SMALL, "--", "sh", "-c", "cat /dev/zero >/fill; while cat /dev/zero >>/fill; do :; done; sleep 999"
    )
    node.running(hog)
    eventually("the disk is full", lambda: node.free_bytes() < 1 << 20, 60)

    refused(lab("submit", *SMALL, "--", "true"))
    refused(lab("image", "import", "large", archive))
    assert node.files() == images
    lab.ok("exec", quiet, "--", "true")
    lab.ok("lab", "kill", "n1")
    node.restart()
    assert node.running(quiet)["attempt"] == 1
    refused(lab("submit", *SMALL, "--", "true"))

    lab.ok("cancel", hog)
    eventually("its space is free", lambda: node.free_bytes() > RESERVE_BYTES, 60)
    again = eventually("new work is taken", lambda: accepted(lab("submit", *SMALL, "--", "true")), 60)
    lab.ok("wait", again, "--timeout", "60s")
    lab.ok("image", "import", "large", archive)
    lab.ok("exec", quiet, "--", "touch", "/go")
    lab.ok("wait", quiet, "--timeout", "60s")
    assert lab.task(quiet)["attempt"] == 1
    assert lab.ok("logs", quiet).out == "begun\nover\n"


def archive_of(folder: Path, size_bytes: int) -> Path:
    (folder / "large").write_bytes(os.urandom(size_bytes))
    with tarfile.open(folder / "large.tar", "w") as tar:
        tar.add(folder / "large", "large")
    return folder / "large.tar"


def refused(ran: Ran) -> None:
    assert ran.code != 0
    assert "disk of this node" in ran.err, ran.err


def accepted(ran: Ran) -> int | None:
    with suppress(ValueError):
        return int(ran.out)
    return None
