"""How fast and how lean replays are: whole processes, CPU seconds and peak memory, schedule written.

    python benchmarks/sim/bench_replay.py [--json] [--only NAME,...] [--pyss FOLDER [--pyss-python python2]]

Rows: a published trace (found through FOFOCA_TRACES or ../shared/traces), two machines of the Lublin-Feitelson model,
pods on nodes with GPUs, a million containers that come and go; then the cost of one event as the number of running
jobs and of waiting jobs grows, beside the growth of its logarithm. Load by others shows in CPU seconds too: compare
figures of one run. With `--pyss FOLDER`, a checkout of the Python Scheduler Simulator (pyss, for Python 2), it replays
the same jobs on the same machines in the same run, and each row of ours says how many times less CPU it took.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from math import log2
from pathlib import Path
from random import Random
from typing import Any

from sim.nodes import Demand, NodeSpec
from sim.placement import Visit, visit
from sim.replay import replay_jobs
from sim.results import summarise
from sim.traces.swf import read_swf, write_swf
from sim.workload import Workload, lublin, services

ROOT = Path(__file__).parents[2]
TRACES = Path(os.environ.get("FOFOCA_TRACES") or ROOT.parent / "shared" / "traces")
KTH = TRACES / "KTH-SP2-1996-2-raw.swf.gz"
OPENB = TRACES / "openb"

Row = dict[str, Any]


# Run by a small process of its own: a child's peak memory counts what its parent held when it forked.
MEASURE = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
text = process.stdout.read().decode()
result = json.loads(text) if text.startswith("{") else {}
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, result]))
"""


def measured(name: str, count: int, *words: object) -> Row:
    """Run `fofoca sim run` as a process of its own and return what it took."""
    row, result = _process(name, count, [sys.executable, "-m", "node.cli", "sim", "run", *map(str, words), "--json"])
    main = result.get("avg_bounded_slowdown", result.get("allocated_fraction"))
    return {**row, "result": round(main, 4)}


def _process(name: str, count: int, command: list[str], folder: Path = ROOT) -> tuple[Row, dict[str, Any]]:
    measure = [sys.executable, "-S", "-c", MEASURE, *command]
    began = time.perf_counter()
    done = subprocess.run(measure, stdout=subprocess.PIPE, check=True, cwd=folder)
    status, cpu_s, memory_mb, result = json.loads(done.stdout)
    assert status == 0, command
    row = {
        "name": name,
        "count": count,
        "cpu_s": round(cpu_s, 2),
        "wall_s": round(time.perf_counter() - began, 2),
        "per_cpu_s": round(count / cpu_s),
        "memory_mb": round(memory_mb),
    }
    return row, result


PYSS = {
    "fcfs": "FcfsScheduler",
    "easy": "EasyBackfillScheduler",
    "sjbf": "EasySJBFScheduler",
    "conservative": "ConservativeScheduler",
}


class Rival:
    """pyss, where it is: plays what was filtered for it, and says how much faster we were."""

    folder: Path | None = None
    python = "python2"

    @classmethod
    def beside(cls, ours: Row, work: Workload, processors: int, policy: str, folder: Path) -> Iterator[Row]:
        """Yield our row, and pyss's of the same jobs."""
        if cls.folder is None:
            yield ours
            return
        trace = folder / "pyss.swf"
        with trace.open("w") as out:
            write_swf(out, work, processors, [None] * len(work))
        options = [f"--num-processors={processors}", f"--input-file={trace}", f"--scheduler={PYSS[policy]}"]
        command = [cls.python, "-O", "run_simulator.py", *options]
        theirs, _ = _process(f"  pyss: {ours['name']}", len(work), command, cls.folder / "src")
        yield {**ours, "faster_than_pyss": round(theirs["cpu_s"] / ours["cpu_s"], 1)}
        yield theirs


def kth(folder: Path) -> Iterator[Row]:
    """KTH-SP2 under every policy."""
    for policy in ("fcfs", "easy", "sjbf", "conservative") if KTH.exists() else ():
        options = ("--processors", 100, "--filter", "strong", "--policy", policy, "--schedule", folder / "out.swf")
        ours = measured(f"KTH-SP2 {policy}", 28_481, KTH, *options)
        work = read_swf(KTH, 100, strong=True).workload if Rival.folder else Workload("")
        yield from Rival.beside(ours, work, 100, policy, folder)


def model(folder: Path) -> Iterator[Row]:
    """Two machines of the Lublin-Feitelson model."""
    for jobs, processors in ((230_000, 1152), (295_000, 80_640)):
        path = folder / f"lublin-{jobs}.swf"
        work = lublin(jobs, processors, 1, load=0.7)
        with path.open("w") as out:
            write_swf(out, work, processors, [None] * jobs)
        for policy in ("easy", "sjbf"):
            options = ("--policy", policy, "--schedule", folder / "out.swf")
            ours = measured(f"Lublin {jobs} on {processors} {policy}", jobs, path, *options)
            # On the largest machine pyss takes many minutes; one row of it is enough.
            if policy == "easy" and processors < 10_000:
                yield from Rival.beside(ours, work, processors, policy, folder)
            else:
                yield ours


def openb(folder: Path) -> Iterator[Row]:
    """Pods on nodes with GPUs, arrivals to 130 %."""
    if OPENB.exists():
        nodes, pods = OPENB / "openb_node_list_all_node.csv", OPENB / "openb_pod_list_default.csv"
        for policy in ("best-fit", "fragmentation"):
            yield measured(f"openb {policy}", 10_750, "--nodes", nodes, "--pods", pods, "--policy", policy)


