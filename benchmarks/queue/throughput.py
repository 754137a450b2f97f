"""Short jobs of one array, from submission to the last end, on eight nodes, beside Slurm, HyperQueue and raw LXC.

    python benchmarks/queue/throughput.py [--jobs 500] [--rounds 3] [--runtimes process,lxc]
                                          [--hyperqueue PYTHON] [--json]

Every job is /bin/true on one of 16 processors that each of eight nodes offers. Ours: one array over the API of the
first of eight agents, each with a ledger on disk; durable before the answer. Slurm: tuned for short jobs.
HyperQueue: its server and eight workers in the process of the Python given (one that has its package), without a
journal, so a crash loses its queue. Raw LXC: `lxc-execute` with the very configuration that our runtime writes
(overlay, limits, seccomp, no network), everything else made beforehand, eight at a time.

Each rival has the machine to itself for its turns; the median of the rounds is told, and the load of the machine's
neighbours before. Needs root; Slurm needs slurm-wlm and munge. What is not installed is left out by name.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import slurm
import trio
from goals import Goal, as_json, show
from lab import Client, agents_cpu_s, job, lab

from node.host.cgroups import remove_tree
from node.runtime.lxc.lxc import LxcRuntime
from node.runtime.protocol import ContainerSpec
from node.runtime.supervisor import build

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
from start_overhead import make_image, spec

NODES, CPUS = 8, 16
AT_ONCE = 8
RAW_COUNT = 160
HYPERQUEUE = """
import os, sys, tempfile, time
os.environ["TQDM_DISABLE"] = "1"
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
jobs, rounds, nodes, cpus = map(int, sys.argv[1:])
os.chdir(tempfile.mkdtemp(dir=sys.path[0] or None))
def work(count):
    job = Job()
    for _ in range(count):
        job.program(["/bin/true"])
    return job
with LocalCluster() as cluster:
    for _ in range(nodes):
        cluster.start_worker(WorkerConfig(cores=cpus))
    client = cluster.client()
    client.wait_for_jobs([client.submit(work(10))])
    for _ in range(rounds):
        array = work(jobs)
        begin = time.monotonic()
        client.wait_for_jobs([client.submit(array)])
        print("took", time.monotonic() - begin, flush=True)
