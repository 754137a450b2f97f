"""Many containers at once on one node: how long starting, sampling and stopping all of them takes.

    python benchmarks/runtime/scale.py [--containers 300] [--raw 40] [--json]

Started eight at a time; beside it raw `lxc-execute` of the same configuration, eight at a time too, whose control
groups and delta are there already. Wall time and CPU seconds (ours, and of what we waited for): neighbours on the
machine disturb the first alone. Needs root, LXC and busybox. Leaves nothing behind.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import trio
from start_overhead import make_image, spec

from node.host.cgroups import remove_tree
from node.runtime import ContainerSpec
from node.runtime.lxc.lxc import LxcRuntime
from node.runtime.supervisor import build

TOGETHER = 8
SAMPLES = 20
SLEEP = ("/bin/busybox", "sleep", "600")
Step = Callable[[ContainerSpec], Awaitable[None]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--containers", type=int, default=300)
    parser.add_argument("--raw", type=int, default=40, help="how many by raw lxc-execute")
    parser.add_argument("--json", action="store_true", help="one line")
    options = parser.parse_args()
    top = Path(tempfile.mkdtemp(prefix="fofoca-bench."))
    top.chmod(0o711)
    try:
        figures = trio.run(measure, top, options.containers, options.raw)
    finally:
        shutil.rmtree(top)
    if options.json:
        print(json.dumps({name.replace(" ", "_"): round(value, 2) for name, value in figures.items()}))
        return
    for name, value in figures.items():
        print(f"{name:32}{value:10.2f}")


async def measure(top: Path, count: int, raw: int) -> dict[str, float]:
    image = make_image(top / "image")
    runtime = LxcRuntime(top / "run", build(top / "bin"), f"fofoca-bench-{os.getpid()}")
    ours = [spec(f"o.{number}", image, False, SLEEP) for number in range(count)]
    others = [spec(f"r.{number}", image, False, SLEEP) for number in range(raw)]
    processes: list[subprocess.Popen[bytes]] = []
    figures: dict[str, float] = {}

    async def start(container: ContainerSpec) -> None:
        await runtime.prepare(container)
        await runtime.start(container)

    async def start_raw(container: ContainerSpec) -> None:
        directory = runtime._directory(container.name)
        command, env = runtime._command(container, directory)
        ready = os.open(directory.path / "ready", os.O_RDONLY | os.O_NONBLOCK)
        processes.append(subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
        await trio.lowlevel.wait_readable(ready)
        os.close(ready)

    async def end(container: ContainerSpec) -> None:
        await runtime.stop(container.name, 5)
        await runtime.wait(container.name)

    try:
        await all_of(others, runtime.prepare, TOGETHER)
        figures["raw start ms each"] = await all_of(others, start_raw, TOGETHER) * 1000 / raw
        for process in processes:
            process.kill()
            process.wait()
        for container in others:
            runtime._cgroups.kill(container.name)
            for path in runtime._cgroups.directories(container.name):
                remove_tree(path)
        figures["start ms each"] = await all_of(ours, start, TOGETHER) * 1000 / count
        figures["start over raw"] = figures["start ms each"] / figures["raw start ms each"]
        figures["sample of all ms"] = sample_ms(runtime, count)
        began_cpu_s = time.process_time()
        figures["stop all s"] = await all_of(ours, end, count)
        figures["stop all own CPU s"] = time.process_time() - began_cpu_s
    finally:
        with trio.CancelScope(shield=True):
            await runtime.purge()
    return figures


async def all_of(containers: Iterable[ContainerSpec], step: Step, together: int) -> float:
    """Take a step with each, so many at a time; the seconds it took."""
    limit = trio.CapacityLimiter(together)

    async def one(container: ContainerSpec) -> None:
        async with limit:
            await step(container)

    began_s = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for container in containers:
            nursery.start_soon(one, container)
    return time.perf_counter() - began_s


def sample_ms(runtime: LxcRuntime, count: int) -> float:
    taken = []
    for _ in range(SAMPLES):
        began_s = time.perf_counter()
        assert len(runtime.usage()) == count
        taken.append((time.perf_counter() - began_s) * 1000)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