def containers(folder: Path) -> Iterator[Row]:
    """A million containers come to ten thousand nodes and go."""
    nodes, pods, count = folder / "nodes.csv", folder / "pods.csv", 1_000_000
    with nodes.open("w") as out:
        out.write("sn,cpu_milli,memory_mib\n")
        out.writelines(f"n{place},{64_000 if place % 3 else 96_000},262144\n" for place in range(10_000))
    with pods.open("w") as out:
        out.write("cpu_milli,memory_mib,creation_time,deletion_time\n")
        for each in services(count, per_second=100, mean_stay_s=2500, seed=1):
            gone_s = each.arrive_s + each.stay_s
            out.write(f"{each.cpu_milli},{each.memory_mib},{each.arrive_s:.3f},{gone_s:.3f}\n")
    options = ("--nodes", nodes, "--pods", pods, "--arrivals", "trace", "--policy", "best-fit")
    yield measured("containers on 10,000 nodes", count, *options)


def steady(running: int, load: float, seed: int = 1) -> tuple[Workload, int]:
    """Small jobs that keep about `running` of them on the machine; the sizes do not grow with it."""
    rng = Random(seed)
    processors = int(running * 4.5 / min(load, 1))
    work, now = Workload("steady"), 0.0
    for job in range(max(20_000, 4 * running)):
        now += rng.expovariate(load * processors / (4.5 * 1000))
        run_s = rng.expovariate(1 / 1000) + 1
        work.ids.append(job)
        work.submit_s.append(now)
        work.run_s.append(run_s)
        work.estimate_s.append(run_s * rng.uniform(1, 5))
        work.needs.append(rng.randint(1, 8))
        work.users.append(0)
    return work, processors


def cost_us(work: Workload, processors: int) -> tuple[float, int]:
    """Return microseconds an event under EASY, the best of three, and the number of events."""
    spent_s, events = [], 0
    for _ in range(3):
        began = time.process_time()
        events = replay_jobs(work, processors, "easy").events
        spent_s.append(time.process_time() - began)
    return min(spent_s) / events * 1e6, events


def curve(folder: Path) -> Iterator[Row]:
    """The cost of an event by running jobs and by waiting jobs, relative to the smallest, beside log2's growth."""
    first = 0.0
    for running in (100, 1000, 10_000, 100_000):
        micros, events = cost_us(*steady(running, 0.98))
        first = first or micros
        yield _point(f"event, {running} running", events, micros / first, micros, log2(running) / log2(100))
    first, least = 0.0, 1
    for load in (1.02, 1.2, 2.0, 5.0):
        work, processors = steady(1000, load)
        micros, events = cost_us(work, processors)
        waiting = summarise(replay_jobs(work, processors, "easy")).mean_queue
        first, least = first or micros, max(least, 1) if first else max(1, waiting)
        yield _point(f"event, {waiting:.0f} waiting", events, micros / first, micros, log2(waiting) / log2(least))


def nodes(folder: Path) -> Iterator[Row]:
    """The cost of a container's arrival and departure by nodes, at the same load."""
    first = 0.0
    for count in (100, 1000, 10_000):
        specs = [NodeSpec(f"n{place}", 64_000, 262_144) for place in range(count)]
        per_second = count / 100
        visits = [
            Visit(each.arrive_s, each.arrive_s + each.stay_s, Demand(each.cpu_milli, each.memory_mib))
            for each in services(10 * count + 20_000, per_second, mean_stay_s=1500, seed=1, day_swing=0)
        ]
        began = time.process_time()
        visit(specs, visits, "best-fit")
        micros = (time.process_time() - began) / len(visits) * 1e6
        first = first or micros
        yield _point(f"container, {count} nodes", len(visits), micros / first, micros, log2(count) / log2(100))


def _point(name: str, events: int, growth: float, micros: float, log_growth: float) -> Row:
    return {
        "name": name,
        "count": events,
        "us_per_event": round(micros, 2),
        "growth": round(growth, 2),
        "log2_growth": round(log_growth, 2),
    }


PARTS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "kth": kth, "model": model, "openb": openb, "containers": containers, "curve": curve,
    "nodes": nodes,
}  # fmt: skip


def main() -> None:
    """Run the parts and print a table, or one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--only", default=",".join(PARTS), help=f"which of {', '.join(PARTS)}")
    parser.add_argument("--pyss", type=Path, help="a checkout of pyss, to run the same jobs")
    parser.add_argument("--pyss-python", default="python2", help="the Python 2 that runs it")
    options = parser.parse_args()
    Rival.folder, Rival.python = options.pyss.absolute() if options.pyss else None, options.pyss_python
    if Rival.folder is not None and not (Rival.folder / "src" / "run_simulator.py").exists():
        parser.error(f"--pyss: {options.pyss} has no src/run_simulator.py")
    rows = []
    with tempfile.TemporaryDirectory(prefix="fofoca-bench-") as folder:
        for name in options.only.split(","):
            for row in PARTS[name](Path(folder)):
                rows.append(row)
                if not options.json:
                    print("  ".join(f"{key} {value}" if key != "name" else f"{value:34}" for key, value in row.items()))
    if options.json:
        print(json.dumps({"benchmark": "sim", "load": os.getloadavg()[0], "rows": rows}))


if __name__ == "__main__":
    main()
