"""What an image may say of its containers, and several images under one container, on real parts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from node.host.idmap import is_mounted
from node.runtime import ContainerSpec, Exit
from node.runtime.lxc.lxc import LxcRuntime

pytestmark = [pytest.mark.lxc, pytest.mark.root]
BASE = 400_000


async def run(runtime: LxcRuntime, spec: ContainerSpec) -> tuple[Exit, str]:
    await runtime.prepare(spec)
    await runtime.start(spec)
    with trio.fail_after(60):
        ending = await runtime.wait(spec.name)
    streams = [runtime.read_log(spec.name, stream, 0, 1 << 16).data for stream in ("stdout", "stderr")]
    await runtime.remove(spec.name)
    return ending, b"".join(streams).decode()


def spec(line: str | tuple[str, ...], rootfs: Path, *bases: Path, **changes: object) -> ContainerSpec:
    fields: dict[str, object] = {
        "name": "1.1.1",
        "argv": ("sh", "-c", line) if isinstance(line, str) else line,
        "rootfs": rootfs,
        "bases": bases,
        "user_base": BASE,
    }
    return ContainerSpec(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def layer(busybox_image: Path) -> Iterator[Path]:
    """An image with nothing but an application and a changed file; on a path that mapped users may pass."""
    top = busybox_image.parent / f"{busybox_image.name}.app"
    for folder in ("opt/app", "dev", "proc", "sys", "tmp", "etc"):
        (top / folder).mkdir(parents=True, exist_ok=True)
    (top / "opt/app/name").write_text("app")
    yield top
    for folder in (top, top.with_suffix(".runtime")):
        shutil.rmtree(folder, ignore_errors=True)


async def test_the_command_runs_as_the_images_user_in_its_directory(
    lxc_runtime: LxcRuntime, busybox_image: Path
) -> None:
    line = "id -u; id -g; pwd; echo again > /dev/stdout; echo x > /etc/x || echo no"
    ending, output = await run(lxc_runtime, spec(line, busybox_image, user=(1234, 50), workdir="/etc"))
    assert ending.exit_code == 0, ending
    assert output.splitlines()[:4] == ["1234", "50", "/etc", "again"]
    assert "no" in output.splitlines()


async def test_a_stack_is_one_root_whose_topmost_image_wins_and_none_can_be_written(
    lxc_runtime: LxcRuntime, busybox_image: Path, layer: Path
) -> None:
    middle = layer.with_suffix(".runtime")
    (middle / "opt/app").mkdir(parents=True, exist_ok=True)
    (middle / "opt/app/name").write_text("hidden")
    (middle / "opt/jdk").write_text("runtime")
    line = "cat /opt/app/name /opt/jdk; echo mine > /opt/app/name; cat /opt/app/name; rm /opt/jdk; ls /opt"
    ending, output = await run(lxc_runtime, spec(line, layer, middle, busybox_image))
    assert (ending.exit_code, output) == (0, "appruntimemine\napp\n")
    assert (layer / "opt/app/name").read_text() == "app"
    assert (middle / "opt/jdk").read_text() == "runtime"
    mounts = [lxc_runtime._mounts.path(root, BASE) for root in (layer, middle)]
    assert all(is_mounted(mount, root) for mount, root in zip(mounts, (layer, middle), strict=True))
    lxc_runtime.forget_rootfs(layer)
    assert [mount.exists() for mount in mounts] == [False, True]


@pytest.mark.parametrize(
    ("name", "content", "mode", "reason"),
    [
        ("plain", b"\x7fELF", 0o644, "no permission"),
        ("script", b"#!/bin/absent\n", 0o755, "it needs /bin/absent, which the image does not have"),
        ("program", Path("/bin/true").read_bytes(), 0o755, "which the image does not have"),
        ("folder", None, 0o755, "is a directory"),
    ],
)
async def test_a_file_that_cannot_be_executed_ends_with_126_and_says_why(
    lxc_runtime: LxcRuntime, busybox_image: Path, layer: Path, name: str, content: bytes | None, mode: int, reason: str
) -> None:
    file = layer / "opt" / name
    if content is None:
        file.mkdir(exist_ok=True)
    else:
        file.write_bytes(content)
    file.chmod(mode)
    ending, _ = await run(lxc_runtime, spec((f"/opt/{name}",), layer, busybox_image))
    assert ending.exit_code == 126, ending
    assert ending.error is not None
    assert reason in ending.error


async def test_a_command_that_itself_ends_with_255_is_believed(lxc_runtime: LxcRuntime, busybox_image: Path) -> None:
    ending, _ = await run(lxc_runtime, spec("exit 255", busybox_image))
    assert (ending.exit_code, ending.error) == (255, None)
