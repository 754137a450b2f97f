"""What our runtime adds to LXC itself: start to running and start to exit, against raw `lxc-execute`.

    python benchmarks/runtime/start_overhead.py [--rounds 40] [--network] [--json]

Both run the same command in the same image with the same LXC configuration, in turns (ours, raw, ours, raw, ...), so
that neighbours on the machine disturb both alike. Raw: the control groups and the delta are there already, the time
is that of `lxc-execute`, from its spawn to the end of its set-up, and to its own end. Ours: from `prepare` to `start`
returning, and to `wait` returning, everything included. Needs root, LXC and busybox. Leaves nothing behind.
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
from pathlib import Path

import trio

from node.host.cgroups import remove_tree
from node.host.network import ensure_bridge, remove_interface
from node.runtime import ContainerSpec, NetworkSpec
from node.runtime.lxc.lxc import LxcRuntime
from node.runtime.supervisor import build

BRIDGE = "ffbench0"
Times = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--network", action="store_true", help="with a veth pair on a bridge")
    parser.add_argument("--json", action="store_true", help="one line")
    options = parser.parse_args()
    top = Path(tempfile.mkdtemp(prefix="fofoca-bench."))
    top.chmod(0o711)
    if options.network:
        ensure_bridge(BRIDGE, "10.213.7.1/24")
    try:
        times = trio.run(measure, top, options.rounds, options.network)
    finally:
        if options.network:
            remove_interface(BRIDGE)
        shutil.rmtree(top)
    report(times, options.json)


async def measure(top: Path, rounds: int, network: bool) -> Times:
    image = make_image(top / "image")
    runtime = LxcRuntime(top / "run", build(top / "bin"), f"fofoca-bench-{os.getpid()}")
    times: Times = {"ours to running": [], "raw to running": [], "ours to exit": [], "raw to exit": []}
    try:
        for number in range(rounds + 1):
            ours = await run_ours(runtime, spec(f"o.{number}", image, network))
            raw = await run_raw(runtime, spec(f"r.{number}", image, network))
            if number:  # the first round makes the shared mount
                for key, value in zip(times, (ours[0], raw[0], ours[1], raw[1]), strict=True):
                    times[key].append(value * 1000)
    finally:
        await runtime.purge()
    return times


def spec(
    name: str,
    image: Path,
    network: bool,
    argv: tuple[str, ...] = ("/bin/true",),
    address: str = "10.213.7.9/24",
) -> ContainerSpec:
    return ContainerSpec(
        name=name,
        argv=argv,
        rootfs=image,
        user_base=400_000,
        memory_bytes=64 << 20,
        cpu_milli=250,
        cpu_limit_milli=1000,
        pids_max=64,
        tmpfs_bytes=16 << 20,
        network=NetworkSpec(BRIDGE, address) if network else None,
    )


async def run_ours(runtime: LxcRuntime, container: ContainerSpec) -> tuple[float, float]:
    begin = time.perf_counter()
    await runtime.prepare(container)
    await runtime.start(container)
    running = time.perf_counter() - begin
    ending = await runtime.wait(container.name)
    ended = time.perf_counter() - begin
    assert ending.exit_code == 0, ending
    await runtime.remove(container.name)
    return running, ended


async def run_raw(runtime: LxcRuntime, container: ContainerSpec) -> tuple[float, float]:
    await runtime.prepare(container)
    directory = runtime._directory(container.name)
    command, env = runtime._command(container, directory)
    ready = os.open(directory.path / "ready", os.O_RDONLY | os.O_NONBLOCK)
    begin = time.perf_counter()
    process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    await trio.lowlevel.wait_readable(ready)
    running = time.perf_counter() - begin
    code = process.wait()
    ended = time.perf_counter() - begin
    assert code == 0, code
    os.close(ready)
    for path in runtime._cgroups.directories(container.name):
        remove_tree(path)
    await runtime.remove(container.name)
    return running, ended


def make_image(path: Path) -> Path:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise SystemExit("this benchmark needs busybox (package busybox-static)")
    for name in ("bin", "dev", "proc", "sys", "tmp", "etc"):
        (path / name).mkdir(parents=True)
    shutil.copy(busybox, path / "bin/busybox")
    (path / "bin/true").symlink_to("busybox")
    return path


def report(times: Times, as_json: bool) -> None:
    rows = {key: (statistics.median(values), percentile(values, 0.95)) for key, values in times.items()}
    rows |= {
        f"added {step}": (rows[f"ours {step}"][0] - rows[f"raw {step}"][0], float("nan"))
        for step in ("to running", "to exit")
    }
    if as_json:
        print(json.dumps({key.replace(" ", "_") + "_ms": round(p50, 2) for key, (p50, _) in rows.items()}))
        return
    print(f"{'':18}{'p50 ms':>9}{'p95 ms':>9}   ({len(next(iter(times.values())))} rounds)")
    for key, (p50, p95) in rows.items():
        print(f"{key:18}{p50:9.1f}" + ("" if p95 != p95 else f"{p95:9.1f}"))


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


if __name__ == "__main__":
    main()
