"""One short container by Fofoca beside lxc-execute, crun, runc, podman and docker, in the same run.

    python benchmarks/runtime/compare.py [--rounds 20] [--many 48] [--ways fofoca-agents,fofoca-runtime,...] [--json]

Each round runs one container in each way, in turns, so that neighbours on the machine disturb all alike; then each way
runs MANY of them eight at a time. Printed: milliseconds from the request to the command's first instruction and to its
known end (p50, p95), and containers a second, one after the other and eight at a time. scale.py has 300 containers.

What is compared, honestly:
- all: no network but loopback, 64 MiB, one core, 64 processes, the same static program;
- lxc-execute: the very configuration that Fofoca writes (user namespace, idmapped image, overlay, seccomp, limits); its
  control groups and layer are made before the clock starts and removed after it stops, so this is a lower bound;
- fofoca-runtime: everything, from an image directory to nothing left, records on disk included;
- fofoca-agents: an HTTP request to one agent of a lab, placed on another, until the API says that it has ended; both
  homes' records are synced to disk;
- crun, runc: no user namespace, no overlay, no seccomp filter: less than the others do;
- podman, docker: their usual confinement without user namespace.

Needs root, LXC, busybox and a C compiler; ways whose program is missing are left out, and said. Leaves nothing behind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trio
from rivals import RIVALS, Run, Took, make_stamp_image, timed
from start_overhead import percentile, spec

from node.host.cgroups import remove_tree
from node.runtime.lxc.lxc import LxcRuntime
from node.runtime.supervisor import build

TOGETHER = 8
WARM_UP = 2
RAW, RUNTIME, AGENTS = "lxc-execute", "fofoca-runtime", "fofoca-agents"
PROGRAMS = {name: name.replace("docker", "dockerd") for name in RIVALS}
Figures = dict[str, dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--many", type=int, default=48)
    parser.add_argument("--ways", default=",".join((AGENTS, RUNTIME, RAW, *RIVALS)))
    parser.add_argument("--json", action="store_true", help="one line")
    options = parser.parse_args()
    wanted = options.ways.split(",")
    missing = [name for name in wanted if name in PROGRAMS and shutil.which(PROGRAMS[name]) is None]
    with ExitStack() as stack:
        top = Path(tempfile.mkdtemp(prefix="fofoca-bench."))
        stack.callback(shutil.rmtree, top, ignore_errors=True)
        top.chmod(0o711)
        image = make_stamp_image(top / "image")
        ways: dict[str, Run] = {}
        if {RAW, RUNTIME} & set(wanted):
            ways |= stack.enter_context(ours(top, image))
        if AGENTS in wanted:
            from submit_to_running import agents  # it starts a lab, and needs what that needs

            ways[AGENTS] = stack.enter_context(agents(image))
        for name in RIVALS:
            if name in wanted and name not in missing:
                ways[name] = stack.enter_context(RIVALS[name](top, image))
        figures = measure({name: ways[name] for name in wanted if name in ways}, options.rounds, options.many)
    report(figures, missing, options.json)


def measure(ways: dict[str, Run], rounds: int, many: int) -> Figures:
    took: dict[str, list[Took]] = {name: [] for name in ways}
    for number in range(rounds + WARM_UP):
        for name, run in ways.items():
            found = run(number)
            if number >= WARM_UP:
                took[name].append(found)
    figures: Figures = {}
    for name, run in ways.items():
        figures[name] = one_by_one(took[name])
        figures[name]["together_per_s"] = together_per_s(run, many)
    return figures


def one_by_one(took: list[Took]) -> dict[str, float]:
    running, ended = [each.running_ms for each in took], [each.exit_ms for each in took]
    return {
        "running_p50_ms": percentile(running, 0.5),
        "running_p95_ms": percentile(running, 0.95),
        "exit_p50_ms": percentile(ended, 0.5),
        "exit_p95_ms": percentile(ended, 0.95),
        "single_per_s": 1000 * len(ended) / sum(ended),
    }


def together_per_s(run: Run, many: int) -> float:
    """How many a second, eight at a time; what a way does outside of its clock is not counted where it says so."""
    prepare = getattr(run, "prepare", None)
    if prepare is not None:
        prepare(range(1000, 1000 + many))
    with ThreadPoolExecutor(TOGETHER) as pool:
        began_s = time.monotonic()
        list(pool.map(run, range(1000, 1000 + many)))
        return many / (time.monotonic() - began_s)


class Loop:
    """A trio loop in a thread, for a runtime that wants one."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), daemon=True)
        self._thread.start()
        self._ready.wait()

    async def _run(self) -> None:
        self._token, self._end = trio.lowlevel.current_trio_token(), trio.Event()
        self._ready.set()
        await self._end.wait()

    def run(self, function: object, *arguments: object) -> object:
        return trio.from_thread.run(function, *arguments, trio_token=self._token)  # type: ignore[arg-type]

    def close(self) -> None:
        self._token.run_sync_soon(self._end.set)
        self._thread.join()


