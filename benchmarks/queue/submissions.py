"""How many jobs a second one node takes over its API, each durable before its answer, beside Slurm's C API.

    python benchmarks/queue/submissions.py [--jobs 3000] [--connections 64] [--rounds 3] [--json]

Ours: a node alone with its ledger on disk; jobs sent over kept connections to its local socket by a client that sends
bytes made before and looks for the answer's length. "one by one" are single jobs, each connection with one under way;
"one connection" is a lone client, which waits for the disk every time; "batches" are lists of 100 different jobs.
"held" ones are held, as the rival's are; the others ask for a label that no node has, so each is also told to the
queue's leader, which looks for a place and sets it aside: what a job costs that has to wait. Slurm: held jobs through
slurm_submit_batch_job, one after another, state saved to disk now and then, not before the answer. Then an array of
100,000 tasks and one of a million.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import slurm
from goals import Goal, as_json, show
from lab import Client, agents_cpu_s, job, lab

BATCH = 100
HELD: dict[str, Any] = {"queueing": {"hold": True}}
WAITING: dict[str, Any] = {"constraints": ["never=here"]}
Row = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one line")
    options = parser.parse_args()
    jobs, connections, rounds = options.jobs, options.connections, options.rounds
    rows: dict[str, Row] = {}
    with lab(1, 16, "process"):
        held, many_held = json.dumps(job(["/bin/true"], **HELD)).encode(), many(HELD)
        one, many_waiting = json.dumps(job(["/bin/true"], **WAITING)).encode(), many(WAITING)
        rows["one by one, held"] = measured(rounds, jobs, lambda: send(held, jobs, connections))
        rows["batches, held"] = measured(rounds, 2 * jobs, lambda: send(many_held, 2 * jobs // BATCH, 2))
        rows["one by one"] = measured(rounds, jobs, lambda: send(one, jobs, connections))
        rows["one connection"] = measured(rounds, jobs // 10, lambda: send(one, jobs // 10, 1))
        rows["batches"] = measured(rounds, 2 * jobs, lambda: send(many_waiting, 2 * jobs // BATCH, 2))
        rows["array of 100,000"] = accepted(100_000, rounds)
        rows["array of 1,000,000"] = accepted(1_000_000, 1)
    if why := slurm.missing():
        print(f"left out: Slurm: {why}", file=sys.stderr)
    else:
        with slurm.slurm(1, 16) as rival:
            rows["slurm, C API"] = summary([rival.submit_held(1000) for _ in range(rounds)])
    report(rows, options.json)


def many(more: dict[str, Any]) -> bytes:
    """Return a list of jobs, no two alike."""
    return json.dumps([job(["/bin/echo", str(number)], **more) for number in range(BATCH)]).encode()


def summary(rates: list[float]) -> Row:
    return {"jobs_per_s": statistics.median(rates), "slowest": min(rates), "fastest": max(rates)}


def measured(rounds: int, jobs: int, run: Callable[[], None]) -> Row:
    rates, cpu_s = [], agents_cpu_s()
    for _ in range(rounds):
        begin = time.monotonic()
        run()
        rates.append(jobs / (time.monotonic() - begin))
    return {**summary(rates), "agent_ms_per_job": (agents_cpu_s() - cpu_s) * 1000 / (jobs * rounds)}


def send(body: bytes, count: int, connections: int) -> None:
    """Send a body so many times over so many connections; each waits for its answer before it sends the next."""

    def work(share: int) -> None:
        client = Client()
        request = client.request("POST", "/v1/jobs", body)
        for _ in range(share):
            client.exchange(request)

    shares = [count // connections + (number < count % connections) for number in range(connections)]
    threads = [threading.Thread(target=work, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def accepted(tasks: int, rounds: int) -> Row:
    """Return how long an array takes until it is durable and has its id."""
    client, times_ms = Client(), []
    for _ in range(rounds):
        body = job(["/bin/true"], array=f"0-{tasks - 1}", **WAITING)
        begin = time.monotonic()
        job_id = client.submit(body)
        times_ms.append((time.monotonic() - begin) * 1000)
        client.call("DELETE", f"/v1/jobs/{job_id}")
    return {"accepted_ms": statistics.median(times_ms), "slowest_ms": max(times_ms)}


def goals(rows: dict[str, Row]) -> list[Goal]:
    """As fast as Slurm one by one, ten times as fast in lists, arrays at once."""
    found = []
    for name, times in (("one by one", 1), ("batches", 10)) if "slurm, C API" in rows else ():
        bound = times * rows["slurm, C API"]["jobs_per_s"]
        for each in (f"{name}, held", name):
            found.append(Goal(f"{each}, jobs/s", rows[each]["jobs_per_s"], bound, f"{times} x slurm, C API", True))
    found.append(Goal("array of 100,000, ms", rows["array of 100,000"]["accepted_ms"], 50, "the target"))
    found.append(Goal("array of 1,000,000, ms", rows["array of 1,000,000"]["accepted_ms"], 1000, "accepted at all"))
    return found


def report(rows: dict[str, Row], in_json: bool) -> None:
    if in_json:
        figures = {f"{who}: {what}": round(v, 2) for who, row in rows.items() for what, v in row.items()}
        print(json.dumps({**figures, "goals": as_json(goals(rows))}))
        return
    print(f"submissions to one node, durable; load {os.getloadavg()[0]:.1f}")
    for who, row in rows.items():
        print(f"{who:22}" + "   ".join(f"{what} {value:,.2f}" for what, value in row.items()))
    show(goals(rows))


if __name__ == "__main__":
    main()
