"""One suite for every container runtime: what `node.runtime.protocol` promises, on each backend."""

from __future__ import annotations

import io
import math
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio

from node.host.cgroups import MoreLimits
from node.host.network import ensure_bridge, remove_interface
from node.host.volumes import VolumeRoot
from node.runtime import (
    ContainerError,
    ContainerSpec,
    Exit,
    NetworkSpec,
    Runtime,
    SpecError,
    StartError,
    UnknownContainerError,
    UnsupportedError,
    UpdateError,
    lxc_obstacles,
    reduced,
    unmet,
)
from node.runtime.fake import FakeHost, FakeRuntime
from node.runtime.limits import Device, FurtherLimits
from node.runtime.lxc.lxc import LxcRuntime
from node.runtime.parts import FileMounts, Privileges, VolumeMount
from node.runtime.process import ProcessRuntime
from node.runtime.protocol import Feature
from node.runtime.twin.inside import ids_of
from scheduler.spec.files import Scratch, Tmpfs
from scheduler.spec.limits import Rlimit

BUSYBOX = shutil.which("busybox")
LXC_MISSING = [*lxc_obstacles(), *([] if BUSYBOX else ["no busybox"])]
needs_lxc = pytest.mark.skipif(bool(LXC_MISSING), reason="; ".join(LXC_MISSING))
BACKENDS = [
    "fake",
    "process",
    "process-twin",
    pytest.param("lxc", marks=[pytest.mark.lxc, pytest.mark.root, needs_lxc]),
    pytest.param("lxc-twin", marks=[pytest.mark.lxc, pytest.mark.root, needs_lxc]),
]


@dataclass
class Backend:
    """A runtime, how to get the next agent's handle on the same containers, and commands in its language."""

    kind: str
    open: Callable[[], Runtime]
    base: dict[str, Any]

    def spec(self, name: str, argv: tuple[str, ...], **changes: Any) -> ContainerSpec:
        return ContainerSpec(name=name, argv=argv, **{**self.base, **changes})

    def _words(self, fake: tuple[str, ...], shell: str) -> tuple[str, ...]:
        return fake if self.kind == "fake" else ("/bin/sh", "-c", shell)

    def exits(self, code: int) -> tuple[str, ...]:
        return self._words(("exit", str(code)), f"exit {code}")

    def sleeps(self, seconds: float, code: int = 0) -> tuple[str, ...]:
        return self._words(("sleep", str(seconds), str(code)), f"sleep {seconds}; exit {code}")

    def stubborn(self) -> tuple[str, ...]:
        return self._words(("stubborn",), "trap '' TERM; echo deaf; while :; do sleep 1; done")

    def traps(self, name: str, code: int) -> tuple[str, ...]:
        line = f"trap 'exit {code}' {name}; trap '' TERM; echo deaf; while :; do sleep 0.05; done"
        return self._words(("traps", name, str(code)), line)

    def tells_umask(self) -> tuple[str, ...]:
        return self._words(("write", "0022"), "umask")

    def writes(self, text: str) -> tuple[str, ...]:
        return self._words(("write", text), f"echo {text}")


@pytest.fixture(params=BACKENDS)
async def backend(
    request: pytest.FixtureRequest, busybox_image: Path, supervisors: dict[str, tuple[str, ...]]
) -> AsyncIterator[Backend]:
    kind, _, variant = request.param.partition("-")
    program = supervisors[variant or "compiled"]
    root = Path(tempfile.mkdtemp(prefix="fofoca-runtime."))
    root.chmod(0o711)
    host, cgroup_root = FakeHost(), f"fofoca-test-{os.getpid()}/{root.name[-8:]}"
    match kind:
        case "fake":
            found = Backend(kind, lambda: FakeRuntime(host), {})
        case "process":
            found = Backend(kind, lambda: ProcessRuntime(root, program), {})
        case _:
            base = {
                "rootfs": busybox_image,
                "user_base": 300_000,
                "memory_bytes": 64 << 20,
                "cpu_milli": 100,
                "pids_max": 50,
            }
            found = Backend(kind, lambda: LxcRuntime(root, program, cgroup_root), base)
    try:
        yield found
    finally:
        with trio.CancelScope(shield=True):
            await found.open().purge()
        shutil.rmtree(root)


