"""The SWF reader: what counts as a job, what is left out, what is a bad line."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import pytest

from sim.errors import BadTrace
from sim.traces.batch import read_batch
from sim.traces.swf import read_swf, write_swf
from sim.workload import Job


def line(job: int, submit: object = 0, run: object = 10, alloc: int = 4, need: int = 4, limit: object = 60) -> str:
    return f"{job} {submit} 7 {run} {alloc} -1 -1 {need} {limit} -1 1 3 3 -1 -1 -1 -1 -1\n"


def write(folder: Path, *lines: str, header: str = "; MaxProcs: 8\n") -> Path:
    path = folder / "trace.swf"
    path.write_text(header + "".join(lines))
    return path


def test_a_job_is_read_with_its_times_processors_and_user(tmp_path: Path) -> None:
    trace = read_swf(write(tmp_path, line(1, 5)))
    assert list(trace.workload) == [Job(1, 5, 10, 60, 4, 3)]
    assert trace.processors == 8


def test_gzip_is_known_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "trace.swf"
    path.write_bytes(gzip.compress(("; MaxProcs: 8\n" + line(1)).encode()))
    assert len(read_swf(path).workload) == 1


def test_a_given_machine_size_goes_before_the_headers(tmp_path: Path) -> None:
    assert read_swf(write(tmp_path, line(1)), processors=100).processors == 100


def test_times_may_have_fractions_and_whole_ones_stay_whole(tmp_path: Path) -> None:
    (job,) = read_swf(write(tmp_path, line(1, 5.5, 10.25, limit=60))).workload
    assert (job.submit_s, job.run_s, job.estimate_s) == (5.5, 10.25, 60)
    assert isinstance(job.estimate_s, int)


def test_jobs_come_out_in_order_of_submission_and_equal_ones_as_they_stand(tmp_path: Path) -> None:
    trace = read_swf(write(tmp_path, line(1, 9), line(2, 3), line(3, 9), line(4, 3)))
    assert trace.workload.ids == [2, 4, 1, 3]


def test_without_a_filter_the_trace_is_taken_at_its_word(tmp_path: Path) -> None:
    trace = read_swf(
        write(
            tmp_path,
            line(1, run=100, limit=60),
            line(2, limit=-1),
            line(3, need=-1, alloc=2),
            line(4, run=-1),
            line(5, need=9),
            line(6, need=-1, alloc=-1),
            line(7, submit=-1),
            line(8, run=0),
            line(9, need=2, alloc=9),
        )
    )
    jobs = {job.id: job for job in trace.workload}
    assert sorted(jobs) == [1, 2, 3, 8, 9]
    assert (jobs[1].run_s, jobs[1].estimate_s) == (100, 100)
    assert (jobs[2].estimate_s, jobs[3].need, jobs[8].run_s, jobs[9].need) == (10, 2, 0, 2)
    assert trace.left_out == {
        "no run time": 1,
        "more processors than the machine has": 1,
        "no processors": 1,
        "no submit time": 1,
    }


def test_the_strong_filter_is_the_published_one(tmp_path: Path) -> None:
    trace = read_swf(
        write(
            tmp_path,
            line(1, run=100, limit=60),
            line(2, limit=-1),
            line(3, need=-1, alloc=2),
            line(4, run=0),
            line(5, need=9),
            line(6, need=2, alloc=9),
            line(7, submit=-1),
            line(8, need=3, alloc=-1),
            line(9, need=-1, alloc=-1),
        ),
        strong=True,
    )
    assert [(job.id, job.run_s, job.estimate_s, job.need) for job in trace.workload] == [
        (1, 60, 60, 4),
        (3, 10, 60, 2),
        (8, 10, 60, 3),
    ]


def test_bad_lines_are_counted_with_their_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, line(1), "1 2 3\n", "\n", line(2, run="soon"), line(3, run="nan"), line(4).strip() + " 9\n")
    trace = read_swf(path)
    assert trace.workload.ids == [1]
    assert trace.bad.count == 4
    assert trace.bad.first == [
        (3, "3 fields; a job has 18"),
        (5, "'soon' is no number"),
        (6, "'nan' is no number of seconds"),
        (7, "19 fields; a job has 18"),
    ]


def test_a_strict_reader_ends_at_the_first_bad_line(tmp_path: Path) -> None:
    with pytest.raises(BadTrace, match=r"trace\.swf:3: 3 fields; a job has 18"):
        read_swf(write(tmp_path, line(1), "1 2 3\n"), strict=True)


def test_only_the_first_bad_lines_are_kept(tmp_path: Path) -> None:
    trace = read_swf(write(tmp_path, line(1), *["x\n"] * 1000))
    assert trace.bad.count == 1000
    assert len(trace.bad.first) == 100


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no job that can run"),
        (b"hello\n", "no job that can run .1 bad lines.; is it SWF"),
        (line(1).encode(), "give --processors"),
        (gzip.compress(b"; MaxProcs: 8\n" * 100, mtime=0)[:-20], "cannot be unpacked"),
        (b"\xff\xfe\x00\x01" * 50, "no job that can run"),
    ],
)
def test_what_is_no_trace_is_refused_in_one_line(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "trace.swf"
    path.write_bytes(content)
    with pytest.raises(BadTrace, match=why) as error:
        read_swf(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadTrace, match=r"nowhere\.swf: no such file or directory"):
        read_swf(tmp_path / "nowhere.swf")
    with pytest.raises(BadTrace, match="is a directory"):
        read_swf(tmp_path)


def test_what_is_written_can_be_read_again(tmp_path: Path) -> None:
    trace = read_swf(write(tmp_path, line(1, 5), line(2, 6.5)))
    out = io.StringIO()
    write_swf(out, trace.workload, 8, [7, None])
    path = tmp_path / "again.swf"
    path.write_text(out.getvalue())
    again = read_swf(path)
    assert list(again.workload) == list(trace.workload)
    assert again.processors == 8
    waits = [row.split()[2] for row in out.getvalue().splitlines() if not row.startswith(";")]
    assert waits == ["2", "-1"]


def test_a_header_without_processors_may_say_nodes(tmp_path: Path) -> None:
    assert read_swf(write(tmp_path, line(1), header="; MaxProcs: -1\n; MaxNodes: 9\n")).processors == 9
    assert read_swf(write(tmp_path, line(1), header="; MaxNodes: 2\n; MaxProcs: 8\n")).processors == 8


def test_a_pipe_is_refused_rather_than_read_without_its_beginning(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadTrace, match="is a pipe"):
        read_batch(tmp_path / "pipe")
