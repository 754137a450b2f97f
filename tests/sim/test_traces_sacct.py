"""What sacct prints becomes a batch workload; what makes no sense is counted with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.errors import BadTrace, BadValue
from sim.traces.batch import read_batch
from sim.traces.sacct import read_sacct

FULL = Path(__file__).parent / "traces" / "sacct.txt"
HEADER = "JobID|User|Submit|Elapsed|Timelimit|ReqCPUS|AllocCPUS|State\n"
DUMP = HEADER + (
    "101|ana|2026-01-31T12:00:00|01:00:00|02:00:00|8|8|COMPLETED\n"
    "101.batch||2026-01-31T12:00:01|01:00:00||8|8|COMPLETED\n"
    "102_7|bo|2026-01-31T12:00:30|1-00:00:10|UNLIMITED|4|4|TIMEOUT\n"
    "103|ana|2026-01-31T12:01:00|00:00:00|00:30:00|4|0|CANCELLED by 1000\n"
    "104|ana|yesterday|00:10:00|00:30:00|4|4|COMPLETED\n"
    "105|bo|2026-01-31T12:02:00|00:10:00|00:05:00|0|2|COMPLETED\n"
    "broken line\n"
)


def write(folder: Path, text: str) -> Path:
    path = folder / "dump.txt"
    path.write_text(text)
    return path


def test_jobs_that_ran_are_taken_and_the_rest_is_counted(tmp_path: Path) -> None:
    found = read_sacct(write(tmp_path, DUMP))
    assert [tuple(job) for job in found.workload] == [
        (101, 0, 3600, 7200, 8, 1),
        (102, 30, 86_410, 86_410, 4, 2),
        (105, 120, 600, 600, 2, 2),
    ]
    assert found.processors == 8
    assert found.left_out == {"never ran": 1}
    assert [line for line, _ in found.bad.first] == [6, 8]


def test_raw_columns_count_in_seconds_and_minutes(tmp_path: Path) -> None:
    text = "JobIDRaw|Submit|ElapsedRaw|TimelimitRaw|NCPUS|\n7|1700000000|90|2|16|\n"
    (job,) = read_sacct(write(tmp_path, text)).workload
    assert (job.run_s, job.estimate_s, job.need, job.submit_s) == (90, 120, 16, 0)


def test_a_real_dump_with_all_its_oddities_is_read_job_by_job() -> None:
    """Steps, arrays, heterogeneous jobs, jobs without limits, requeued, cancelled, running and pending ones."""
    found = read_sacct(FULL)
    assert [(job.id, job.submit_s, job.run_s, job.estimate_s, job.need, job.user) for job in found.workload] == [
        (8801, 0, 3730, 14_400, 16, 1),
        (8803, 600, 93_784, 172_800, 4, 2),
        (8804, 600, 172_827, 172_827, 4, 2),
        (8805, 600, 165, 165, 4, 2),
        (8810, 1200, 910, 910, 8, 3),
        (8811, 1200, 910, 910, 32, 3),
        (8820, 3600, 30, 3600, 1, 4),
        (8830, 57_600, 36_000, 604_800, 2, 5),
        (8840, 61_200, 3600, 3600, 2, 1),
        (8840, 64_810, 7200, 7200, 2, 1),
    ]
    assert found.left_out == {"never ran": 2}
    assert [(line, why.partition(";")[0]) for line, why in found.bad.first] == [
        (18, "21 columns"),
        (19, "'INVALID' is no time such as 1-02:03:04"),
    ]


def test_processors_are_found_in_lists_of_resources(tmp_path: Path) -> None:
    rows = [line.split("|") for line in FULL.read_text().splitlines() if "|a|b|" not in line]
    only = "\n".join("|".join(row[place] for place in (1, 4, 7, 10, 11, 17, 18)) for row in rows)
    whole, listed = read_sacct(FULL).workload, read_sacct(write(tmp_path, only + "\n")).workload
    assert [tuple(job) for job in listed] == [tuple(job) for job in whole]


@pytest.mark.parametrize("separator", [" ", ",", ";", "\t"])
def test_what_sacct_prints_for_people_is_refused_with_advice(tmp_path: Path, separator: str) -> None:
    with pytest.raises(BadTrace, match="print with --parsable2"):
        read_batch(write(tmp_path, FULL.read_text().replace("|", separator)))


@pytest.mark.parametrize(
    ("change", "start"), [(("\n", "|\n"), ""), (("\n", "\r\n"), ""), (("", ""), "\ufeff")], ids=["-p", "crlf", "bom"]
)
def test_other_ends_of_lines_and_a_byte_order_mark_change_nothing(
    tmp_path: Path, change: tuple[str, str], start: str
) -> None:
    path = tmp_path / "dump.txt"
    path.write_bytes((start + DUMP.replace(*change)).encode())
    assert [tuple(job) for job in read_batch(path).workload] == [
        tuple(job) for job in read_sacct(write(tmp_path, DUMP)).workload
    ]


def test_jobs_larger_than_the_machine_are_left_out(tmp_path: Path) -> None:
    found = read_sacct(write(tmp_path, DUMP), processors=4)
    assert found.left_out["more processors than the machine has"] == 1
    assert len(found.workload) == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("JobID|User|Submit\n1|a|0\n", "no column elapsedraw or elapsed"),
        (HEADER, "no job that ran"),
        (HEADER + "1|a|2026-01-31T12:00:00|00:00:00|1|1|1|X\n", "no job that ran"),
    ],
)
def test_what_is_no_dump_is_refused_with_its_reason(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(BadTrace, match=why):
        read_sacct(write(tmp_path, text))


def test_a_strict_reader_ends_at_the_first_bad_line(tmp_path: Path) -> None:
    with pytest.raises(BadTrace, match=r":6: 'yesterday' is no date"):
        read_sacct(write(tmp_path, DUMP), strict=True)


def test_the_format_is_told_from_the_first_line(tmp_path: Path) -> None:
    assert len(read_batch(write(tmp_path, DUMP)).workload) == 3
    with pytest.raises(BadValue, match="only SWF"):
        read_batch(write(tmp_path, DUMP), strong=True)
    swf = write(tmp_path, "; MaxProcs: 4\n1 0 0 10 2 -1 -1 2 20 -1 1 1 -1 -1 -1 -1 -1 -1\n")
    assert read_batch(swf).processors == 4
