"""The supervisor by itself, compiled and twin: what it records, keeps, ends and leaves."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import trio

from node.runtime import supervisor
from node.runtime.directory import ContainerDirectory
from node.runtime.logs import read_log
from node.runtime.protocol import ContainerSpec, Exit
from node.runtime.supervisor import Spawned, spawn, wait_gone

Start = Callable[..., ContainerDirectory]


@pytest.fixture(params=["compiled", "twin"])
def program(request: pytest.FixtureRequest, supervisors: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    return supervisors[request.param]


@pytest.fixture
def start(program: tuple[str, ...], tmp_path: Path) -> Iterator[Start]:
    """Starts a supervisor of a shell line; all are dead when the test is over."""
    spawned: list[Spawned] = []

    def begin(line: str, **orders: object) -> ContainerDirectory:
        directory = ContainerDirectory(tmp_path / f"c{len(spawned)}")
        directory.create(ContainerSpec(name="c", argv=("sh",)))
        directory.write_orders({"kind": "process", **orders}.items())
        spawned.append(spawn(program, directory, ["/bin/sh", "-c", line], {"PATH": os.environ["PATH"]}))
        return directory

    yield begin
    for one in spawned:
        one.close()
        try:
            os.kill(one.pid, signal.SIGKILL)
            os.waitpid(one.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


async def exit_of(directory: ContainerDirectory) -> Exit:
    with trio.fail_after(20):
        await wait_gone(directory)
    ending = directory.exit()
    assert ending is not None
    return ending


async def output(directory: ContainerDirectory, size: int = 1) -> bytes:
    with trio.fail_after(10):
        while len(chunk := read_log(directory.path, "stdout", 0, 1 << 20).data) < size:
            await trio.sleep(0.005)
    return chunk


async def test_short_output_is_kept_whole(start: Start) -> None:
    directory = start("for i in 1 2 3; do echo line $i; done; echo oops >&2", log_bytes=16384)
    assert (await exit_of(directory)).exit_code == 0
    assert read_log(directory.path, "stdout", 0, 1000).data == b"line 1\nline 2\nline 3\n"
    assert read_log(directory.path, "stderr", 0, 1000).data == b"oops\n"


@pytest.mark.parametrize("lines", [100, 5_000, 30_000])
async def test_of_a_flood_head_and_tail_are_kept_within_the_bound(start: Start, lines: int) -> None:
    bound, total = 16384, lines * 8
    directory = start(f"seq -f %07.0f 1 {lines}", log_bytes=bound)
    await exit_of(directory)
    kept = sum(path.stat().st_size for path in directory.path.glob("stdout*"))
    assert kept <= bound
    assert kept == total or kept >= bound // 2
    seen, offset = b"", 0
    while (chunk := read_log(directory.path, "stdout", offset, 1000)).data:
        for start_at in range(chunk.offset + (-chunk.offset % 8), chunk.offset + len(chunk.data) - 7, 8):
            line = chunk.data[start_at - chunk.offset :][:8]
            assert line == b"%07d\n" % (start_at // 8 + 1), "an offset tells the byte's place in the stream"
        seen += chunk.data
        offset = chunk.offset + len(chunk.data)
    assert offset == chunk.size == total
    assert seen.startswith(b"0000001\n")
    assert seen.endswith(b"%07d\n" % lines)


async def test_what_a_command_leaves_behind_is_killed(start: Start) -> None:
    nap = f"sleep {10_000_000 + os.getpid()}"
    directory = start(f"{nap} & setsid {nap} & (setsid {nap} &) ; sleep 0.1; exit 3")
    ending = await exit_of(directory)
    assert ending.exit_code == 3
    assert not [process for process in psutil.process_iter(["cmdline"]) if nap.split() == process.info["cmdline"]]


async def test_a_killed_supervisor_takes_its_command_along(start: Start) -> None:
    directory = start("echo $$; exec sleep 654")
    pid = int(await output(directory))
    supervisor.send_signal(directory, signal.SIGKILL)
    with trio.fail_after(10):
        await wait_gone(directory)
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text():
            await trio.sleep(0.005)
    assert directory.exit() is None


async def test_the_command_gets_no_descriptor_and_no_variable_of_ours(start: Start, tmp_path: Path) -> None:
    secret = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        directory = start("ls /proc/self/fd | wc -l; env | cut -d= -f1 | sort")
        await exit_of(directory)
    finally:
        os.close(secret)
    words = read_log(directory.path, "stdout", 0, 1000).data.split()
    assert words[0] == b"4", "stdin, stdout, stderr, and the directory that ls reads"
    assert set(words[1:]) <= {b"PATH", b"PWD", b"SHLVL", b"_", b"OLDPWD"}


async def test_the_lock_lasts_exactly_as_long_as_the_supervisor(start: Start) -> None:
    directory = start("sleep 0.3")
    assert directory.is_locked()
    assert directory.is_locked(), "asking does not take it"
    with pytest.raises(BlockingIOError):
        directory.lock()
    await exit_of(directory)
    assert not directory.is_locked()


async def test_a_command_that_fills_no_pipe_and_one_that_closes_them_both_end(start: Start) -> None:
    quiet, closing = start("exec >&- 2>&-; exit 5"), start("exit 6")
    assert (await exit_of(quiet)).exit_code == 5
    assert (await exit_of(closing)).exit_code == 6


async def test_signals_are_told_as_shells_do(start: Start) -> None:
    ending = await exit_of(start("kill -SEGV $$"))
    assert (ending.exit_code, ending.signal) == (139, 11)


async def test_a_stop_before_the_first_instruction_is_not_lost(start: Start) -> None:
    directory = start("trap '' TERM; sleep 60")
    directory.write("stop", b"0")
    with trio.fail_after(10):
        while not supervisor.send_signal(directory, signal.SIGHUP) and directory.is_locked():  # it may be quicker
            await trio.sleep(0)
        assert (await exit_of(directory)).exit_code in (None, 137)


async def test_peak_and_cpu_time_are_measured(start: Start) -> None:
    ending = await exit_of(start("head -c 3000000 /dev/urandom | wc -c"))
    assert ending.cpu_ns > 1_000_000
    assert ending.memory_peak_bytes > 100_000


async def test_an_expired_lease_that_was_there_from_the_start_ends_it_at_once(start: Start) -> None:
    directory = start("sleep 0.2; exec sleep 60")
    directory.write("lease", b"1")
    supervisor.send_signal(directory, signal.SIGHUP)
    assert (await exit_of(directory)).lease_expired


async def test_a_missing_working_directory_is_told(start: Start) -> None:
    ending = await exit_of(start("true", workdir="/no/such/place"))
    assert ending.exit_code is None
    assert ending.error is not None
    assert "No such file" in ending.error


async def test_a_supervisor_survives_its_starters_process_group(start: Start) -> None:
    directory = start("sleep 60")
    pid = directory_pid(directory)
    assert os.getsid(pid) != os.getsid(0)
    assert os.getpgid(pid) == pid


def directory_pid(directory: ContainerDirectory) -> int:
    deadline = time.monotonic() + 10
    while (pid := directory.supervisor_pid()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return pid


@pytest.mark.parametrize("compiler", ["gcc", "tcc", "clang"])
def test_any_compiler_will_do(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    (binary,) = supervisor.build(tmp_path, [compiler])
    assert Path(binary).parent == tmp_path
    assert supervisor.build(tmp_path, []) == (binary,), "compiled once"


def test_without_a_compiler_the_twin_serves(tmp_path: Path) -> None:
    assert supervisor.build(tmp_path, ["no-such-compiler"]) == (sys.executable, "-I", "-S", str(supervisor.TWIN))


async def test_a_supervisor_costs_less_than_a_megabyte(supervisors: dict[str, tuple[str, ...]], tmp_path: Path) -> None:
    if len(supervisors["compiled"]) > 1:
        pytest.skip("no compiler")
    directory = ContainerDirectory(tmp_path / "c")
    directory.create(ContainerSpec(name="c", argv=("sh",)))
    directory.write_orders([("kind", "process")])
    spawned = spawn(supervisors["compiled"], directory, ["/bin/sleep", "60"], {})
    try:
        assert await spawned.started()
        rollup = Path(f"/proc/{spawned.pid}/smaps_rollup").read_text()
        pss_kb = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        assert pss_kb < 1024
    finally:
        os.kill(spawned.pid, signal.SIGKILL)
        os.waitpid(spawned.pid, 0)
