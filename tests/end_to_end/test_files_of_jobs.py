"""Volumes, secrets and choices of confinement from the command line to the container, on a real node of LXC."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.host.busybox import build_busybox_rootfs
from tests.end_to_end.command_line import CommandLine, eventually

pytestmark = [pytest.mark.xdist_group("files"), pytest.mark.slow, pytest.mark.lxc, pytest.mark.root]

SMALL = ("--cpu", "100m", "--memory", "32M", "--image", "box")
SECRET = "a word that is nowhere else 7391"


@pytest.fixture(scope="module")
def homes() -> Iterator[Path]:
    top = Path(tempfile.mkdtemp(prefix="fofoca-homes."))
    yield top
    shutil.rmtree(top)


@pytest.fixture(scope="module", autouse=True)
def lab(fofoca: CommandLine, homes: Path) -> dict[str, Any]:
    """One node, restarted with what its operator allows."""
    fofoca.ok("lab", "up", "--nodes", 1)
    status: dict[str, Any] = fofoca.ok("lab", "status", "--json").json
    if status["runtime"] != "lxc":
        pytest.skip("needs LXC, which needs root")
    profiles = homes / "profiles"
    profiles.mkdir()
    (profiles / "nomkdir.seccomp").write_text("2\ndenylist\n[all]\nmkdir errno 1\nmkdirat errno 1\n")
    config = Path(f"/run/fofoca-lab-{fofoca.lab}/n1.toml")
    others = [line for line in config.read_text().splitlines() if not line.startswith("homes = ")]
    volumes = [f'homes = "{homes}:rw,create,by-owner"', f'data = "{homes}"']
    others.insert(others.index("[files.volumes]") + 1, "\n".join(volumes))
    confinement = ["[security]", f'seccomp_directory = "{profiles}"', 'capabilities = ["net_raw"]']
    config.write_text("\n".join([*others, *confinement, ""]))
    restart(fofoca)
    rootfs = homes / "rootfs"
    build_busybox_rootfs(rootfs)
    fofoca.ok("image", "import", "box", rootfs)
    return {"data": Path(f"/var/lib/fofoca-lab-{fofoca.lab}"), **status}


def restart(fofoca: CommandLine) -> None:
    fofoca.ok("lab", "kill", "n1")
    fofoca.ok("lab", "start", "n1")
    eventually("the node is back", lambda: fofoca("nodes").code == 0)


def run(fofoca: CommandLine, *words: object, stdin: str = "") -> tuple[dict[str, Any], str]:
    job_id = int(fofoca.ok("submit", *SMALL, *words, stdin=stdin).out)
    fofoca("wait", job_id, "--timeout", "30s")
    return fofoca.task(job_id), fofoca.ok("logs", job_id).out


def test_a_home_directory_keeps_what_jobs_write(fofoca: CommandLine, homes: Path) -> None:
    volume = ("--volume", "homes:site/pages:/home/site")
    task, out = run(fofoca, *volume, "--", "sh", "-c", "echo hello > /home/site/page; ls -ln /home/site")
    assert task["state"] == "succeeded", (task, out)
    assert (homes / "lab" / "site" / "pages" / "page").read_text() == "hello\n"
    assert run(fofoca, *volume, "--", "cat", "/home/site/page")[1] == "hello\n"
    task, out = run(fofoca, "--volume", "data/lab/site:/in:ro", "--", "sh", "-c", "cat /in/pages/page; echo x > /in/x")
    assert out.startswith("hello\n")
    assert task["state"] == "failed"


def test_a_secret_reaches_its_container_and_no_disk_ledger_log_or_answer(fofoca: CommandLine, lab: Any) -> None:
    line = "test $(wc -c < /run/secrets/key) = 32 && sleep 5"
    job_id = int(fofoca.ok("submit", *SMALL, "--secret", "key=-", "--", "sh", "-c", line, stdin=SECRET).out)
    eventually("it runs", lambda: fofoca.task(job_id)["state"] == "running")
    assert SECRET not in json.dumps(fofoca.job(job_id)) + fofoca.ok("lab", "log", "n1").out
    found = subprocess.run(["grep", "-rlF", SECRET, lab["data"]], capture_output=True, text=True, check=False).stdout
    assert found == "", "the secrets' own mount is in the node's namespace alone"
    restart(fofoca)
    eventually("it ends well under the next agent", lambda: fofoca.task(job_id)["state"] == "succeeded")
    held = fofoca.ok("lab", "exec", "n1", "--", "ls", f"{lab['data']}/n1/secrets").out
    assert held == "", "gone with the container"


def test_what_the_operator_allows_is_granted(fofoca: CommandLine) -> None:
    task, out = run(fofoca, "--seccomp", "nomkdir", "--cap-drop", "all", "--cap-add", "net_raw", "--", "sh", "-c",
                    "grep CapBnd /proc/self/status; mkdir /x")  # fmt: skip
    assert task["state"] == "failed"
    assert f"{1 << 13:016x}" in out
    assert "not permitted" in out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--volume", "none:/x"), "no writable volume none"),
        (("--volume", "data:/x"), "no writable volume data"),
        (("--seccomp", "lax"), "no system call filter lax"),
        (("--cap-add", "sys_admin"), "does not allow the capability sys_admin"),
    ],
)
def test_what_no_node_allows_waits_with_its_reason(fofoca: CommandLine, words: tuple[str, ...], why: str) -> None:
    job_id = fofoca.submit(*SMALL, *words, "--", "true")
    eventually("the reason is told", lambda: why in fofoca.ok("explain", job_id).out)
    fofoca.ok("cancel", job_id)


def test_a_mistake_in_a_wish_is_said_in_one_line(fofoca: CommandLine) -> None:
    for words, why in (
        (("--volume", "homes:../x:/home"), "--volume: "),
        (("--tmpfs", "/proc:1M"), "--tmpfs: "),
        (("--scratch", "1M"), "--scratch: "),
        (("--mask", "/etc/passwd"), "--mask: "),
        (("--secret", "key=hunter2"), "secret: key=..."),
    ):
        refused = fofoca("submit", *SMALL, *words, "--", "true")
        assert refused.code != 0
        assert why in refused.err
        assert refused.err.count("\n") == 1
        assert "hunter2" not in refused.err
