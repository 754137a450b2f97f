"""From an allocation to the container that its node makes of it, and from an exit to a result.

Pure translation: the words of the scheduler on one side, those of the runtime on the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from node.config import Runtime as RuntimeSettings
from node.host.errors import ImageError
from node.host.image_config import EMPTY, ImageConfig
from node.host.image_stack import ImageStack, User
from node.runtime.protocol import ContainerSpec, Exit
from scheduler.model import Allocation, JobSpec, Result

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TMPFS_SHARE_MAX = 2
"""A container's temporary files in memory are charged to it; they may fill one part in this many of its memory."""

CPU_LIMIT_MILLI_MIN = 10
"""The smallest quota that the kernel's CPU bandwidth control keeps well."""


LEASE_PASSED = "its lease passed without an answer from its home"


class NoCommand(ImageError):
    """Neither the job nor its image says what to run; no other node could tell either."""


@dataclass(frozen=True, slots=True)
class UsualLimits:
    """By the names of ContainerSpec."""

    memory_bytes: int
    cpu_milli: int
    cpu_limit_milli: int
    pids_max: int


def container_spec(
    allocation: Allocation,
    settings: RuntimeSettings,
    *,
    node: str,
    cpu_milli_max: int,
    image: ImageStack | None,
    user_base: int,
) -> ContainerSpec:
    """Return the container for an allocation, without a network.

    A limit that the job leaves open is set all the same: memory to what was requested, CPU to what the node offers to
    tasks, so that idle cores may be used and the host's own share may not. What the job leaves open of its command,
    environment, user and directory is as its image says. Raises ImageError.
    """
    spec = allocation.spec
    user = image.user() if image is not None else User()
    config = image.config if image is not None else EMPTY
    limits = usual_limits(spec, settings, cpu_milli_max)
    return ContainerSpec(
        name=str(allocation.id),
        argv=spec.argv or _command(spec, image),
        env=_environment(allocation, node, config, user),
        rootfs=image.roots[0] if image is not None else None,
        bases=image.roots[1:] if image is not None else (),
        workdir=config.workdir or "/",
        user=(user.uid, user.gid),
        hostname=spec.networking.hostname or f"job{allocation.id.job}-{allocation.id.index}",
        user_base=user_base,
        memory_bytes=limits.memory_bytes,
        cpu_milli=limits.cpu_milli,
        cpu_limit_milli=limits.cpu_limit_milli,
        pids_max=limits.pids_max,
        time_limit_s=spec.time_limit_s,
        stop_grace_s=spec.stop_grace_s,
        stop_signal=spec.life.stop_signal,
        warn_signal=spec.life.warn_signal,
        warn_s=spec.life.warn_s,
        warn_alone=spec.life.warn_alone,
        log_bytes_max=settings.log_bytes_max,
        tmpfs_bytes=min(settings.tmpfs_bytes, limits.memory_bytes // TMPFS_SHARE_MAX or settings.tmpfs_bytes),
    )


def usual_limits(spec: JobSpec, settings: RuntimeSettings, cpu_milli_max: int) -> UsualLimits:
    """Return what holds for every container, at its start and when its job is changed."""
    return UsualLimits(
        memory_bytes=spec.limit.memory_bytes or spec.request.memory_bytes,
        cpu_milli=spec.request.cpu_milli,
        cpu_limit_milli=max(spec.limit.cpu_milli or max(cpu_milli_max, spec.request.cpu_milli), CPU_LIMIT_MILLI_MIN),
        pids_max=min(spec.pids_max, settings.pids_max),
    )


def _command(spec: JobSpec, image: ImageStack | None) -> tuple[str, ...]:
    if image is None:
        raise NoCommand("the job names no command, and this node runs plain processes, which know no image's")
    if not image.config.command:
        raise NoCommand(f"the job names no command, and the image {spec.image} has none of its own")
    return image.config.command


def _environment(allocation: Allocation, node: str, config: ImageConfig, user: User) -> tuple[tuple[str, str], ...]:
    """Return the task's clean environment: ours, then the image's, so that the user's word is the last."""
    known = {
        "PATH": PATH,
        "HOME": user.home,
        **dict(config.env),
        "FOFOCA_JOB_ID": str(allocation.id.job),
        "FOFOCA_TASK_INDEX": str(allocation.id.index),
        "FOFOCA_ATTEMPT": str(allocation.id.attempt),
        "FOFOCA_NODE": node,
        **_gang_environment(allocation),
    }
    return tuple({**known, **dict(allocation.spec.env)}.items())


def _gang_environment(allocation: Allocation) -> dict[str, str]:
    """Return what a member of a gang is told: its rank, how many there are, and where the others are."""
    gang, job = allocation.spec.gang, allocation.id.job
    if gang is None:
        return {}
    return {
        "FOFOCA_RANK": str(allocation.id.index),
        "FOFOCA_LOCAL_RANK": str(allocation.id.index % gang.tasks_per_node),
        "FOFOCA_SIZE": str(gang.size),
        "FOFOCA_TASKS_PER_NODE": str(gang.tasks_per_node),
        "FOFOCA_PEERS": ",".join(f"job{job}-{rank}" for rank in range(gang.size)),
        "FOFOCA_NODES": ",".join(allocation.gang_nodes),
    }


def result(exit_: Exit) -> Result:
    """Return the result of an attempt whose container ended like this. One stopped by its lease has none of its own."""
    return Result(
        exit_code=None if exit_.lease_expired else exit_.exit_code,
        signal=None if exit_.lease_expired else exit_.signal,
        oom_killed=exit_.oom_killed,
        timed_out=exit_.timed_out,
        error=LEASE_PASSED if exit_.lease_expired else exit_.error,
        memory_peak_bytes=exit_.memory_peak_bytes,
        cpu_ns=exit_.cpu_ns,
        started_unix_s=exit_.started_unix_s or 0.0,
        ended_unix_s=exit_.ended_unix_s,
    )