async def started(runtime: Runtime, spec: ContainerSpec) -> None:
    await runtime.prepare(spec)
    await runtime.start(spec)


async def deaf(runtime: Runtime, spec: ContainerSpec) -> None:
    """Started, and no longer listening to SIGTERM."""
    await started(runtime, spec)
    with trio.fail_after(10):
        while not runtime.read_log(spec.name, "stdout", 0, 10).data:
            await trio.sleep(0.005)


async def run(runtime: Runtime, spec: ContainerSpec) -> Exit:
    await started(runtime, spec)
    with trio.fail_after(20):
        return await runtime.wait(spec.name)


@pytest.mark.parametrize("code", [0, 1, 7, 255])
async def test_the_exit_code_is_the_commands_own(backend: Backend, code: int) -> None:
    ending = await run(backend.open(), backend.spec("1.1.1", backend.exits(code)))
    assert (ending.exit_code, ending.signal, ending.error) == (code, None, None)
    assert ending.started_unix_s is not None
    assert ending.started_unix_s <= ending.ended_unix_s


async def test_others_inside_may_read_what_a_command_writes_though_nobody_may_what_the_agent_does(
    backend: Backend,
) -> None:
    runtime, spec = backend.open(), backend.spec("1.1.1", backend.tells_umask())
    await runtime.prepare(spec)
    before = os.umask(0o077)
    try:
        await runtime.start(spec)
    finally:
        os.umask(before)
    await runtime.wait(spec.name)
    assert runtime.read_log("1.1.1", "stdout", 0, 10).data.strip() == b"0022"


async def test_a_command_that_does_not_exist_is_told_by_its_name(backend: Backend) -> None:
    runtime = backend.open()
    spec = backend.spec("1.1.1", ("missing",))
    await runtime.prepare(spec)
    try:
        await runtime.start(spec)
        reason = (await runtime.wait(spec.name)).error
    except StartError as error:
        reason = error.reason
    assert reason is not None
    assert "missing" in reason
    assert (await runtime.wait(spec.name)).error is not None


async def test_all_who_wait_get_the_same_exit(backend: Backend) -> None:
    runtime = backend.open()
    await started(runtime, backend.spec("1.1.1", backend.sleeps(0.2, 3)))
    endings: list[Exit] = []

    async def waiter() -> None:
        endings.append(await runtime.wait("1.1.1"))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(waiter)
    assert len(set(endings)) == 1
    assert endings[0].exit_code == 3


@pytest.mark.parametrize("after_s", [0, 1.5])
async def test_what_a_command_leaves_behind_ends_with_it(backend: Backend, after_s: float) -> None:
    if backend.kind == "fake":
        pytest.skip("its commands start nothing")
    line = f"(trap '' TERM HUP; while :; do sleep 1; done) & sleep {after_s}; exit 3"
    ending = await run(backend.open(), backend.spec("1.1.1", ("/bin/sh", "-c", line)))
    assert (ending.exit_code, ending.error) == (3, None)


async def test_a_command_that_was_seen_before_a_new_agent_came_still_ends_all(backend: Backend) -> None:
    if backend.kind == "fake":
        pytest.skip("its commands start nothing")
    await started(backend.open(), backend.spec("1.1.1", ("/bin/sh", "-c", "sleep 600 & sleep 0.5; exit 4")))
    runtime = backend.open()
    await runtime.recover()
    with trio.fail_after(30):
        assert (await runtime.wait("1.1.1")).exit_code == 4


