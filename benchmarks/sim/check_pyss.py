"""Do we start every job when pyss does? The same jobs through both, start by start.

    python benchmarks/sim/check_pyss.py PYSS_FOLDER [--pyss-python python2] [--models 5]

pyss (the Python Scheduler Simulator) is an independent program for Python 2; its code is not here, only a few lines
that drive it. Every policy, with the users' estimates and clairvoyant (pyss is given the run times as estimates), on
the published trace, if there, and on models of several sizes. Exit code 1 if any start differs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sim.replay import replay_jobs
from sim.traces.swf import read_swf, write_swf
from sim.workload import Workload, lublin

ROOT = Path(__file__).parents[2]
TRACES = Path(os.environ.get("FOFOCA_TRACES") or ROOT.parent / "shared" / "traces")
KTH = TRACES / "KTH-SP2-1996-2-raw.swf.gz"
SCHEDULERS = {
    "fcfs": ("fcfs_scheduler", "FcfsScheduler"),
    "easy": ("easy_scheduler", "EasyBackfillScheduler"),
    "sjbf": ("easy_sjbf_scheduler", "EasySJBFScheduler"),
    "conservative": ("conservative_scheduler", "ConservativeScheduler"),
}
DRIVER = """
import sys
from base.workload_parser import parse_lines
from base.prototype import _job_inputs_to_jobs
from schedulers.simulator import Simulator
module, name, processors, trace = sys.argv[1:]
scheduler = getattr(__import__("schedulers." + module, fromlist=[name]), name)(int(processors))
simulator = Simulator(_job_inputs_to_jobs(parse_lines(open(trace)), int(processors)), int(processors), scheduler)
simulator.run()
for job in simulator.terminated_jobs:
    sys.stdout.write("%s %r\\n" % (job.id, job.start_to_run_at_time))
"""


def workloads(models: int) -> Iterator[tuple[Workload, int]]:
    """Yield workloads and machine sizes."""
    if KTH.exists():
        yield read_swf(KTH, 100, strong=True).workload, 100
    for seed in range(models):
        processors = (16, 100, 512)[seed % 3]
        yield lublin(3000, processors, seed, load=(0.7, 0.95, 1.1)[seed % 3]), processors


def theirs(folder: Path, python: str, policy: str, work: Workload, processors: int, clairvoyant: bool) -> list[float]:
    """Return pyss's starts, in the workload's order."""
    played = Workload(work.name)
    for number, job in enumerate(work, 1):
        # pyss's clock is whole seconds, and so are these traces'.
        played.append(job._replace(id=number, estimate_s=job.run_s if clairvoyant else job.estimate_s))
    with tempfile.NamedTemporaryFile("w", suffix=".swf") as trace:
        write_swf(trace, played, processors, [None] * len(work))
        trace.flush()
        command = [python, "-O", "-c", DRIVER, *SCHEDULERS[policy], str(processors), trace.name]
        done = subprocess.run(command, cwd=folder / "src", stdout=subprocess.PIPE, text=True, check=True)
    starts = {int(line.split()[0]): float(line.split()[1]) for line in done.stdout.splitlines()}
    return [starts[number] for number in range(1, len(work) + 1)]


def main() -> int:
    """Compare all, and say for each how many starts differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pyss", type=Path, help="a checkout of pyss")
    parser.add_argument("--pyss-python", default="python2", help="the Python 2 that runs it")
    parser.add_argument("--models", type=int, default=3, help="how many models to play besides the trace")
    options = parser.parse_args()
    differing = 0
    for work, processors in workloads(options.models):
        for policy in SCHEDULERS:
            for clairvoyant in (False, True):
                ours = replay_jobs(work, processors, policy, clairvoyant).starts_s
                other = theirs(options.pyss, options.pyss_python, policy, work, processors, clairvoyant)
                wrong = sum(mine != start for mine, start in zip(ours, other, strict=True))
                differing += wrong
                told = f"{work.name:34} {processors:5} {policy:13}{'clairvoyant' if clairvoyant else '':12}"
                print(f"{told}{len(work):7} jobs, {wrong} start at another time", flush=True)
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
