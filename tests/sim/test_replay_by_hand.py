"""Odd traces, from text to starts, against a reading and a replay written down a second time, as plainly as can be."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import NamedTuple

import pytest

from sim.errors import BadTrace
from sim.replay import replay_jobs
from sim.traces.swf import read_swf


class Plain(NamedTuple):
    id: int
    submit: int
    run: int
    estimate: int
    need: int


def line(id: int, submit: int, run: int, allocated: int, requested: int, limit: int, user: int = 1) -> str:
    return f"{id} {submit} -1 {run} {allocated} -1 -1 {requested} {limit} -1 1 {user} -1 -1 -1 -1 -1 -1"


def odd_lines(seed: int, count: int = 60) -> list[str]:
    """Many equal times, unknown fields, jobs of no time, too wide ones, run times beyond the request; not in order."""
    rng = random.Random(seed)
    lines = []
    for number in range(1, count + 1):
        run = rng.choice((-1, 0, 0, 1, 5, 9, 10, 11, 60))
        limit = rng.choice((-1, 0, 1, 5, 10, 60, 100))
        allocated, requested = rng.choice((-1, 0, 1, 2, 4, 7, 8, 9)), rng.choice((-1, 0, 1, 3, 8, 12))
        lines.append(line(number, rng.choice((-1, *range(0, 40, 5))), run, allocated, requested, limit))
    return lines


def by_hand(lines: list[str], machine: int, strong: bool) -> list[Plain]:
    jobs = []
    for each in lines:
        f = [int(word) for word in each.split()]
        submit, run, allocated, requested, limit = f[1], f[3], f[4], f[7], f[8]
        need = requested if requested > 0 else allocated
        if submit < 0 or need <= 0:
            continue
        if strong:
            if max(allocated, requested) > machine or run <= 0 or limit <= 0:
                continue
            run, estimate = min(run, limit), limit
        else:
            if run < 0 or need > machine:
                continue
            estimate = max(run, limit)
        jobs.append(Plain(f[0], submit, run, estimate, need))
    return sorted(jobs, key=lambda job: job.submit)


def play(jobs: list[Plain], machine: int, policy: str, clairvoyant: bool) -> dict[int, int]:
    """One event at a time, a whole pass after each; at one instant submissions, then ends in the order of starts.

    What has reached its estimated end when an event comes is free from then on.
    """
    coming, running, waiting = list(jobs), [], []
    starts: dict[int, int] = {}
    due: set[int] = set()

    def estimate(job: Plain) -> int:
        return job.run if clairvoyant else job.estimate

    def end(job: Plain) -> int:
        return starts[job.id] + estimate(job)

    def free(moment: float) -> int:
        return machine - sum(job.need for job in running if job.id not in due and end(job) > moment)

    def free_now() -> int:
        return free(-1)

    def start(job: Plain, now: int) -> None:
        starts[job.id] = now
        waiting.remove(job)
        running.append(job)

    while coming or running:
        ends = [starts[job.id] + job.run for job in running]
        if coming and (not ends or coming[0].submit <= min(ends)):
            now = coming[0].submit
            waiting.append(coming.pop(0))
        else:
            now = min(ends)
            running.pop(ends.index(now))
        due = {job.id for job in running if end(job) <= now}
        while waiting and waiting[0].need <= free_now():
            start(waiting[0], now)
        if policy == "fcfs" or not waiting:
            continue
        head = waiting[0]
        shadow = min(at for at in map(end, running) if at >= now and free(at) >= head.need)
        order = sorted(waiting[1:], key=estimate) if policy == "sjbf" else waiting[1:]
        for job in order:
            extra = free(shadow) - head.need
            if job.need <= free_now() and (now + estimate(job) <= shadow or job.need <= extra):
                start(job, now)
    return starts


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("strong", [False, True])
def test_odd_traces_are_read_and_played_as_by_hand(seed: int, strong: bool, tmp_path: Path) -> None:
    lines = odd_lines(seed)
    path = tmp_path / "odd.swf.gz"
    path.write_bytes(gzip.compress(("; MaxProcs: 8\r\n;\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode()))
    trace, expected = read_swf(path, strong=strong), by_hand(lines, 8, strong)
    assert trace.bad.count == 0
    assert sum(trace.left_out.values()) + len(expected) == len(lines)
    work = trace.workload
    assert list(zip(work.ids, work.submit_s, work.run_s, work.estimate_s, work.needs, strict=True)) == expected
    for policy in ("fcfs", "easy", "sjbf"):
        for clairvoyant in (False, True):
            schedule = replay_jobs(work, 8, policy, clairvoyant)
            told = f"seed {seed}, {policy}, clairvoyant {clairvoyant}"
            assert dict(zip(work.ids, schedule.starts_s, strict=True)) == play(expected, 8, policy, clairvoyant), told


def test_a_job_of_no_time_starts_ends_and_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "x.swf"
    path.write_text("\n".join([line(1, 0, 0, 8, 8, 0), line(2, 0, 0, 8, 8, 0), line(3, 0, 5, 8, 8, 5)]))
    work = read_swf(path, processors=8).workload
    for policy in ("fcfs", "easy", "sjbf", "conservative"):
        assert replay_jobs(work, 8, policy).starts_s == [0, 0, 0], policy


def test_comments_between_jobs_and_spaces_around_fields_mean_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.swf"
    path.write_text(f"; MaxProcs: 4\n\n  {line(1, 0, 5, 2, 2, 5)}  \n; a note\n\t{line(2, 1, 5, 2, 2, 5)}\n;")
    trace = read_swf(path)
    assert (trace.workload.ids, trace.bad.count, trace.processors) == ([1, 2], 0, 4)


@pytest.mark.parametrize("cut", [5, 100, -9])
def test_a_gzip_that_is_cut_off_is_refused_in_one_line(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "x.swf.gz"
    rng = random.Random(1)
    text = "; MaxProcs: 4\n" + "\n".join(line(n, n, rng.randrange(9999), 1, 1, 9999) for n in range(200))
    path.write_bytes(gzip.compress(text.encode())[:cut])
    with pytest.raises(BadTrace) as refused:
        read_swf(path)
    assert "\n" not in str(refused.value)