async def test_a_container_that_is_slow_to_end_has_its_commands_exit_code(backend: Backend) -> None:
    """As on a host where very many end at once: LXC's init gets no time for seconds."""
    if backend.kind != "lxc":
        pytest.skip("only LXC has an init of its own")
    runtime = backend.open()
    assert isinstance(runtime, LxcRuntime)
    await started(runtime, backend.spec("1.1.1", ("/bin/sleep", "1")))
    lists = [each for path in runtime._cgroups.directories("1.1.1") for each in path.rglob("cgroup.procs")]
    inside = {int(word) for path in lists for word in path.read_text().split()}
    init = next(pid for pid in inside if ids_of(pid)[1:] == ["1"])
    os.kill(init, signal.SIGSTOP)
    try:
        await trio.sleep(5.0)
    finally:
        os.kill(init, signal.SIGCONT)
    with trio.fail_after(30):
        assert (await runtime.wait("1.1.1")).exit_code == 0


async def test_stop_lets_a_command_end_by_itself(backend: Backend) -> None:
    runtime = backend.open()
    await started(runtime, backend.spec("1.1.1", backend.sleeps(60)))
    with trio.fail_after(10):
        await runtime.stop("1.1.1", grace_s=30)
        ending = await runtime.wait("1.1.1")
    assert (ending.exit_code, ending.signal, ending.timed_out) == (143, 15, False)


async def test_stop_kills_what_does_not_listen_after_the_grace(backend: Backend) -> None:
    runtime = backend.open()
    await deaf(runtime, backend.spec("1.1.1", backend.stubborn()))
    with trio.fail_after(20):
        await runtime.stop("1.1.1", grace_s=0.3)
        with trio.move_on_after(0.1) as too_early:
            await runtime.wait("1.1.1")
        ending = await runtime.wait("1.1.1")
    assert too_early.cancelled_caught
    assert (ending.exit_code, ending.signal) == (137, 9)


@pytest.mark.parametrize("name", ["USR1", "QUIT", "WINCH"])
async def test_stop_tells_by_the_signal_that_was_asked_for(backend: Backend, name: str) -> None:
    runtime = backend.open()
    spec = backend.spec("1.1.1", backend.traps(name, 7), stop_signal=name, stop_grace_s=60.0)
    await (started if backend.kind == "fake" else deaf)(runtime, spec)
    await runtime.stop("1.1.1", 60)
    with trio.fail_after(30):
        assert (await runtime.wait("1.1.1")).exit_code == 7


async def test_the_time_limit_tells_by_that_signal_too(backend: Backend) -> None:
    spec = backend.spec("1.1.1", backend.traps("INT", 9), stop_signal="INT", stop_grace_s=60.0, time_limit_s=1.0)
    ending = await run(backend.open(), spec)
    assert (ending.exit_code, ending.timed_out) == (9, True)


async def test_a_warning_comes_before_the_time_limit(backend: Backend) -> None:
    spec = backend.spec("1.1.1", backend.traps("USR2", 5), time_limit_s=600.0, warn_signal="USR2", warn_s=599.0)
    ending = await run(backend.open(), spec)
    assert (ending.exit_code, ending.timed_out) == (5, False)


async def test_a_warning_longer_than_the_limit_comes_at_once(backend: Backend) -> None:
    spec = backend.spec("1.1.1", backend.traps("USR1", 5), time_limit_s=60.0, warn_signal="USR1", warn_s=120.0)
    if backend.kind != "fake":  # it may come before the shell has set its trap, and then ends it
        spec = replace(spec, argv=("/bin/sh", "-c", "while :; do sleep 0.05; done"))
    ending = await run(backend.open(), spec)
    assert ending.timed_out is False
    assert ending.exit_code in (5, 128 + signal.SIGUSR1)


