"""Commands, copies, freezing and thawing, through any node of a real lab."""

from __future__ import annotations

import hashlib
import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.command_line import FOFOCA, CommandLine, eventually, stop

pytestmark = [pytest.mark.xdist_group("lab"), pytest.mark.slow, pytest.mark.root, pytest.mark.lxc]


@pytest.fixture(scope="module")
def task(fofoca: CommandLine) -> Iterator[int]:
    """A task on n2; the first node asked is n1, also its home."""
    fofoca.ok("lab", "up", "--nodes", 2)
    id = fofoca.submit(
        "--cpu", "100m", "--memory", "32M", "--constraint", "node=n2", "--image", "busybox", "--", "sleep", "600"
    )
    eventually("the task runs", lambda: fofoca.ok("job", id, "--json").json["state"] == "running")
    yield id
    fofoca("lab", "down")


def test_output_errors_and_exit_code_are_the_commands_own(fofoca: CommandLine, task: int) -> None:
    ran = fofoca("exec", task, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (ran.code, ran.out, ran.err) == (7, "out\n", "err\n")
    assert fofoca("exec", task, "--", "sh", "-c", "kill -9 $$").code == 137


def test_input_and_its_end_arrive(fofoca: CommandLine, task: int) -> None:
    text = "some words\n" * 100_000
    ran = fofoca.ok("exec", "-i", task, "--", "md5sum", stdin=text)
    assert ran.out.split()[0] == hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def test_a_terminal_is_one_and_its_exit_code_comes_back(fofoca: CommandLine, task: int) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(FOFOCA, ["fofoca", "exec", "-it", str(task), "--", "sh"], fofoca.full_environment())
    seen, deadline, answered = b"", time.monotonic() + 20, False
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                seen += os.read(terminal, 4096)
            except OSError:
                break
        if b"#" in seen and not answered:
            os.write(terminal, b"test -t 0 && exit 5\r")
            answered = True
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5, seen


def test_files_come_back_as_they_went(fofoca: CommandLine, task: int, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "data").write_bytes(os.urandom(3_000_000))
    (folder / "link").symlink_to("data")
    (folder / "away").symlink_to("/etc/passwd")
    assert fofoca.ok("exec", task, "--", "sh", "-c", "umask").out == "0022\n"
    fofoca.ok("cp", folder, f"{task}:/inside")
    fofoca.ok("cp", folder / "away", f"{task}:/inside/away")
    assert "/inside/away" in fofoca.ok("exec", task, "--", "find", "/inside", "-type", "l").out
    assert "lead out of the copy: the link back/away\n" in fofoca.ok("cp", f"{task}:/inside", tmp_path / "back").err
    assert (tmp_path / "back" / "data").read_bytes() == (folder / "data").read_bytes()
    assert os.readlink(tmp_path / "back" / "link") == "data"
    assert "neither a file nor a folder" in fofoca("cp", f"{task}:/dev/null", tmp_path).err
    missing = fofoca("cp", f"{task}:/missing", tmp_path)
    assert missing.code == 1
    assert "/missing: No such file" in missing.err


def test_a_frozen_task_is_not_entered_until_it_is_thawed(fofoca: CommandLine, task: int) -> None:
    fofoca.ok("freeze", task)
    refused = fofoca("exec", task, "--", "true")
    assert refused.code == 2
    assert "frozen" in refused.err
    fofoca.ok("thaw", f"{task}.0")
    fofoca.ok("exec", task, "--", "true")


def test_what_does_not_run_is_said(fofoca: CommandLine, task: int) -> None:
    assert "no job 99001" in fofoca("exec", 99001, "--", "true").err
    assert "no task 7" in fofoca("exec", f"{task}.7", "--", "true").err
    assert "expected a job's ID" in fofoca("exec", "../x", "--", "true").err


def test_a_job_can_be_run_as_if_it_were_here(fofoca: CommandLine) -> None:
    small = ("--image", "busybox", "--cpu", "100m", "--memory", "32M")
    ran = fofoca("run", *small, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (ran.code, ran.out) == (7, "out\n")
    assert ran.err.startswith("err\n")
    assert "exit code 7" in ran.err


def test_ending_a_run_cancels_its_job(fofoca: CommandLine) -> None:
    """By SIGTERM: where tests run in the background, SIGINT is ignored by all of them."""
    words = [FOFOCA, "run", "--image", "busybox", "--cpu", "100m", "--memory", "32M", "--name", "endless"]
    words += ["--", "sh", "-c", "while :; do echo here; sleep 1; done"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, env=fofoca.full_environment())
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        process.terminate()
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert [job["state"] for job in fofoca.ok("jobs", "--json").json if job["name"] == "endless"] == ["cancelled"]


def test_what_runs_inside_for_somebody_ends_with_the_agent(fofoca: CommandLine, task: int) -> None:
    """Nobody could ever read it, or end it."""
    number = str(700_000 + os.getpid())
    left = ("exec", task, "--", "sh", "-c", f"ps | grep -v grep | grep -c 'sleep {number}'")
    process = fofoca.start("exec", task, "--", "sleep", number)
    try:
        eventually("it runs", lambda: fofoca(*left).out.strip() != "0")
        fofoca.ok("lab", "kill", "n2")
        fofoca.ok("lab", "start", "n2")
        eventually("it is gone", lambda: fofoca(*left).out.strip() == "0")
        assert fofoca.job(task)["state"] == "running"
    finally:
        stop(process)
