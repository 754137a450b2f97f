"""How responsive an agent stays while very many jobs wait and room comes free all the time.

    python benchmarks/queue/pending.py [--jobs 100000] [--seconds 10] [--json]

One node with 16 processors takes so many jobs of one processor each that run for an hour (in lists of 100), so all
but 16 wait. Then a running one is cancelled ten times a second: each time room comes free, the queue's leader makes a
pass and the next one starts. Meanwhile another client asks for one job's state, a hundred times a second. An agent
decides in one thread, so a pass that takes long is an answer that comes late: the slowest bounds the longest pass.
"""

from __future__ import annotations

import argparse
import json
import threading
import time

from lab import Client, agents_cpu_s, job, lab, percentile

BATCH = 100
ASK_EVERY_S = 0.01
CANCEL_EVERY_S = 0.1
CPUS = 16


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
    report(len(ids), taken_per_s, {"nothing moves": quiet_ms, "room comes free": busy_ms}, cpu_share, options.json)


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


def report(count: int, taken_per_s: float, rows: dict[str, list[float]], cpu_share: float, as_json: bool) -> None:
    table = {
        what: {"p50_ms": percentile(times, 0.5), "p99_ms": percentile(times, 0.99), "slowest_ms": max(times)}
        for what, times in rows.items()
    }
    if as_json:
        print(json.dumps({"waiting": count, "taken_per_s": taken_per_s, "cpu_share": cpu_share, **table}))
        return
    print(f"{count:,} jobs wait, taken at {taken_per_s:,.0f}/s; the agent's CPU while room comes free {cpu_share:.0%}")
    for what, row in table.items():
        print(f"answers, {what:18}" + "   ".join(f"{name} {value:.1f}" for name, value in row.items()))


if __name__ == "__main__":
    main()
