"""How responsive an agent stays while very many jobs wait and room comes free all the time.

    python benchmarks/queue/pending.py [--jobs 100000] [--seconds 10] [--json]

One node with 16 processors takes so many jobs of one processor each that run for an hour (in lists of 100), so all
but 16 wait. Then a running one is cancelled ten times a second: each time room comes free, the queue's leader makes a
pass and the next one starts. Meanwhile another client asks for one job's state, a hundred times a second. An agent
decides in one thread, so a pass that takes long is an answer that comes late.

The passes themselves are timed in this process, without disk and containers: one node's whole scheduling machine has so
many jobs in line, a running one ends now and then, and every turn of the machine until the next has begun is one pass
at most (its CPU time).
"""

from __future__ import annotations

import argparse
import json
import threading
import time

from goals import Goal, as_json, show
from lab import Client, agents_cpu_s, job, lab, percentile

from scheduler import SchedulerConfig
from scheduler.events import Event, Submit, SubmitAll
from scheduler.model import AllocationId, JobSpec, Resources
from sim.machines import Host, Links, Machines

BATCH = 100
ASK_EVERY_S = 0.01
CANCEL_EVERY_S = 0.1
CPUS = 16
PASSES, BUSY_FROM_S = 100, 1000.0


class Line(Machines):
    """One node with many jobs in line; a running one ends every second."""

    def __init__(self, jobs: int) -> None:
        self.begun_count = 0
        self.turns_ms: list[float] = []
        request = Resources(1000, 1 << 20)
        host = Host("n1", 1, request * CPUS, config=SchedulerConfig(history_jobs=100))
        super().__init__([host], ["n1"], Links())
        self.start_all()
        self.kernel.run_until(10.0)
        specs = [JobSpec(f"j{number}", ("run",), request) for number in range(jobs)]
        for first in range(0, jobs, BATCH):
            batch = tuple(Submit("user", spec, self.unix_s) for spec in specs[first : first + BATCH])
            self.give(host, SubmitAll(batch, self.unix_s))
            self.kernel.run_until(self.kernel.now + 0.01)
        self.kernel.run_until(BUSY_FROM_S)
        self.turns_ms.clear()
        self.kernel.run_until(self.kernel.now + PASSES)

    def begun(self, host: Host, id_: AllocationId, spec: JobSpec) -> float:
        """The first ones end long after everything is in line, one a second, and so do all that follow them."""
        self.begun_count += 1
        return BUSY_FROM_S + self.begun_count if self.begun_count <= CPUS else float(CPUS)

    def give(self, host: Host, event: Event) -> None:
        began = time.process_time()
        super().give(host, event)
        self.turns_ms.append((time.process_time() - began) * 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", action="store_true", help="one line")
    options = parser.parse_args()
    with lab(1, CPUS, "process") as client:
        begin = time.monotonic()
        ids = fill(client, options.jobs)
        taken_per_s = len(ids) / (time.monotonic() - begin)
        quiet_ms = asked(ids[-1], options.seconds / 2)
        cpu_s, ended = agents_cpu_s(), threading.Event()
        churn = threading.Thread(target=cancel, args=(ids, ended))
        churn.start()
        busy_ms = asked(ids[-1], options.seconds)
        ended.set()
        churn.join()
        cpu_share = (agents_cpu_s() - cpu_s) / options.seconds
    rows = {"nothing moves": quiet_ms, "room comes free": busy_ms, "turns of the machine": Line(options.jobs).turns_ms}
    report(len(ids), taken_per_s, rows, cpu_share, options.json)


def fill(client: Client, count: int) -> list[int]:
    ids: list[int] = []
    body = [job(["/bin/sleep", "3600"])] * BATCH
    while len(ids) < count:
        ids += client.call("POST", "/v1/jobs", body)["ids"]
    return ids


def asked(job_id: int, seconds: float) -> list[float]:
    """Return the milliseconds that each answer took."""
    client, times_ms = Client(), []
    request, end = client.request("GET", f"/v1/jobs/{job_id}"), time.monotonic() + seconds
    while (begin := time.monotonic()) < end:
        client.exchange(request)
        times_ms.append((time.monotonic() - begin) * 1000)
        time.sleep(max(0.0, begin + ASK_EVERY_S - time.monotonic()))
    return times_ms


def cancel(ids: list[int], ended: threading.Event) -> None:
    """End the jobs one by one in the order they were taken, which is the order they run in."""
    client = Client()
    for job_id in ids:
        if ended.wait(CANCEL_EVERY_S):
            return
        client.call("DELETE", f"/v1/jobs/{job_id}")


def report(count: int, taken_per_s: float, rows: dict[str, list[float]], cpu_share: float, in_json: bool) -> None:
    table = {
        what: {"p50_ms": percentile(times, 0.5), "p99_ms": percentile(times, 0.99), "slowest_ms": max(times)}
        for what, times in rows.items()
    }
    goals = [
        Goal("answers while room comes free, p99 ms", table["room comes free"]["p99_ms"], 50, "the target"),
        Goal("a pass, slowest ms", table["turns of the machine"]["slowest_ms"], 50, "the target"),
    ]
    if in_json:
        figures = {"waiting": count, "taken_per_s": taken_per_s, "cpu_share": cpu_share, **table}
        print(json.dumps({**figures, "goals": as_json(goals)}))
        return
    print(f"{count:,} jobs wait, taken at {taken_per_s:,.0f}/s; the agent's CPU while room comes free {cpu_share:.0%}")
    for what, row in table.items():
        print(f"{what:22}" + "   ".join(f"{name} {value:.1f}" for name, value in row.items()))
    show(goals)


if __name__ == "__main__":
    main()
