"""The request door beside a bare reverse proxy and raw lxc-execute, in one run of about four minutes, and its targets.

    python benchmarks/door/compare.py [--rounds 1500] [--starts 20] [--at-once 100] [--sites 2000]
                                      [--only warm,cold,asleep] [--json]

warm: one request at a time to a backend that answers at once: directly, through the door, through nginx and through
HAProxy as bare reverse proxies, over kept connections and over new ones, in turns.
cold: in a lab of three nodes, from the request for a site nobody knows to its whole first answer; beside raw
`lxc-execute` of the same command on a bridge, from its spawn to the first answer of the application; in turns. Then the
same for a frozen site, and for many cold sites at the same moment over all doors.
asleep: memory and CPU of an agent at rest, without sites and with many that sleep (sleeping.py).
cold needs root and LXC. Leaves nothing behind. Ends with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import trio
from proxies import all_of_them, anew, once, open_to
from sleeping import Rest, measure

sys.path += [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1] / "queue")]
from lab import lab, percentile
from start_overhead import make_image

from node.door.catalogue import DEMO
from node.host.cgroups import remove_tree
from node.host.network import ensure_bridge, remove_interface
from node.lab import record
from node.runtime import ContainerSpec, NetworkSpec
from node.runtime.lxc.lxc import LxcRuntime
from node.runtime.supervisor import build

Times = dict[str, list[float]]
BRIDGE, GATEWAY, PORT = "ffdoor0", "10.213.9.1/24", 8080
ADDRESSES = [f"10.213.9.{last}" for last in range(2, 255)]
"""Each start has the next: the host remembers for a while which hardware address the former holder had."""
COMMAND = tuple(word.replace("{port}", str(PORT)) for word in DEMO.command)
WARM_UP = 50
POLL_S = 0.001
RAW_TIMEOUT_S = 20.0
REST_S = 10.0
WARM_MS_MAX, THAW_MS_MAX, COLD_RATIO_MAX = 2.0, 100.0, 1.3
ASLEEP_CPU_MAX, ASLEEP_KIB_MAX = 0.5, 16.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1500, help="of warm requests")
    parser.add_argument("--starts", type=int, default=20, help="of cold starts, and of thaws")
    parser.add_argument("--at-once", type=int, default=100)
    parser.add_argument("--sites", type=int, default=2000, help="that sleep")
    parser.add_argument("--only", default="warm,cold,asleep")
    parser.add_argument("--json", action="store_true", help="one line")
    options = parser.parse_args()
    times: Times = {}
    lost: dict[str, Any] = {}
    if "warm" in options.only:
        times |= warm(options.rounds)
    if "cold" in options.only:
        cold_times, lost = cold(options.starts, options.at_once)
        times |= cold_times
    rest = measure(options.sites, REST_S) if "asleep" in options.only else None
    targets = list(judged(times, lost, rest, options.sites))
    report(times, targets, options.json)
    if not all(target.met for target in targets):
        raise SystemExit(1)


def warm(rounds: int) -> Times:
    times: Times = {}
    with all_of_them() as ports:
        kept = {name: open_to(port) for name, port in ports.items()}
        for number in range(rounds + WARM_UP):
            for name, port in ports.items():
                took = {f"{name}, kept connection": once(kept[name]), f"{name}, new connection": anew(port)}
                for key, took_ms in took.items():
                    if number >= WARM_UP:
                        times.setdefault(key, []).append(took_ms)
        for connection in kept.values():
            connection.close()
    return dict(sorted(times.items(), key=lambda item: "new" in item[0]))


def cold(starts: int, count: int) -> tuple[Times, dict[str, Any]]:
    with ExitStack() as stack:
        top = Path(tempfile.mkdtemp(prefix="fofoca-bench."))
        stack.callback(shutil.rmtree, top, ignore_errors=True)
        top.chmod(0o711)
        image = make_image(top / "image")
        for applet in ("sh", "mkdir", "cat", "hostname", "httpd"):
            (image / "bin" / applet).symlink_to("busybox")
        ensure_bridge(BRIDGE, GATEWAY)
        # Who asks for the container's hardware address before its link is up is answered at the next question: by
        # default a second later, which would be the host's time and not the start's.
        Path(f"/proc/sys/net/ipv4/neigh/{BRIDGE}/retrans_time_ms").write_text("5")
        stack.callback(remove_interface, BRIDGE)
        runtime = LxcRuntime(top / "run", build(top / "bin"), f"fofoca-bench-{os.getpid()}")
        stack.callback(lambda: trio.run(runtime.purge))
        stack.enter_context(lab(3, 4, "lxc"))
        front_end("cold", 2)  # the image gets to the nodes
        times: Times = {"cold, raw lxc-execute": [], "cold, fofoca": []}
        for number in range(0, starts, 5):
            times["cold, fofoca"] += front_end("cold", min(5, starts - number))
            for each in range(min(5, starts - number)):
                times["cold, raw lxc-execute"].append(trio.run(raw, runtime, image, number + each))
        times["thaw, fofoca"] = front_end("thaw", starts)
        crowd = front_end("at-once", count)
        times[f"{count} cold at once"] = crowd["times_ms"]
        return times, crowd["answers"]


def front_end(verb: str, number: int) -> Any:
    """Have inside.py ask from a node of the lab."""
    running = record.load()
    assert running is not None
    doors = ",".join(node.door_url.removeprefix("http://") for node in running.nodes)
    command = shutil.which("fofoca") or str(Path(__file__).parents[2] / ".venv/bin/fofoca")
    inside = [sys.executable, str(Path(__file__).with_name("inside.py")), verb, str(number)]
    done = subprocess.run(
        [command, "lab", "exec", running.nodes[0].name, "--", *inside],
        stdout=subprocess.PIPE,
        env={**os.environ, "FOFOCA_DOORS": doors},
        check=True,
    )
    return json.loads(done.stdout)


def demo(name: str, image: Path, address: str) -> ContainerSpec:
    """Return what the door's demo application is as a container."""
    return ContainerSpec(
        name=name,
        argv=COMMAND,
        rootfs=image,
        user_base=400_000,
        memory_bytes=16 << 20,
        cpu_milli=50,
        pids_max=16,
        tmpfs_bytes=16 << 20,
        network=NetworkSpec(BRIDGE, f"{address}/24"),
    )


