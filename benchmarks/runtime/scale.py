"""Many containers at once on one node: starts beside raw `lxc-execute`, sampling, memory, stopping.

    python benchmarks/runtime/scale.py [--containers 300] [--rounds 10] [--network] [--json]

Starts are measured with 1, a third and all of the containers running: one at a time and eight at a time, ours and raw
in turns (ours, raw, raw, ours, ...), so that neighbours on the machine disturb both alike. Ours is everything from
`prepare` to `start` returning; raw is `lxc-execute` of the same configuration, whose control groups and delta are
there already, until its set-up is done. Medians and quartiles of rounds; the ratio is that of each round's two sides,
its median and quartiles. Needs root, LXC and busybox. Leaves nothing behind.
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
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import count
from pathlib import Path

import trio
from start_overhead import BRIDGE, make_image, spec

from node.host.cgroups import remove_tree
from node.host.network import ensure_bridge, remove_interface
from node.runtime import ContainerSpec
from node.runtime.lxc.lxc import LxcRuntime
from node.runtime.supervisor import build

TOGETHER = 8
SAMPLES = 20
PAUSE_S = 0.05
TARGETS = {"ratio": 1.5, "sample of all ms": 30, "memory of a supervisor KiB": 1024, "stop all s": 10}
"""By the end of a figure's name, for 300 containers: the most that it may be."""
"""Before each side of a round: the kernel moves processes between control groups faster if it has just done so."""
SLEEP = ("/bin/busybox", "sleep", "600")
Step = Callable[[ContainerSpec], Awaitable[None]]
Figures = dict[str, Sequence[float]]
"""By name: the median, and the quartiles where there is more than one measurement."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--containers", type=int, default=300)
    parser.add_argument(
        "--rounds", type=int, default=10, help="of eight at a time; of one at a time four times as many"
    )
    parser.add_argument("--network", action="store_true", help="with a veth pair on a bridge")
    parser.add_argument("--json", action="store_true", help="one line, medians alone")
    options = parser.parse_args()
    top = Path(tempfile.mkdtemp(prefix="fofoca-bench."))
    top.chmod(0o711)
    if options.network:
        ensure_bridge(BRIDGE, "10.213.0.1/16")
    try:
        figures = trio.run(measure, top, options.containers, options.rounds, options.network)
    finally:
        if options.network:
            remove_interface(BRIDGE)
        shutil.rmtree(top)
    if options.json:
        print(json.dumps({name.replace(" ", "_"): round(each[0], 2) for name, each in figures.items()}))
        return
    print(f"{'':44}{'median':>9}{'quartiles':>18}   target")
    for name, (median, *quartiles) in figures.items():
        row = f"{name:44}{median:9.2f}" + "".join(f"{each:9.2f}" for each in quartiles)
        target = next((most for end, most in TARGETS.items() if name.endswith(end)), None)
        print(row if target is None else f"{row:71} < {target:g} {'met' if median < target else 'MISSED'}")


async def measure(top: Path, containers: int, rounds: int, network: bool) -> Figures:
    runtime = LxcRuntime(top / "run", build(top / "bin"), f"fofoca-bench-{os.getpid()}")
    race = Race(runtime, make_image(top / "image"), network)
    running: list[ContainerSpec] = []
    figures: Figures = {}
    try:
        for level in sorted({1, containers // 3, containers}):
            more = [race.spec() for _ in range(level - len(running))]
            await all_of(more, race.start, TOGETHER)
            running += more
            figures |= await race.run(f"with {level} running", 1, 4 * rounds)
            figures |= await race.run(f"with {level} running", TOGETHER, rounds)
        figures["sample of all ms"] = quartiles(sample_ms(runtime, containers))
        figures["memory of a supervisor KiB"] = quartiles(pss_kib(runtime, running))
        began_cpu_s = time.process_time()
        figures["stop all s"] = (await all_of(running, race.end, containers),)
        figures["stop all own CPU s"] = (time.process_time() - began_cpu_s,)
    finally:
        with trio.CancelScope(shield=True):
            await runtime.purge()
    return figures


class Race:
    """Starts containers in turns: by our runtime, and by bare lxc-execute."""

    def __init__(self, runtime: LxcRuntime, image: Path, network: bool) -> None:
        self.runtime = runtime
        self._image = image
        self._network = network
        self._numbers = count(1)
        self._raw: list[subprocess.Popen[bytes]] = []

    def spec(self) -> ContainerSpec:
        number = next(self._numbers)
        return spec(f"c.{number}", self._image, self._network, SLEEP, f"10.213.{number >> 8}.{number & 255}/16")

    async def run(self, what: str, together: int, rounds: int) -> Figures:
        """Milliseconds for each container, and what ours take of raw ones."""
        ours, raw = list[float](), list[float]()
        for number in range(rounds):
            mine, others = ([self.spec() for _ in range(together)] for _ in range(2))
            await all_of(others, self.runtime.prepare, together)
            sides = [(ours, mine, self.start), (raw, others, self.start_raw)]
            for taken, containers, step in sides if number % 2 else reversed(sides):
                await trio.sleep(PAUSE_S)
                taken.append(await all_of(containers, step, together) * 1000 / together)
            await self.remove([*mine, *others])
        ratios = [mine / other for mine, other in zip(ours, raw, strict=True)]
        named = {"ours ms": ours, "raw ms": raw, "ratio": ratios}
        return {f"{what}, {together} at a time, {name}": quartiles(values) for name, values in named.items()}

    async def start(self, container: ContainerSpec) -> None:
        await self.runtime.prepare(container)
        await self.runtime.start(container)

    async def start_raw(self, container: ContainerSpec) -> None:
        directory = self.runtime._directory(container.name)
        command, env = self.runtime._command(container, directory)
        ready = os.open(directory.path / "ready", os.O_RDONLY | os.O_NONBLOCK)
        self._raw.append(subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
        await trio.lowlevel.wait_readable(ready)
        os.close(ready)

    async def remove(self, containers: Iterable[ContainerSpec]) -> None:
        for process in self._raw:
            process.kill()
            process.wait()
        self._raw.clear()
        for container in containers:
            self.runtime._cgroups.kill(container.name)
            await self.runtime.remove(container.name)
            for path in self.runtime._cgroups.directories(container.name):
                remove_tree(path)

    async def end(self, container: ContainerSpec) -> None:
        await self.runtime.stop(container.name, 5)
        await self.runtime.wait(container.name)


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


def sample_ms(runtime: LxcRuntime, containers: int) -> list[float]:
    taken = []
    for _ in range(SAMPLES):
        began_s = time.perf_counter()
        assert len(runtime.usage()) == containers
        taken.append((time.perf_counter() - began_s) * 1000)
    return taken


def pss_kib(runtime: LxcRuntime, containers: Iterable[ContainerSpec]) -> list[float]:
    """Proportional set size of each supervisor."""
    found = []
    for container in containers:
        pid = runtime._directory(container.name).supervisor_pid()
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        found.append(float(next(line.split()[1] for line in lines if line.startswith("Pss:"))))
    return found


def quartiles(values: Sequence[float]) -> Sequence[float]:
    """The median, the lower and the upper quartile."""
    if len(values) < 2:
        return tuple(values)
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


if __name__ == "__main__":
    main()
