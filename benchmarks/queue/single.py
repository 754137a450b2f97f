"""One job on an idle cluster, from just before its submission to its first instruction, beside srun and LXC.

    python benchmarks/queue/single.py [--rounds 100] [--runtimes process,lxc] [--json]

Three nodes; the job goes to n1's API over a kept connection and runs where n1 puts it. A process tells the time with
`date`, in Slurm's case too. In containers a static program prints CLOCK_MONOTONIC: ours with the image and limits of
benchmarks/runtime/submit_to_running.py, without network, against `lxc-execute` of the same configuration. Rivals take
turns with us as far as they can, so that neighbours on the machine disturb all alike. Needs root.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import slurm
import trio
from goals import Goal, as_json, show
from lab import Client, job, lab, percentile

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
from rivals import make_stamp_image, timed
from start_overhead import spec

from node.host.cgroups import remove_tree
from node.runtime.lxc.lxc import LxcRuntime
from node.runtime.supervisor import build

Times = dict[str, list[float]]
PAUSE_S = 0.05
WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--runtimes", default="process,lxc")
    parser.add_argument("--json", action="store_true", help="one line")
    options = parser.parse_args()
    times: Times = {}
    if "process" in options.runtimes:
        times |= processes(options.rounds)
    if "lxc" in options.runtimes:
        times |= containers(options.rounds)
    report(times, options.json)


def take_turns(ways: dict[str, Callable[[], float]], rounds: int) -> Times:
    """Return milliseconds by way."""
    times: Times = {name: [] for name in ways}
    for number in range(rounds + WARM_UP):
        for name, run in ways.items():
            took_ms = run()
            time.sleep(PAUSE_S)
            if number >= WARM_UP:
                times[name].append(took_ms)
    return times


def processes(rounds: int) -> Times:
    with ExitStack() as stack:
        client = stack.enter_context(lab(3, 16, "process"))
        ways = {"fofoca, process": lambda: dated(client)}
        if why := slurm.missing():
            print(f"left out: Slurm: {why}", file=sys.stderr)
        else:
            rival = stack.enter_context(slurm.slurm(3, 16))
            ways["srun"] = lambda: rival.srun() * 1000
        return take_turns(ways, rounds)


def dated(client: Client) -> float:
    begin = time.time()
    job_id = client.submit(job(["/bin/sh", "-c", "date +%s.%N"]))
    client.ended(job_id)
    return (float(output(client, job_id)) - begin) * 1000


def output(client: Client, job_id: int) -> bytes:
    return client.exchange(client.request("GET", f"/v1/jobs/{job_id}/logs?stream=stdout"))


def containers(rounds: int) -> Times:
    with ExitStack() as stack:
        top = Path(tempfile.mkdtemp(prefix="fofoca-bench."))
        stack.callback(shutil.rmtree, top, ignore_errors=True)
        top.chmod(0o711)
        image = make_stamp_image(top / "image")
        client = stack.enter_context(lab(3, 16, "lxc"))
        command = shutil.which("fofoca") or str(Path(__file__).parents[2] / ".venv/bin/fofoca")
        subprocess.run([command, "image", "import", "stamp", image], check=True, stdout=subprocess.DEVNULL)
        runtime = LxcRuntime(top / "run", build(top / "bin"), f"fofoca-bench-{top.name[-8:]}")
        stack.callback(lambda: trio.run(runtime.purge))
        numbers = iter(range(10**6))
        ways = {
            "fofoca, lxc": lambda: stamped(client),
            "raw lxc-execute": lambda: trio.run(raw, runtime, image, next(numbers)),
        }
        return take_turns(ways, rounds)


def stamped(client: Client) -> float:
    body = job(["/bin/stamp"], 250, 64 << 20, image="stamp", network="none")
    begin = time.monotonic_ns()
    job_id = client.submit(body)
    client.ended(job_id)
    return (int(output(client, job_id)) - begin) / 1e6


async def raw(runtime: LxcRuntime, image: Path, number: int) -> float:
    """Time `lxc-execute` alone: control groups and the container's layer are there before the clock starts."""
    container = spec(f"r.{number}", image, network=False, argv=("/bin/stamp",))
    await runtime.prepare(container)
    directory = runtime._directory(container.name)
    command, env = runtime._command(container, directory)
    with (directory.path / "ready").open("rb+", buffering=0):  # the hook tells somebody that it is set up
        took_ms = timed(list(command), env).running_ms
    for path in runtime._cgroups.directories(container.name):
        remove_tree(path)
    await runtime.remove(container.name)
    return took_ms


def goals(rows: dict[str, dict[str, float]]) -> list[Goal]:
    """Half as late as srun, little later than LXC with nobody around it, and no long tail."""
    found = []
    if "fofoca, process" in rows and "srun" in rows:
        bound_ms = 0.6 * rows["srun"]["p50_ms"]
        found.append(Goal("fofoca, process, p50 ms", rows["fofoca, process"]["p50_ms"], bound_ms, "0.6 x srun"))
    if "fofoca, lxc" in rows:
        bound_ms = rows["raw lxc-execute"]["p50_ms"] + 15
        found.append(Goal("fofoca, lxc, p50 ms", rows["fofoca, lxc"]["p50_ms"], bound_ms, "raw lxc-execute + 15 ms"))
    for name, row in rows.items():
        if name.startswith("fofoca"):
            found.append(Goal(f"{name}, p99 ms", row["p99_ms"], 3 * row["p50_ms"], "3 x its p50"))
    return found


def report(times: Times, in_json: bool) -> None:
    shares = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
    rows = {name: {key: percentile(values, share) for key, share in shares.items()} for name, values in times.items()}
    if in_json:
        print(json.dumps({**rows, "goals": as_json(goals(rows))}))
        return
    print(f"{'submit to running, ms':24}{'p50':>8}{'p95':>8}{'p99':>8}")
    for name, row in rows.items():
        print(f"{name:24}" + "".join(f"{value:8.1f}" for value in row.values()))
    show(goals(rows))


if __name__ == "__main__":
    main()