@pytest.mark.parametrize(("alone", "output"), [(False, b"child\nparent\n"), (True, b"parent\n")])
async def test_a_warning_may_be_for_the_command_alone(backend: Backend, alone: bool, output: bytes) -> None:
    if backend.kind == "fake":
        pytest.skip("its commands start nothing")
    child = "trap 'echo child; exit' USR1; while :; do sleep 0.05; done"
    line = f"sh -c \"{child}\" & trap 'sleep 0.3; echo parent; exit 3' USR1; while :; do sleep 0.05; done"
    runtime = backend.open()
    warning = {"time_limit_s": 100.0, "warn_signal": "USR1", "warn_s": 99.0, "warn_alone": alone}
    ending = await run(runtime, backend.spec("1.1.1", ("/bin/sh", "-c", line), **warning))
    assert (ending.exit_code, ending.timed_out) == (3, False)
    assert runtime.read_log("1.1.1", "stdout", 0, 100).data == output


async def test_a_frozen_container_is_warned_when_it_goes_on(backend: Backend) -> None:
    runtime = backend.open()
    if backend.kind == "fake" or "freeze" not in runtime.features:
        pytest.skip("nothing to freeze")
    spec = backend.spec("1.1.1", backend.traps("USR1", 5), time_limit_s=600.0, warn_signal="USR1", warn_s=598.8)
    await deaf(runtime, spec)
    await runtime.freeze("1.1.1")
    await trio.sleep(1.5)
    assert runtime.is_frozen("1.1.1")
    await runtime.thaw("1.1.1")
    with trio.fail_after(30):
        assert (await runtime.wait("1.1.1")).exit_code == 5


def test_signals_have_names() -> None:
    for fields in ({"stop_signal": "SIGTERM"}, {"stop_signal": ""}, {"warn_signal": "nine"}, {"warn_s": -1.0}):
        with pytest.raises(SpecError, match=next(iter(fields))):
            ContainerSpec(name="1.1.1", argv=("true",), **fields)  # type: ignore[arg-type]


async def test_kill_waits_for_nobody(backend: Backend) -> None:
    runtime = backend.open()
    await deaf(runtime, backend.spec("1.1.1", backend.stubborn()))
    with trio.fail_after(10):
        await runtime.kill("1.1.1")
        assert (await runtime.wait("1.1.1")).exit_code == 137


async def test_a_second_stop_may_shorten_the_grace(backend: Backend) -> None:
    runtime = backend.open()
    await deaf(runtime, backend.spec("1.1.1", backend.stubborn()))
    with trio.fail_after(10):
        await runtime.stop("1.1.1", grace_s=60)
        await runtime.kill("1.1.1")
        assert (await runtime.wait("1.1.1")).exit_code == 137


async def test_stopping_what_has_ended_changes_nothing(backend: Backend) -> None:
    runtime = backend.open()
    ending = await run(runtime, backend.spec("1.1.1", backend.exits(4)))
    await runtime.stop("1.1.1", 1)
    await runtime.kill("1.1.1")
    assert await runtime.wait("1.1.1") == ending


async def test_the_time_limit_ends_it_and_says_so(backend: Backend) -> None:
    runtime = backend.open()
    ending = await run(runtime, backend.spec("1.1.1", backend.sleeps(60), time_limit_s=0.3))
    assert ending.timed_out
    assert ending.exit_code == 143


async def test_after_the_time_limit_a_grace_then_death(backend: Backend) -> None:
    spec = backend.spec("1.1.1", backend.stubborn(), time_limit_s=0.5, stop_grace_s=0.2)
    ending = await run(backend.open(), spec)
    assert ending.timed_out
    assert ending.exit_code == 137


async def test_a_lease_that_is_not_renewed_ends_it(backend: Backend) -> None:
    runtime = backend.open()
    await started(runtime, backend.spec("1.1.1", backend.sleeps(60)))
    await runtime.set_lease("1.1.1", 0.3)
    with trio.fail_after(10):
        ending = await runtime.wait("1.1.1")
    assert ending.lease_expired
    assert not ending.timed_out