@contextmanager
def ours(top: Path, image: Path) -> Iterator[dict[str, Run]]:
    runtime = LxcRuntime(top / "run", build(top / "bin"), f"fofoca-bench-{os.getpid()}")
    loop = Loop()
    try:
        yield {RUNTIME: ByRuntime(runtime, loop, image), RAW: Raw(runtime, loop, image)}
    finally:
        loop.run(runtime.purge)
        loop.close()


class ByRuntime:
    """Our runtime alone, without an agent: prepare, start, wait, remove."""

    def __init__(self, runtime: LxcRuntime, loop: Loop, image: Path) -> None:
        self._runtime, self._loop, self._image = runtime, loop, image

    def __call__(self, number: int) -> Took:
        return self._loop.run(self._run, number)  # type: ignore[return-value]

    async def _run(self, number: int) -> Took:
        container = spec(f"o.{number}", self._image, network=False, argv=("/bin/stamp",))
        begin = time.monotonic_ns()
        await self._runtime.prepare(container)
        await self._runtime.start(container)
        ending = await self._runtime.wait(container.name)
        end = time.monotonic_ns()
        assert ending.exit_code == 0, ending
        stamp = int(self._runtime.read_log(container.name, "stdout", 0, 100).data)
        await self._runtime.remove(container.name)
        return Took((stamp - begin) / 1e6, (end - begin) / 1e6)


class Raw:
    """`lxc-execute` alone. Many at once are prepared before the clock starts, and removed with the runtime."""

    def __init__(self, runtime: LxcRuntime, loop: Loop, image: Path) -> None:
        self._runtime, self._loop, self._image = runtime, loop, image
        self._prepared: set[int] = set()

    def _spec(self, number: int) -> object:
        return spec(f"r.{number}", self._image, network=False, argv=("/bin/stamp",))

    def prepare(self, numbers: range) -> None:
        for number in numbers:
            self._loop.run(self._runtime.prepare, self._spec(number))
            self._prepared.add(number)

    def __call__(self, number: int) -> Took:
        container = self._spec(number)
        if number not in self._prepared:
            self._loop.run(self._runtime.prepare, container)
        name: str = container.name  # type: ignore[attr-defined]
        directory = self._runtime._directory(name)
        command, env = self._runtime._command(container, directory)  # type: ignore[arg-type]
        ready = os.open(directory.path / "ready", os.O_RDONLY | os.O_NONBLOCK)  # the hook tells somebody it is set up
        took = timed(command, env)
        os.close(ready)
        if number not in self._prepared:
            for path in self._runtime._cgroups.directories(name):
                remove_tree(path)
            self._loop.run(self._runtime.remove, name)
        return took


def versions() -> dict[str, str]:
    commands = {name: [program, "--version"] for name, program in PROGRAMS.items()} | {
        "lxc": ["lxc-execute", "--version"]
    }
    found = {"kernel": platform.release(), "cores": str(os.cpu_count()), "python": sys.version.split()[0]}
    for name, command in commands.items():
        with contextlib.suppress(OSError):
            lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
            found[name] = lines[0] if lines else "?"
    return found


def report(figures: Figures, missing: list[str], as_json: bool) -> None:
    over_raw = {
        f"{name.replace('-', '_')}_over_lxc_execute_{key}": figures[name][key] / figures[RAW][key]
        for name in (RUNTIME, AGENTS)
        for key in ("running_p50_ms", "exit_p50_ms")
        if name in figures and RAW in figures
    }
    if as_json:
        flat = {f"{name.replace('-', '_')}_{key}": value for name, row in figures.items() for key, value in row.items()}
        print(json.dumps({key: round(value, 2) for key, value in (flat | over_raw).items()}))
        return
    print("  ".join(f"{name}: {version}" for name, version in versions().items()))
    print(f"{'':16}{'running':>9}{'p95':>8}{'exit':>9}{'p95 ms':>8}{'one/s':>8}{'eight/s':>9}")
    for name, row in figures.items():
        values = list(row.values())
        print(
            f"{name:16}{values[0]:9.1f}{values[1]:8.1f}{values[2]:9.1f}{values[3]:8.1f}{values[4]:8.1f}{values[5]:9.1f}"
        )
    for name, value in over_raw.items():
        print(f"{name}: {value:.2f}")
    if missing:
        print(f"not installed: {', '.join(missing)}")


if __name__ == "__main__":
    main()
