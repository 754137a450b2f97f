"""Runs shell lines in real containers of one runtime, for tests that look out from inside (no test module)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import trio

from node.runtime import ContainerSpec, Exit
from node.runtime.lxc.lxc import LxcRuntime

BASE = 300_000


def loop_files(below: Path) -> list[str]:
    """Files below a folder that loop devices show; other tests' devices may go while one looks."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            found.append(path.read_text().strip())
    return [file for file in found if file.startswith(f"{below}/")]


class Inside:
    """Runs shell lines in containers of one runtime."""

    def __init__(self, runtime: LxcRuntime, image: Path) -> None:
        self.runtime = runtime
        self.image = image
        self.count = 0

    def spec(self, line: str, **changes: object) -> ContainerSpec:
        self.count += 1
        fields: dict[str, object] = {
            "name": f"1.{self.count}.1",
            "argv": ("sh", "-c", line),
            "rootfs": self.image,
            "user_base": BASE,
            "memory_bytes": 64 << 20,
            "cpu_milli": 200,
            "pids_max": 40,
            "tmpfs_bytes": 8 << 20,
        }
        return ContainerSpec(**{**fields, **changes})  # type: ignore[arg-type]

    async def run(self, line: str, **changes: object) -> tuple[Exit, str]:
        spec = self.spec(line, **changes)
        await self.runtime.prepare(spec)
        await self.runtime.start(spec)
        with trio.fail_after(60):
            ending = await self.runtime.wait(spec.name)
        return ending, self.output(spec.name)

    def output(self, name: str) -> str:
        streams = [self.runtime.read_log(name, stream, 0, 1 << 16).data for stream in ("stdout", "stderr")]
        return b"".join(streams).decode()