async def test_a_renewed_lease_keeps_it_running(backend: Backend) -> None:
    runtime = backend.open()
    await started(runtime, backend.spec("1.1.1", backend.sleeps(1.0, 5)))
    for _ in range(6):
        await runtime.set_lease("1.1.1", 0.5)
        await trio.sleep(0.1)
    await runtime.set_lease("1.1.1", 60)
    with trio.fail_after(10):
        ending = await runtime.wait("1.1.1")
    assert (ending.exit_code, ending.lease_expired) == (5, False)


async def test_output_is_read_by_offset(backend: Backend) -> None:
    runtime = backend.open()
    await run(runtime, backend.spec("1.1.1", backend.writes("hello")))
    chunk = runtime.read_log("1.1.1", "stdout", 0, 100)
    assert (chunk.offset, chunk.data, chunk.size) == (0, b"hello\n", 6)
    assert runtime.read_log("1.1.1", "stdout", 2, 2).data == b"ll"
    assert runtime.read_log("1.1.1", "stdout", 6, 100).data == b""
    assert runtime.read_log("1.1.1", "stderr", 0, 100).data == b""


async def test_a_new_agent_takes_over_what_runs(backend: Backend) -> None:
    former = backend.open()
    spec = backend.spec("1.1.1", backend.sleeps(0.7, 9), labels=(("owner", "ana"),))
    await started(former, spec)
    runtime = backend.open()
    (found,) = await runtime.recover()
    assert (found.name, found.running, found.exit, found.spec) == ("1.1.1", True, None, spec)
    assert "1.1.1" in runtime.usage()
    with trio.fail_after(10):
        assert (await runtime.wait("1.1.1")).exit_code == 9


async def test_a_new_agent_learns_what_ended_while_nobody_watched(backend: Backend) -> None:
    former = backend.open()
    await run(former, backend.spec("1.1.1", backend.exits(6)))
    (found,) = await backend.open().recover()
    assert not found.running
    assert found.exit is not None
    assert found.exit.exit_code == 6


async def test_what_was_never_started_is_told_as_ended_with_a_reason(backend: Backend) -> None:
    await backend.open().prepare(backend.spec("1.1.1", backend.sleeps(60)))
    runtime = backend.open()
    (found,) = await runtime.recover()
    assert not found.running
    assert found.exit is not None
    assert found.exit.exit_code is None
    assert found.exit.error is not None
    assert await runtime.wait("1.1.1") == found.exit


async def test_removing_ends_it_and_forgets_it(backend: Backend) -> None:
    runtime = backend.open()
    await deaf(runtime, backend.spec("1.1.1", backend.stubborn()))
    with trio.fail_after(10):
        await runtime.remove("1.1.1")
    await runtime.remove("1.1.1")
    await runtime.remove("never.was")
    assert "1.1.1" not in runtime.usage()
    assert await backend.open().recover() == []
    with pytest.raises(UnknownContainerError):
        await runtime.wait("1.1.1")
    with pytest.raises(UnknownContainerError):
        await runtime.stop("1.1.1", 1)
    with pytest.raises(UnknownContainerError):
        runtime.read_log("1.1.1", "stdout", 0, 1)


async def test_what_was_reserved_first_runs_as_if_it_had_not_been(backend: Backend) -> None:
    runtime, spec = backend.open(), backend.spec("1.1.1", backend.exits(5))
    await runtime.reserve(spec)
    assert (await run(runtime, spec)).exit_code == 5
    await runtime.remove(spec.name)
    await runtime.reserve(spec)
    assert (await run(runtime, spec)).exit_code == 5


async def test_removing_takes_back_what_was_only_reserved(backend: Backend) -> None:
    runtime, spec = backend.open(), backend.spec("1.1.1", backend.exits(5))
    await runtime.reserve(spec)
    await runtime.remove(spec.name)
    assert await backend.open().recover() == []
    assert (await run(runtime, spec)).exit_code == 5


