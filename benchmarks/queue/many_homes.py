"""One queue over five homes beside one central planner: KTH-SP2 on a hundred one-processor nodes, EASY.

    python benchmarks/queue/many_homes.py [--json] [--rows NAME,...] [--jobs N]

The rival knows everything at once and costs no message: `sim.replay`, which reproduces the published 92.5765. Ours are
a hundred real scheduling machines, a millisecond apart, that hear gossip a second old. Rows: the trace's times as they
are, divided by 100 and by 1000 (a second of gossip is then long); 5 % of all messages lost; the leader's agent killed
every 100 jobs, noticed after a second, started again after six. A row takes some minutes of one core. Times printed are
the trace's; a wide job asks for 32 processors or more. The trace is found through FOFOCA_TRACES or ../shared/traces.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sim.many_homes import ManyHomes, Setting
from sim.replay import replay_jobs
from sim.results import bounded_slowdown
from sim.traces.swf import read_swf
from sim.workload import Workload

ROOT = Path(__file__).parents[2]
TRACES = Path(os.environ.get("FOFOCA_TRACES") or ROOT.parent / "shared" / "traces")
KTH = TRACES / "KTH-SP2-1996-2-raw.swf.gz"
WIDE = 32
ROWS = {
    "/ 1": Setting(),
    "/ 100": Setting(faster=100),
    "/ 1000": Setting(faster=1000),
    "/ 100, 5 % lost": Setting(faster=100, loss=0.05),
    "/ 1000, 5 % lost": Setting(faster=1000, loss=0.05),
    "/ 100, leader killed": Setting(faster=100, kill_every=100),
    "/ 1000, leader killed": Setting(faster=1000, kill_every=100),
}

Row = dict[str, Any]


def workload(jobs: int) -> Workload:
    """The first jobs of the trace, the first of them at time 0."""
    work = read_swf(KTH, processors=100, strong=True).workload
    for column in ("ids", "submit_s", "run_s", "estimate_s", "needs", "users"):
        setattr(work, column, getattr(work, column)[:jobs])
    first_s = work.submit_s[0]
    work.submit_s = [each - first_s for each in work.submit_s]
    return work


def figures(work: Workload, starts_s: Sequence[float]) -> Row:
    """Mean bounded slowdown (tau 10 s) and waits, in the trace's seconds."""
    waits = [start_s - work.submit_s[job] for job, start_s in enumerate(starts_s)]
    wide = [wait_s for job, wait_s in enumerate(waits) if work.needs[job] >= WIDE]
    return {
        "slowdown": sum(bounded_slowdown(max(0.0, w), work.run_s[j]) for j, w in enumerate(waits)) / len(waits),
        "wait_s": sum(waits) / len(waits),
        "wide_wait_s": sum(wide) / max(1, len(wide)),
    }


def played(name: str, work: Workload, setting: Setting, central: Row) -> Row:
    """Play one row and compare it with the central planner."""
    began = time.process_time()
    result = ManyHomes(work, setting).run()
    missing = [job for job, start_s in enumerate(result.starts_s) if start_s is None]
    assert not missing, f"{len(missing)} jobs never started, the first is {missing[0]}"
    found = figures(work, [start_s * setting.faster for start_s in result.starts_s if start_s is not None])
    return {
        "name": name,
        **{key: round(value, 4) for key, value in found.items()},
        "slowdown_percent": round(100 * (found["slowdown"] / central["slowdown"] - 1), 2),
        "wide_wait_percent": round(100 * (found["wide_wait_s"] / central["wide_wait_s"] - 1), 2),
        "messages_per_task": round(result.figures["messages"] / max(1, result.figures["containers"]), 1),
        "cpu_s": round(time.process_time() - began, 1),
    }


def main() -> None:
    """Print a table, or one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", default=",".join(ROWS).replace(", ", "; "), help="rows, parted by commas")
    parser.add_argument("--jobs", type=int, default=1_000_000, help="only so many of the trace")
    options = parser.parse_args()
    if not KTH.exists():
        sys.exit(f"no trace at {KTH}; set FOFOCA_TRACES")
    work = workload(options.jobs)
    starts = [start_s for start_s in replay_jobs(work, 100, "easy").starts_s if start_s is not None]
    central = figures(work, starts)
    wanted = [name.strip().replace("; ", ", ") for name in options.rows.split(",")]
    rows = [{"name": "central", **{key: round(value, 4) for key, value in central.items()}}]
    rows += [played(name, work, ROWS[name], central) for name in wanted]
    if options.json:
        print(json.dumps({"jobs": len(work), "python": platform.python_version(), "rows": rows}))
        return
    print(f"{len(work)} jobs of {KTH.name}, EASY, Python {platform.python_version()}, {platform.machine()}")
    print(f"{'':24}{'slowdown':>10}{'':>9}{'wait s':>9}{'wide wait s':>13}{'':>9}{'messages/task':>15}{'CPU s':>8}")
    for row in rows:
        slower, wider = (
            f"{row[key]:+.2f} %" if key in row else "" for key in ("slowdown_percent", "wide_wait_percent")
        )
        print(
            f"{row['name']:24}{row['slowdown']:10.4f}{slower:>9}{row['wait_s']:9.0f}{row['wide_wait_s']:13.0f}"
            f"{wider:>9}{row.get('messages_per_task', ''):>15}{row.get('cpu_s', ''):>8}"
        )


if __name__ == "__main__":
    main()
