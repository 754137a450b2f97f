"""Images from a docker-archive to containers and away again, on real nodes of LXC."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.command_line import CommandLine, eventually
from tests.host.packing import Entry, docker_archive, entry, tar

pytestmark = [
    pytest.mark.xdist_group("images"),
    pytest.mark.slow,
    pytest.mark.lxc,
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("busybox") is None, reason="needs busybox"),
]
SMALL = ("--cpu", "100m", "--memory", "32M")
SCRIPT = b'#!/bin/sh\necho "$GREETING $* from $(id -u) in $(pwd)"\n'
APPLETS = ("sh", "id", "cat", "sleep", "ls", "mount")


def base() -> list[Entry]:
    busybox = Path(shutil.which("busybox") or "").read_bytes()
    links = [entry(f"bin/{name}", b"", b"2", linkname="busybox") for name in APPLETS]
    passwd = entry("etc/passwd", b"root:x:0:0::/:/bin/sh\nwww:x:33:44::/srv:/bin/sh\n")
    return [entry("bin/busybox", busybox), *links, passwd, entry("opt/gone", b"x")]


@pytest.fixture(scope="module", autouse=True)
def lab(fofoca: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    fofoca.ok("lab", "up", "--nodes", 2)
    if fofoca.ok("lab", "status", "--json").json["runtime"] != "lxc":
        pytest.skip("needs LXC, which needs root")
    folder = tmp_path_factory.mktemp("images")
    app = [entry("opt/app", SCRIPT), entry("opt/.wh.gone")]
    run = {
        "Entrypoint": ["/opt/app", "hello"],
        "Cmd": ["all"],
        "User": "www",
        "WorkingDir": "/opt",
        "Env": ["GREETING=hi"],
    }
    (folder / "app.tar").write_bytes(docker_archive([tar(*base()), tar(*app)], **run))
    (folder / "layer/opt").mkdir(parents=True)
    (folder / "layer/opt/extra").write_text("extra\n")
    fofoca.ok("image", "import", "app:1", folder / "app.tar")
    fofoca.ok("image", "import", "layer", folder / "layer")
    return folder


def run(fofoca: CommandLine, *words: object) -> tuple[dict[str, Any], str]:
    job_id = fofoca.submit(*SMALL, *words)
    fofoca("wait", job_id, "--timeout", "30s")
    return fofoca.task(job_id), fofoca.ok("logs", job_id).out


def nodes_of(fofoca: CommandLine, name: str) -> list[str]:
    found: list[str] = fofoca.ok("image", "show", name, "--json").json[0]["nodes"]
    return found


def test_a_job_without_a_command_runs_as_its_image_says_on_any_node(fofoca: CommandLine) -> None:
    for node in ("n1", "n2"):
        task, out = run(fofoca, "--image", "app:1", "--constraint", f"node={node}")
        assert (task["state"], out) == ("succeeded", "hi hello all from 33 in /opt\n"), task
    assert nodes_of(fofoca, "app:1") == ["n1", "n2"]
    task, out = run(fofoca, "--image", "app:1", "--env", "GREETING=ola", "--", "/opt/app", "you")
    assert out == "ola you from 33 in /opt\n"


def test_a_stack_is_one_root_with_the_configuration_of_the_topmost_that_has_one(fofoca: CommandLine) -> None:
    line = "cat /opt/extra; ls /opt; id -u; echo $GREETING"
    task, out = run(fofoca, "--image", "layer;app:1", "--constraint", "node=n2", "--", "sh", "-c", line)
    assert (task["state"], out) == ("succeeded", "extra\napp\nextra\n33\nhi\n"), task


def test_what_can_not_be_run_says_why_and_is_tried_once(fofoca: CommandLine) -> None:
    for words, code, reason in (
        (("--image", "layer;app:1", "--", "/opt/extra"), 126, "no permission to be executed"),
        (("--image", "app:1", "--", "absent"), 127, "has no command absent"),
        (("--image", "layer"), 127, "has none of its own"),
    ):
        task, _ = run(fofoca, *words)
        assert (task["state"], task["exit_code"], task["attempt"]) == ("failed", code, 1), task
        assert reason in task["reason"]


def test_a_used_image_stays_and_a_copy_goes_when_nobody_uses_it(fofoca: CommandLine) -> None:
    job_id = fofoca.submit(*SMALL, "--image", "app:1", "--constraint", "node=n2", "--", "sleep", "300")
    eventually("it runs", lambda: fofoca.job(job_id)["state"] == "running")
    shown = fofoca.ok("image", "show", "app:1", "--json").json[0]
    assert {copy["node"]: copy["used_by"] for copy in shown["copies"]} == {"n1": [], "n2": [f"{job_id}.0.1"]}
    fofoca.ok("image", "prune")
    assert nodes_of(fofoca, "app:1") == ["n1", "n2"]
    fofoca.ok("cancel", job_id)
    eventually(
        "it is let go of", lambda: not fofoca.ok("image", "show", "app:1", "--json").json[0]["copies"][1]["uses"]
    )
    eventually("the copy goes", lambda: fofoca.ok("image", "prune") and nodes_of(fofoca, "app:1") == ["n1"])
    mounts = Path(f"/var/lib/fofoca-lab-{fofoca.lab}/n2/mounts")
    assert list(mounts.iterdir()) == [], "its idmapped mounts go with it"
    task, out = run(fofoca, "--image", "app:1", "--constraint", "node=n2")
    assert out == "hi hello all from 33 in /opt\n", task


def test_an_image_goes_everywhere_with_its_name(fofoca: CommandLine) -> None:
    fofoca.ok("image", "rm", "app:1", "layer")
    listed = fofoca.ok("image", "ls", "--json").json
    assert [each["name"] for each in listed if each["name"] != "busybox"] == []
    assert fofoca("image", "show", "app:1").code == 2
    refused = fofoca("submit", *SMALL, "--image", "app:1")
    assert refused.code == 2
    assert "image" in refused.err
