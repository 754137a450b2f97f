"""`fofoca sim run`: replay a trace under one or several policies, and say how it went.

Only what the command line adds is here: options, progress, interruption, files. The rest is the package `sim`, which is
imported when the command runs.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from node.cli import failures
from node.cli.failures import Failure

if TYPE_CHECKING:
    from sim.replay import Schedule
    from sim.traces.swf import SwfTrace

REFRESH_S = 0.1


@click.command(short_help="Replay a trace under a policy.")
@click.argument("trace", required=False, metavar="[TRACE]")
@click.option("--processors", type=int, metavar="N", help="Size of the machine; else as the trace's header says.")
@click.option("--policy", "policies", multiple=True, metavar="NAME",
              help="fcfs, easy, sjbf or conservative; may be repeated to compare. Default: easy.")  # fmt: skip
@click.option("--clairvoyant", is_flag=True, help="Plan with the true run times instead of the users' estimates.")
@click.option("--filter", "strong", type=click.Choice(["none", "strong"]), default="none", show_default=True,
              help="Which jobs of the trace count.")  # fmt: skip
@click.option("--strict", is_flag=True, help="End at the first bad line instead of counting them.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON document.")
@click.option("--schedule", metavar="OUT.swf", help="Write every job with its wait, as SWF.")
@click.option("--csv", metavar="OUT.csv", help="Write every job with its start, end, wait and slowdown, as CSV.")
@click.option("--report", metavar="OUT.html", help="Write one HTML page with tables and plots; it needs nothing else.")
def run(trace: str | None, policies: tuple[str, ...], **options: Any) -> None:
    """Replay a batch trace (SWF, plain or gzip) on a machine of equal processors.

    \b
    fofoca sim run KTH-SP2.swf.gz --processors 100 --policy easy --filter strong
    fofoca sim run KTH-SP2.swf.gz --policy easy --policy sjbf --report compare.html

    Ctrl-C ends the replay and gives the results so far (exit code 130).
    """
    from sim.errors import SimulationError

    try:
        complete = _batch(trace, policies or ("easy",), **options)
    except SimulationError as error:
        raise Failure(str(error)) from None
    if not complete:
        raise Failure("interrupted; the results are those of the jobs that had ended", failures.INTERRUPTED)


def _batch(
    trace: str | None, policies: Sequence[str], processors: int | None, clairvoyant: bool, strong: str, strict: bool,
    as_json: bool, **files: str | None,
) -> bool:  # fmt: skip
    from sim.replay import check_policy, replay
    from sim.traces.swf import read_swf

    if trace is None:
        raise Failure("TRACE: nothing to replay; name an SWF file")
    for policy in policies:
        check_policy(policy)
    if processors is not None and processors < 1:
        raise Failure(f"--processors: {processors} is not valid; at least 1")
    for name, path in files.items():
        _check_writable(f"--{name}", path)
    source = read_swf(trace, processors or 0, strong == "strong", strict)
    schedules = []
    for policy in policies:
        with _watching(policy, len(source.workload)) as watch:
            schedules.append(replay(source.workload, source.processors, policy, clairvoyant, watch))
        if not schedules[-1].complete:
            break
    _write_files(schedules, source, files)
    _print(schedules, source, as_json, strong)
    return schedules[-1].complete


def _check_writable(option: str, path: str | None) -> None:
    """Say now, and not after a long replay, that a result has no place to go."""
    if path is not None and (Path(path).is_dir() or not Path(path).absolute().parent.is_dir()):
        raise Failure(f"{option}: {path} cannot be written; name a file in a folder that exists")


@contextmanager
def _watching(title: str, total: int) -> Iterator[Callable[[int, float], bool]]:
    """A watcher that shows progress on a terminal and ends the replay on Ctrl-C."""
    stopped = []
    before = signal.signal(signal.SIGINT, lambda _number, _frame: stopped.append(True))
    shows = sys.stderr.isatty()
    began = shown = time.monotonic()

    def watch(done: int, virtual_s: float) -> bool:
        nonlocal shown
        now = time.monotonic()
        if shows and now - shown >= REFRESH_S:
            shown = now
            sys.stderr.write("\r" + _progress(title, done, total, now - began, virtual_s) + "\x1b[K")
        return not stopped

    try:
        yield watch
    finally:
        signal.signal(signal.SIGINT, before)
        if shown > began:
            sys.stderr.write("\r\x1b[K")


def _progress(title: str, done: int, total: int, passed_s: float, virtual_s: float) -> str:
    from node.cli.show import bar

    speed = done / passed_s if passed_s else 0.0
    left_s = (total - done) / speed if speed else 0.0
    share = done / total if total else 1.0
    counts = f"{done:,} of {total:,}  {speed:,.0f}/s  day {virtual_s / 86_400:,.1f}"
    return f"{title} {bar(share, 20)} {share:4.0%}  {counts}  ETA {left_s:.0f}s"


def _write_files(schedules: list[Schedule], source: SwfTrace, files: dict[str, str | None]) -> None:
    from sim.results import write_csv
    from sim.traces.swf import write_swf

    for each in schedules:
        several = each.policy if len(schedules) > 1 else ""
        if files["schedule"]:
            with _open(files["schedule"], several) as out:
                write_swf(out, each.workload, each.processors, each.starts_s)
        if files["csv"]:
            with _open(files["csv"], several) as out:
                write_csv(out, each)
    if files["report"]:
        from sim.report import batch_report

        with _open(files["report"], "") as out:
            out.write(batch_report(schedules, title=source.workload.name))


@contextmanager
def _open(path: str, several: str) -> Iterator[Any]:
    """Open a result; with several policies, each one's name goes before the suffix."""
    target = Path(path)
    if several:
        target = target.with_name(f"{target.stem}-{several}{target.suffix}")
    try:
        with target.open("w", encoding="utf-8") as out:
            yield out
    except OSError as error:
        raise Failure(f"{target}: cannot be written: {error.strerror}") from None


def _print(schedules: list[Schedule], source: SwfTrace, as_json: bool, strong: str) -> None:
    from node.cli.show import print_json, print_table
    from sim.results import Summary, summarise

    summaries = [summarise(each) for each in schedules]
    if as_json:
        about = {
            "trace": source.workload.name,
            "filter": strong,
            "complete": schedules[-1].complete,
            "bad_lines": source.bad.count,
            "first_bad_lines": [{"line": line, "why": why} for line, why in source.bad.first[:10]],
            "left_out": source.left_out,
        }
        runs = [each._asdict() for each in summaries]
        print_json({**runs[0], **about} if len(runs) == 1 else {**about, "runs": runs})
        return
    rows = [[name, *(_cell(name, getattr(each, name)) for each in summaries)] for name in Summary._fields[1:]]
    print_table(["", *(each.policy for each in summaries)], rows)
    for line, why in source.bad.first[:5]:
        print(f"bad line {source.bad.path}:{line}: {why}", file=sys.stderr)
    if source.bad.count > 5:
        print(f"... {source.bad.count} bad lines in all", file=sys.stderr)
    for why, count in source.left_out.items():
        print(f"left out: {count} jobs ({why})", file=sys.stderr)


def _cell(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    return f"{value:.4f}"