async def test_a_name_in_use_is_refused_and_its_holder_unharmed(backend: Backend) -> None:
    runtime = backend.open()
    await started(runtime, backend.spec("1.1.1", backend.sleeps(0.3, 2)))
    with pytest.raises(SpecError, match="name"):
        await runtime.prepare(backend.spec("1.1.1", backend.exits(0)))
    with trio.fail_after(10):
        assert (await runtime.wait("1.1.1")).exit_code == 2


async def test_usage_names_the_running_alone(backend: Backend) -> None:
    runtime = backend.open()
    await started(runtime, backend.spec("1.1.1", backend.sleeps(60)))
    await run(runtime, backend.spec("1.1.2", backend.exits(0)))
    await runtime.prepare(backend.spec("1.1.3", backend.exits(0)))
    usage = runtime.usage()
    assert set(usage) == {"1.1.1"}
    assert usage["1.1.1"].pids >= 1


async def test_many_run_at_once(backend: Backend) -> None:
    runtime = backend.open()
    endings: dict[str, int | None] = {}

    async def one(number: int) -> None:
        name = f"1.{number}.1"
        ending = await run(runtime, backend.spec(name, backend.exits(number)))
        endings[name] = ending.exit_code
        await runtime.remove(name)

    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(one, number)
    assert endings == {f"1.{number}.1": number for number in range(12)}


async def test_what_a_runtime_cannot_do_it_refuses_by_name(backend: Backend) -> None:
    runtime = backend.open()
    spec = backend.spec("1.1.1", backend.exits(0), memory_bytes=1 << 20, hostname="here", user_base=300_000)
    missing = unmet(spec, runtime.features)
    if not missing:
        return
    with pytest.raises(UnsupportedError) as caught:
        await runtime.prepare(spec)
    assert caught.value.features == missing
    assert all(feature in str(caught.value) for feature in missing)
    assert await runtime.recover() == []


@pytest.mark.parametrize(
    "wish",
    [
        {"files": FileMounts(tmpfs=(Tmpfs(target="/cache", size_bytes=1 << 20),))},
        {"files": FileMounts(scratch=Scratch(size_bytes=8 << 20))},
        {"files": FileMounts(read_only_root=True)},
        {"files": FileMounts(root_bytes=8 << 20)},
        {
            "files": FileMounts(
                volumes=(VolumeMount(VolumeRoot("here", Path(tempfile.gettempdir())), "ana", "", "/data", False),)
            )
        },
        {"files": FileMounts(secrets=Path("/dev/shm"))},
        {"privileges": Privileges(("kill",))},
        {"privileges": Privileges(masked_paths=("/proc/version",))},
    ],
    ids=lambda wish: str(next(iter(wish.values())))[:40],
)
async def test_files_and_privileges_are_given_or_refused_by_name_and_never_left_out(
    backend: Backend, wish: dict[str, Any]
) -> None:
    runtime = backend.open()
    spec = reduced(backend.spec("1.1.1", backend.exits(7), **wish), runtime.features)
    missing = unmet(spec, runtime.features)
    if not missing:
        assert (await run(runtime, spec)).exit_code == 7
        return
    with pytest.raises(UnsupportedError) as caught:
        await runtime.prepare(spec)
    assert caught.value.features == missing
    assert await runtime.recover() == []


async def test_limits_change_while_it_runs_and_the_next_agent_knows_them(backend: Backend) -> None:
    runtime = backend.open()
    before = backend.spec("1.1.1", backend.sleeps(60), memory_bytes=64 << 20, pids_max=20)
    if unmet(before, runtime.features):
        before = reduced(before, runtime.features)
    await started(runtime, before)
    after = replace(before, memory_bytes=96 << 20, pids_max=30)
    missing = unmet(after, runtime.features)
    if missing:
        with pytest.raises(UnsupportedError) as caught:
            await runtime.update(after)
        assert caught.value.features == missing
        after = before
    await runtime.update(after)
    (found,) = await backend.open().recover()
    assert (found.running, found.spec) == (True, after)