"""

Row = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runtimes", default="process,lxc")
    parser.add_argument("--hyperqueue", metavar="PYTHON", help="a Python that can import hyperqueue")
    parser.add_argument("--json", action="store_true", help="one line")
    options = parser.parse_args()
    rows: dict[str, Row] = {}
    runtimes = options.runtimes.split(",")
    for runtime in runtimes:
        rows[f"fofoca, {runtime}"] = ours(runtime, options.jobs, options.rounds)
    if "process" in runtimes:
        if why := slurm.missing():
            print(f"left out: Slurm: {why}", file=sys.stderr)
        else:
            with slurm.slurm(NODES, CPUS) as rival:
                rows["slurm"] = summary([options.jobs / rival.array(options.jobs) for _ in range(options.rounds)])
        if options.hyperqueue:
            rows["hyperqueue"] = hyperqueue(options.hyperqueue, options.jobs, options.rounds)
    if "lxc" in runtimes:
        rows["raw lxc-execute"] = raw_lxc(options.rounds)
    report(rows, options.jobs, options.json)


def summary(rates: list[float]) -> Row:
    return {"jobs_per_s": statistics.median(rates), "slowest": min(rates), "fastest": max(rates)}


def ours(runtime: str, jobs: int, rounds: int) -> Row:
    with lab(NODES, CPUS, runtime) as client:
        image = {"image": "busybox", "network": "none"} if runtime == "lxc" else {}
        run_array(client, 64, image)  # images are fetched, connections made
        rates, cpu_s = [], agents_cpu_s()
        for _ in range(rounds):
            rates.append(run_array(client, jobs, image))
        return {**summary(rates), "agents_cpu_ms_per_job": (agents_cpu_s() - cpu_s) * 1000 / (jobs * rounds)}


def run_array(client: Client, jobs: int, more: dict[str, str]) -> float:
    """Return jobs a second."""
    body = job(["/bin/true"], array=f"0-{jobs - 1}", **more)
    begin = time.monotonic()
    state = client.ended(client.submit(body))
    assert state == "succeeded", state
    return jobs / (time.monotonic() - begin)


def hyperqueue(python: str, jobs: int, rounds: int) -> Row:
    with tempfile.TemporaryDirectory(prefix="fofoca-bench.") as folder:
        script = Path(folder) / "rival.py"
        script.write_text(HYPERQUEUE)
        arguments = [str(number) for number in (jobs, rounds, NODES, CPUS)]
        done = subprocess.run([python, script, *arguments], capture_output=True, text=True, check=True)
    return summary([jobs / float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("took ")])


def raw_lxc(rounds: int) -> Row:
    top = Path(tempfile.mkdtemp(prefix="fofoca-bench."))
    top.chmod(0o711)
    try:
        return summary(trio.run(_raw_rounds, top, rounds))
    finally:
        shutil.rmtree(top)


async def _raw_rounds(top: Path, rounds: int) -> list[float]:
    image = make_image(top / "image")
    runtime = LxcRuntime(top / "run", build(top / "bin"), f"fofoca-bench-{os.getpid()}")
    try:
        return [await _raw_round(runtime, image, number) for number in range(rounds)]
    finally:
        await runtime.purge()


async def _raw_round(runtime: LxcRuntime, image: Path, number: int) -> float:
    """Return containers a second of one round; making and removing what they need is not counted."""
    containers = [spec(f"r.{number}.{index}", image, network=False) for index in range(RAW_COUNT)]
    for container in containers:
        await runtime.prepare(container)
    begin = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        codes = list(pool.map(lambda container: _execute(runtime, container), containers))
    rate = RAW_COUNT / (time.monotonic() - begin)
    assert not any(codes), codes
    for container in containers:
        for path in runtime._cgroups.directories(container.name):
            remove_tree(path)
        await runtime.remove(container.name)
    return rate


def _execute(runtime: LxcRuntime, container: ContainerSpec) -> int:
    directory = runtime._directory(container.name)
    command, env = runtime._command(container, directory)
    ready = os.open(directory.path / "ready", os.O_RDONLY | os.O_NONBLOCK)  # the hook tells somebody that it is set up
    try:
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
        return done.returncode
    finally:
        os.close(ready)


def goals(rows: dict[str, Row]) -> list[Goal]:
    """Three times Slurm, HyperQueue, and four fifths of LXC with nobody around it: those of them that ran."""

    def beside(ours: str, rival: str, times: float) -> list[Goal]:
        if ours not in rows or rival not in rows:
            return []
        bound = times * rows[rival]["jobs_per_s"]
        return [Goal(f"{ours}, jobs/s", rows[ours]["jobs_per_s"], bound, f"{times:g} x {rival}", at_least=True)]

    process = "fofoca, process"
    return [
        *beside(process, "slurm", 3.0),
        *beside(process, "hyperqueue", 1.0),
        *beside("fofoca, lxc", "raw lxc-execute", 0.8),
    ]


def report(rows: dict[str, Row], jobs: int, in_json: bool) -> None:
    if in_json:
        figures = {f"{who}: {what}": round(v, 1) for who, row in rows.items() for what, v in row.items()}
        print(json.dumps({"jobs": jobs, **figures, "goals": as_json(goals(rows))}))
        return
    print(f"{jobs} short jobs as one array, eight nodes; load before {os.getloadavg()[2]:.1f}")
    print(f"{'':22}{'jobs/s':>9}{'slowest':>9}{'fastest':>9}{'agents ms/job':>15}")
    for who, row in rows.items():
        cpu_ms = f"{row['agents_cpu_ms_per_job']:15.2f}" if "agents_cpu_ms_per_job" in row else ""
        print(f"{who:22}{row['jobs_per_s']:9.1f}{row['slowest']:9.1f}{row['fastest']:9.1f}{cpu_ms}")
    show(goals(rows))


if __name__ == "__main__":
    main()
