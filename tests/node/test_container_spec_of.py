"""What becomes of an allocation's wishes: limits that are always set, an environment that is clean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.config import Runtime
from node.container_spec import NoCommand, container_spec, result
from node.host.image_config import ImageConfig
from node.host.image_stack import ImageStack
from node.runtime.protocol import ContainerSpec, Exit
from scheduler.model import Allocation, AllocationId, JobSpec, Resources, Result
from scheduler.spec.networking import Networking
from scheduler.validate import validate

MIB = 1 << 20


def made(settings: Runtime | None = None, stack: ImageStack | None = None, **spec: Any) -> ContainerSpec:
    job = JobSpec(name="job", argv=("true",), request=Resources(250, 64 * MIB))
    job = msgspec.structs.replace(job, **spec)
    allocation = Allocation(AllocationId(12001, 3, 2), "n1", "ann", job)
    return container_spec(
        allocation, settings or Runtime(), node="n2", cpu_milli_max=4000, image=stack or ImageStack((Path("/image"),)),
        user_base=100_000,
    )  # fmt: skip


def test_open_limits_are_the_requested_memory_and_the_nodes_cpu() -> None:
    spec = made()
    assert (spec.memory_bytes, spec.cpu_milli, spec.cpu_limit_milli) == (64 * MIB, 250, 4000)
    assert made(request=Resources(8000, 64 * MIB)).cpu_limit_milli == 8000


def test_limits_that_were_asked_for_are_kept() -> None:
    spec = made(limit=Resources(500, 128 * MIB))
    assert (spec.memory_bytes, spec.cpu_milli, spec.cpu_limit_milli) == (128 * MIB, 250, 500)


def test_a_task_gets_the_nodes_processes_unless_it_asks_for_less() -> None:
    assert made(Runtime(pids_max=100)).pids_max == 100
    assert made(Runtime(pids_max=100), pids_max=20).pids_max == 20


def test_temporary_files_in_memory_leave_half_of_it_to_the_task() -> None:
    assert made().tmpfs_bytes == 32 * MIB
    assert made(Runtime(tmpfs_bytes=MIB)).tmpfs_bytes == MIB


def test_the_environment_is_clean_and_the_users_word_is_the_last() -> None:
    env = dict(made(env=(("HOME", "/work"), ("A", "b"))).env)
    assert env.pop("PATH")
    assert env == {
        "HOME": "/work",
        "A": "b",
        "FOFOCA_JOB_ID": "12001",
        "FOFOCA_TASK_INDEX": "3",
        "FOFOCA_ATTEMPT": "2",
        "FOFOCA_NODE": "n2",
    }


CONFIG = ImageConfig(("/bin/serve",), ("--all",), (("PATH", "/app"), ("HOME", "/h"), ("LANG", "C")), "7:8", "/srv")


def test_what_a_job_leaves_open_is_as_its_image_says(tmp_path: Path) -> None:
    image = ImageStack((tmp_path, tmp_path / "base"), CONFIG)
    spec = made(stack=image, argv=(), image="web;base", env=(("LANG", "pt"),))
    assert spec.argv == ("/bin/serve", "--all")
    assert (spec.workdir, spec.user, spec.rootfs, spec.bases) == ("/srv", (7, 8), tmp_path, (tmp_path / "base",))
    env = dict(spec.env)
    assert (env["PATH"], env["HOME"], env["LANG"], env["FOFOCA_NODE"]) == ("/app", "/h", "pt", "n2")
    assert made(stack=image, argv=("/bin/other",)).argv == ("/bin/other",)


def test_a_job_without_any_command_is_told_so() -> None:
    with pytest.raises(NoCommand, match="image web has none of its own"):
        made(argv=(), image="web")


def test_a_container_is_called_as_its_allocation() -> None:
    assert (made().name, made().hostname) == ("12001.3.2", "job12001-3")
    assert made(networking=Networking(hostname="b-u-shimoo-1")).hostname == "b-u-shimoo-1"


amounts = st.builds(Resources, st.integers(1, 10_000), st.integers(MIB, 1 << 40))


@given(amounts, st.booleans(), st.integers(1, 10_000))
def test_whatever_a_home_takes_makes_a_container(request_: Resources, limited: bool, pids_max: int) -> None:
    job = JobSpec(name="job", argv=("true",), request=request_, pids_max=pids_max)
    if limited:
        job = msgspec.structs.replace(job, limit=request_)
    validate(job)
    fields = {"request": job.request, "limit": job.limit, "pids_max": pids_max}
    spec = made(**fields)
    assert 0 < spec.memory_bytes <= max(job.limit.memory_bytes, job.request.memory_bytes)
    assert spec.cpu_limit_milli is not None
    assert spec.cpu_limit_milli >= 10


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        (Exit(exit_code=0, started_unix_s=1.0), Result(exit_code=0, started_unix_s=1.0)),
        (Exit(exit_code=137, signal=9, oom_killed=True), Result(exit_code=137, signal=9, oom_killed=True)),
        (Exit(exit_code=143, signal=15, timed_out=True), Result(exit_code=143, signal=15, timed_out=True)),
        (Exit(error="it never ran"), Result(error="it never ran")),
    ],
)  # fmt: skip
def test_an_exit_becomes_the_same_result(ending: Exit, expected: Result) -> None:
    assert result(ending) == expected