async def test_what_has_ended_or_never_was_keeps_its_limits(backend: Backend) -> None:
    runtime = backend.open()
    spec = backend.spec("1.1.1", backend.exits(0))
    await run(runtime, spec)
    with pytest.raises(UpdateError, match="does not run"):
        await runtime.update(spec)
    with pytest.raises(UnknownContainerError):
        await runtime.update(backend.spec("2.1.1", backend.exits(0)))


@pytest.mark.parametrize(
    ("feature", "limits"),
    [
        ("limits", FurtherLimits(groups=MoreLimits(memory_soft_bytes=1 << 20))),
        ("rlimits", FurtherLimits(rlimits=(Rlimit(name="core", soft=0),))),
        ("devices", FurtherLimits(devices=(Device(Path("/dev/null"), "c 1:3 rw"),))),
    ],
)
async def test_further_limits_are_held_or_refused_by_name(
    backend: Backend, feature: Feature, limits: FurtherLimits
) -> None:
    runtime = backend.open()
    spec = backend.spec("1.1.1", backend.exits(0), limits=limits)
    if feature in runtime.features:
        assert (await run(runtime, spec)).exit_code == 0
        return
    with pytest.raises(UnsupportedError, match=feature):
        await runtime.prepare(spec)


async def test_waiting_for_what_was_not_started_is_an_error_and_no_hang(backend: Backend) -> None:
    runtime = backend.open()
    await runtime.prepare(backend.spec("1.1.1", backend.exits(0)))
    with pytest.raises(UnknownContainerError), trio.fail_after(5):
        await runtime.wait("1.1.1")


def test_a_time_limit_is_a_number() -> None:
    with pytest.raises(SpecError, match="time_limit_s"):
        ContainerSpec(name="a", argv=("x",), time_limit_s=math.nan)


async def test_a_frozen_container_stands_still_and_goes_on(backend: Backend) -> None:
    runtime = backend.open()
    await started(runtime, backend.spec("1.1.1", backend.sleeps(30)))
    if "freeze" not in runtime.features:
        with pytest.raises(UnsupportedError, match="freeze"):
            await runtime.freeze("1.1.1")
        assert not runtime.is_frozen("1.1.1")
        return
    await runtime.freeze("1.1.1")
    await runtime.freeze("1.1.1")
    assert backend.open().is_frozen("1.1.1"), "for the next agent too"
    await runtime.thaw("1.1.1")
    await runtime.thaw("1.1.1")
    assert not runtime.is_frozen("1.1.1")


@pytest.mark.parametrize("grace_s", [60.0, 0.0])
async def test_a_frozen_container_can_be_ended(backend: Backend, grace_s: float) -> None:
    runtime = backend.open()
    if "freeze" not in runtime.features:
        return
    await started(runtime, backend.spec("1.1.1", backend.sleeps(30)))
    await runtime.freeze("1.1.1")
    await runtime.stop("1.1.1", grace_s)
    with trio.fail_after(20):
        assert (await runtime.wait("1.1.1")).exit_code == (143 if grace_s else 137)
    assert not runtime.is_frozen("1.1.1")


async def test_what_does_not_run_is_neither_frozen_nor_entered(backend: Backend) -> None:
    runtime = backend.open()
    await run(runtime, backend.spec("1.1.1", backend.exits(0)))
    for attempt in (runtime.freeze, runtime.thaw):
        with pytest.raises(ContainerError):
            await attempt("1.1.1")
    with pytest.raises(ContainerError):
        runtime.entrance("1.1.1")
    assert not runtime.is_frozen("never.1.1")


