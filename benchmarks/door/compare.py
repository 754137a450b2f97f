"""The request door beside a bare reverse proxy and raw lxc-execute, in one run.

    python benchmarks/door/compare.py [--rounds 1500] [--starts 20] [--at-once 100] [--only warm,cold] [--json]

warm: one request at a time to a backend that answers at once: directly, through the door, through nginx and through
HAProxy as bare reverse proxies, over kept connections and over new ones, in turns.
cold: in a lab of three nodes, from the request for a site nobody knows to its whole first answer; beside raw
`lxc-execute` of the same command on a bridge, from its spawn to the first answer of the application; in turns. Then the
same for a frozen site, and for many cold sites at the same moment over all doors.
cold needs root and LXC. Leaves nothing behind.
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
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import trio
from proxies import all_of_them, anew, once, open_to

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
BRIDGE, GATEWAY, ADDRESS, PORT = "ffdoor0", "10.213.9.1/24", "10.213.9.9", 8080
COMMAND = tuple(word.replace("{port}", str(PORT)) for word in DEMO.command)
WARM_UP = 50
POLL_S = 0.001
RAW_TIMEOUT_S = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1500, help="of warm requests")
    parser.add_argument("--starts", type=int, default=20, help="of cold starts, and of thaws")
    parser.add_argument("--at-once", type=int, default=100)
    parser.add_argument("--only", default="warm,cold")
    parser.add_argument("--json", action="store_true", help="one line")
    options = parser.parse_args()
    times: Times = {}
    lost: dict[str, Any] = {}
    if "warm" in options.only:
        times |= warm(options.rounds)
    if "cold" in options.only:
        cold_times, lost = cold(options.starts, options.at_once)
        times |= cold_times
    report(times, lost, options.json)


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


def demo(name: str, image: Path) -> ContainerSpec:
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
        network=NetworkSpec(BRIDGE, f"{ADDRESS}/24"),
    )


async def raw(runtime: LxcRuntime, image: Path, number: int) -> float:
    """Time `lxc-execute` alone, and its application: control groups, layer and bridge are there before the clock."""
    container = demo(f"r.{number}", image)
    await runtime.prepare(container)
    directory = runtime._directory(container.name)
    command, env = runtime._command(container, directory)
    with (directory.path / "ready").open("rb+", buffering=0):  # the hook tells somebody that it is set up
        began = time.perf_counter()
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while not answered():
            if process.poll() is not None or time.perf_counter() - began > RAW_TIMEOUT_S:
                raise SystemExit(f"raw lxc-execute: nothing answers at {ADDRESS}:{PORT}")
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


def answered() -> bool:
    """Whether the application answers by now."""
    try:
        with socket.create_connection((ADDRESS, PORT), timeout=0.02) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b"200" in connection.recv(4096)
    except OSError:
        return False


def report(times: Times, lost: dict[str, Any], as_json: bool) -> None:
    rows = {name: [percentile(values, share) for share in (0.5, 0.95, 0.99)] for name, values in times.items()}
    if as_json:
        named = {name: dict(zip(("p50_ms", "p95_ms", "p99_ms"), row, strict=True)) for name, row in rows.items()}
        print(json.dumps({**named, "answers at once": lost}))
        return
    print(f"{'ms':32}{'p50':>8}{'p95':>8}{'p99':>8}{'runs':>7}")
    for name, row in rows.items():
        print(f"{name:32}" + "".join(f"{value:8.2f}" for value in row) + f"{len(times[name]):7}")
    for way in ("kept", "new"):
        if f"fofoca, {way} connection" in rows:
            added = rows[f"fofoca, {way} connection"][0] - rows[f"direct, {way} connection"][0]
            print(f"the door adds {added:.2f} ms at the median to a request over a {way} connection")
    if "cold, fofoca" in rows:
        ratio = rows["cold, fofoca"][0] / rows["cold, raw lxc-execute"][0]
        print(f"cold: {ratio:.2f} x raw lxc-execute with its application")
        print(f"at once: answers by status {lost}")


if __name__ == "__main__":
    main()