async def raw(runtime: LxcRuntime, image: Path, number: int) -> float:
    """Time `lxc-execute` alone, and its application: control groups, layer and bridge are there before the clock."""
    address = ADDRESSES[number % len(ADDRESSES)]
    container = demo(f"r.{number}", image, address)
    await runtime.prepare(container)
    directory = runtime._directory(container.name)
    command, env = runtime._command(container, directory)
    with (directory.path / "ready").open("rb+", buffering=0):  # the hook tells somebody that it is set up
        began = time.perf_counter()
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while not answered(address):
            if process.poll() is not None or time.perf_counter() - began > RAW_TIMEOUT_S:
                raise SystemExit(f"raw lxc-execute: nothing answers at {address}:{PORT}")
            time.sleep(POLL_S)
        took_ms = (time.perf_counter() - began) * 1000
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
    for path in runtime._cgroups.directories(container.name):
        remove_tree(path)
    await runtime.remove(container.name)
    return took_ms


def answered(address: str) -> bool:
    """Whether the application answers by now."""
    try:
        with socket.create_connection((address, PORT), timeout=0.02) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b"200" in connection.recv(4096)
    except OSError:
        return False


class Target(NamedTuple):
    """What is promised, what was measured, and whether that is as good."""

    what: str
    measured: str
    target: str
    met: bool


def judged(times: Times, lost: dict[str, Any], rest: tuple[Rest, Rest] | None, sites: int) -> Iterator[Target]:
    """Compare what was measured with the targets."""
    p50 = {name: percentile(values, 0.5) for name, values in times.items()}
    for way in ("kept", "new"):
        if f"fofoca, {way} connection" in p50:
            added = p50[f"fofoca, {way} connection"] - p50[f"direct, {way} connection"]
            yield Target(f"warm: added at p50, {way} connection", f"{added:.2f} ms", "<= 2 ms", added <= WARM_MS_MAX)
    if "thaw, fofoca" in p50:
        thaw = p50["thaw, fofoca"]
        yield Target("thaw to answer, p50", f"{thaw:.0f} ms", "<= 100 ms", thaw <= THAW_MS_MAX)
        ratio = p50["cold, fofoca"] / p50["cold, raw lxc-execute"]
        yield Target("cold to answer, p50, in raw ones", f"{ratio:.2f} x", "<= 1.30 x", ratio <= COLD_RATIO_MAX)
        said = ", ".join(f"{count} with status {status}" for status, count in lost.items())
        yield Target(f"{sum(lost.values())} cold at once: answers", said, "all with 200", set(lost) == {"200"})
    if rest is not None:
        before, after = rest
        each_kb = (after.memory_mib - before.memory_mib) * 1024 / sites
        cpu = after.cpu_percent - before.cpu_percent
        yield Target(f"{sites} asleep: CPU more at rest", f"{cpu:+.2f} %", "<= 0.5 %", cpu <= ASLEEP_CPU_MAX)
        yield Target(f"{sites} asleep: memory, each", f"{each_kb:.1f} KiB", "<= 16 KiB", each_kb <= ASLEEP_KIB_MAX)


def report(times: Times, targets: list[Target], as_json: bool) -> None:
    rows = {name: [percentile(values, share) for share in (0.5, 0.95, 0.99)] for name, values in times.items()}
    if as_json:
        named = {name: dict(zip(("p50_ms", "p95_ms", "p99_ms"), row, strict=True)) for name, row in rows.items()}
        print(json.dumps({**named, "targets": [target._asdict() for target in targets]}))
        return
    print(f"{'ms':36}{'p50':>9}{'p95':>9}{'p99':>9}{'runs':>7}")
    for name, row in rows.items():
        print(f"{name:36}" + "".join(f"{value:9.2f}" for value in row) + f"{len(times[name]):7}")
    print(f"\n{'target':36}{'measured':>14}{'promised':>12}")
    for target in targets:
        print(f"{target.what:36}{target.measured:>14}{target.target:>12}  {'met' if target.met else 'MISSED'}")


if __name__ == "__main__":
    main()