async def test_a_command_inside_has_its_own_exit_code_and_output(backend: Backend) -> None:
    runtime = backend.open()
    await started(runtime, backend.spec("1.1.1", backend.sleeps(30)))
    if "enter" not in runtime.features:
        with pytest.raises(UnsupportedError, match="enter"):
            runtime.entrance("1.1.1")
        return
    entrance = runtime.entrance("1.1.1")
    words = [*entrance.command, "/bin/sh", "-c", "cat; exit 7"]
    done = await trio.run_process(words, stdin=b"hello", capture_stdout=True, check=False)
    assert (done.returncode, done.stdout) == (7, b"hello")


async def test_files_are_copied_in_and_out(backend: Backend, tmp_path: Path) -> None:
    runtime = backend.open()
    await started(runtime, backend.spec("1.1.1", backend.sleeps(30)))
    if "enter" not in runtime.features:
        return
    (tmp_path / "word").write_text("hello")
    place = str(tmp_path / "placed") if backend.kind == "fake" else "/placed"
    tar = subprocess.run(["tar", "-C", str(tmp_path), "-c", "word"], capture_output=True, check=True).stdout
    files = runtime.entrance("1.1.1").files
    await trio.run_process([*files, "put", place], stdin=tar)
    done = await trio.run_process([*files, "get", place], capture_stdout=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as found:
        assert found.getnames() == ["placed"]
        content = found.extractfile("placed")
        assert content is not None
        assert content.read() == b"hello"
    missing = await trio.run_process([*files, "get", "/no/such"], capture_stderr=True, check=False)
    assert missing.returncode == 1
    assert b"/no/such: No such file" in missing.stderr


async def test_containers_of_a_group_are_in_one_network_as_long_as_one_of_them_lives(backend: Backend) -> None:
    """The first one ends, the agent dies in between, and the network stays as it was; the last one takes it along."""
    bridge = f"ffg{os.getpid()}"
    network = NetworkSpec(bridge=bridge, address="10.93.9.2/24", rate_in=1_000_000, group="1.0.1.net")
    serve = (f"echo heard | nc -l -p 9{each}" for each in (1, 2))
    ask = "n=0; until nc -w 5 127.0.0.1 9{} </dev/null 2>/dev/null || [ $((n += 1)) -gt 100 ]; do sleep 0.1; done"
    first, second = (
        backend.spec(
            f"1.{index}.1", backend._words(("sleep", "60"), f"{line} & sleep 60"), network=network, user_base=300_000
        )
        for index, line in enumerate(serve)
    )
    runtime = backend.open()
    if missing := unmet(first, runtime.features):
        assert "network" in missing
        with pytest.raises(UnsupportedError, match="network"):
            await runtime.prepare(first)
        return
    if backend.kind == "fake":
        return
    ensure_bridge(bridge, "10.93.9.1/24")
    try:
        await started(runtime, first)
        runtime = backend.open()
        assert [found.running for found in await runtime.recover()] == [True]
        await started(runtime, second)
        assert await inside(runtime, second.name, ask.format(1)) == "heard"
        assert len(list(Path(f"/sys/class/net/{bridge}/brif").iterdir())) == 1
        await runtime.remove(first.name)
        assert "10.93.9.2" in await inside(runtime, second.name, "ip -4 -o address show dev eth0")
        third = backend.spec("1.2.1", ("/bin/sh", "-c", ask.format(2)), network=network)
        await run(runtime, third)
        assert runtime.read_log(third.name, "stdout", 0, 100).data == b"heard\n"
        for each in (second, third):
            await runtime.remove(each.name)
        assert not list(Path(f"/sys/class/net/{bridge}/brif").iterdir())
    finally:
        remove_interface(bridge)


async def inside(runtime: Runtime, name: str, line: str) -> str:
    """What a shell line says inside a container that runs."""
    command = [*runtime.entrance(name).command, "/bin/sh", "-c", line]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    return (done.stdout + done.stderr).decode().strip()
