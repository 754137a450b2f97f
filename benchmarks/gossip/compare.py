"""Our gossip beside serf's and kinship's, in one run of one harness: compare.py --harness DIRECTORY [--n 10 30 60]

The harness (agentbench.py and run.sh in DIRECTORY, or in $FOFOCA_BENCH) starts N agents in a network namespace of
their own and takes all times itself. serf is the Debian package; kinship comes from PyPI into an environment of its
own: name its Python with --kinship-python (it also runs the harness, which needs msgpack). Needs root. Prints a
table, and with --json one line of JSON. The systems take turns, so that a noisy machine disturbs all of them.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

AGENT = Path(__file__).resolve().with_name("agent.py")
RIVALS = ("kinship", "serf")
# (label, path into a result, digits)
ROWS = (
    ("formation, last start to all, s", ("form", "last_spawn_to_all"), 2),
    ("rest, B/s a node", ("rest", "bytes_s_node"), 0),
    ("rest, packets/s a node", ("rest", "pkts_s_node"), 2),
    ("CPU, %", ("rest", "cpu_pct_mean"), 2),
    ("RSS, MB", ("rest", "rss_mb"), 1),
    ("PSS, MB", ("rest", "pss_mb"), 1),
    ("tag to last, p50, s", ("tag", "last_node", "p50"), 3),
    ("tag to last, max, s", ("tag", "last_node", "max"), 3),
    ("tags missed", ("tag", "missed"), 0),
    ("kill to first, p50, s", ("kill", "first", "p50"), 2),
    ("kill to all, p50, s", ("kill", "all", "p50"), 2),
    ("kill to all, max, s", ("kill", "all", "max"), 2),
    ("restart to all, p50, s", ("kill", "restart", "p50"), 2),
    ("false deaths at kills", ("kill", "false_dead"), 0),
    ("stall: dead reports", ("stall", "dead_total"), 0),
    ("stall: healthy about healthy", ("stall", "fp_healthy_about_healthy"), 0),
    ("stall: sick about healthy", ("stall", "sick_about_healthy"), 0),
    ("machine busy, %", ("machine_busy_pct_run",), 0),
)


def parse() -> tuple[argparse.Namespace, list[str]]:
    """Return our arguments, and those passed on to the harness."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", type=Path, default=os.environ.get("FOFOCA_BENCH"))
    parser.add_argument("--kinship-python", default=sys.executable)
    parser.add_argument("--n", type=int, nargs="+", default=[10, 30, 60])
    parser.add_argument("--systems", nargs="+", default=["fofoca", *RIVALS], choices=["fofoca", *RIVALS])
    parser.add_argument("--json", action="store_true", help="print one line of JSON only")
    arguments, passed_on = parser.parse_known_args()
    if arguments.harness is None or not (Path(arguments.harness) / "run.sh").exists():
        parser.error("--harness (or FOFOCA_BENCH): give the directory with run.sh and agentbench.py")
    return arguments, passed_on


def command_of(system: str, harness: Path, kinship_python: str) -> str:
    """Return the harness's name for a system."""
    fields = "{name} {bind} {seed} {key}"
    if system == "fofoca":
        return f"stdio:{sys.executable} {AGENT} {fields}"
    if system == "kinship":
        return f"stdio:{kinship_python} {harness}/agents/kinship_agent.py {fields} lan"
    return system


def compile_sources() -> None:
    """As an installation does: sixty agents must not compile a checkout sixty times (rivals come compiled)."""
    root = AGENT.parents[2]
    for folder in ("cluster", "node", "benchmarks/gossip"):
        compileall.compile_dir(root / folder, quiet=1)


def measure(system: str, count: int, arguments: argparse.Namespace, passed_on: list[str]) -> dict[str, object]:
    """Run one system once; an empty result when its run failed."""
    harness = Path(arguments.harness).resolve()
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "result.json"
        command = [str(harness / "run.sh"), "--sut", command_of(system, harness, arguments.kinship_python)]
        command += ["--n", str(count), "--out", str(out), *passed_on]
        environment = {**os.environ, "PYTHON": arguments.kinship_python}
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
        if done.returncode or not out.exists():
            print(f"{system} with {count} agents: the harness failed", file=sys.stderr)
            return {}
        result: dict[str, object] = json.loads(out.read_bytes())
        return result


def pick(result: dict[str, object], path: tuple[str, ...]) -> float | None:
    """Return one figure of a result."""
    value: object = result
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, int | float) else None


def table(results: dict[str, dict[str, object]]) -> str:
    """Return all figures as text, a column a run."""
    columns = list(results)
    lines = [f"{'':32s}" + "".join(f"{column:>12s}" for column in columns)]
    for label, path, digits in ROWS:
        figures = [pick(results[column], path) for column in columns]
        if any(figure is not None for figure in figures):
            cells = ["-" if figure is None else f"{figure:.{digits}f}" for figure in figures]
            lines.append(f"{label:32s}" + "".join(f"{cell:>12s}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    """Measure every system at every size."""
    arguments, passed_on = parse()
    compile_sources()
    results: dict[str, dict[str, object]] = {}
    for count in arguments.n:
        for system in arguments.systems:
            results[f"{system} {count}"] = measure(system, count, arguments, passed_on)
            if not arguments.json:
                print(f"{system} {count}: done", file=sys.stderr, flush=True)
    if arguments.json:
        figures = {column: {label: pick(result, path) for label, path, _ in ROWS} for column, result in results.items()}
        print(json.dumps(figures))
    else:
        print(table(results))


if __name__ == "__main__":
    main()
