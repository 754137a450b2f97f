"""Other ways to run one container, each set up on its own and taken away again: crun, runc, podman, docker.

The job of all is a static program that prints CLOCK_MONOTONIC, which containers share with the machine: "running" is
that moment. A way is a context manager that yields a function; it takes a number of its own, runs one container, and
returns the milliseconds from just before the spawn to running, and to the end of the command that was spawned. The
functions may be called from several threads at once. Nothing is left behind.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from start_overhead import make_image

from node.host.cgroups import remove_tree

STAMP_SOURCE = r"""
#include <stdio.h>
#include <time.h>
int main(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
    return 0;
}
"""
CGROUPS = Path("/sys/fs/cgroup")
ULIMITS = ("--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000")
"""Podman asks for more than a root without CAP_SYS_RESOURCE may give."""
NAMESPACES = ("pid", "network", "ipc", "uts", "mount")
CAPABILITIES = ("CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETUID", "CAP_SETGID")


class Took(NamedTuple):
    """Milliseconds from the request."""

    running_ms: float
    exit_ms: float


Run = Callable[[int], Took]


def timed(command: Sequence[object], env: dict[str, str] | None = None) -> Took:
    """Run a command that prints the stamp."""
    begin = time.monotonic_ns()
    done = subprocess.run(list(map(str, command)), env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    end = time.monotonic_ns()
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}: {done.stderr.decode()[-400:]}")
    return Took((int(done.stdout) - begin) / 1e6, (end - begin) / 1e6)


def make_stamp_image(path: Path) -> Path:
    """Make a root file system with the job in /bin/stamp."""
    make_image(path)
    source = path.parent / "stamp.c"
    source.write_text(STAMP_SOURCE)
    compiler = shutil.which("gcc") or shutil.which("tcc")
    if compiler is None:
        raise SystemExit("this benchmark needs a C compiler (package gcc or tcc)")
    subprocess.run([compiler, "-static", "-o", path / "bin/stamp", source], check=True)
    return path


@contextmanager
def crun(top: Path, image: Path) -> Iterator[Run]:
    """Give crun a mount namespace without the v2 tree beside v1's, which it refuses."""
    with _without_unified() as prefix:
        yield _oci([*prefix, "crun", "--root", top / "crun", "--cgroup-manager=cgroupfs"], top / "crun-bundle", image)
    _remove_groups("ffbench-crun-bundle")


@contextmanager
def runc(top: Path, image: Path) -> Iterator[Run]:
    """Run one container by runc."""
    yield _oci(["runc", "--root", top / "runc"], top / "runc-bundle", image)
    _remove_groups("ffbench-runc-bundle")


def _oci(command: Sequence[object], bundle: Path, image: Path) -> Run:
    bundle.mkdir()
    group = f"ffbench-{bundle.name}"

    def run(number: int) -> Took:
        own = bundle / f"{number}-{threading.get_ident()}"
        own.mkdir()
        (own / "config.json").write_text(json.dumps(oci_config(image, f"/{group}/{own.name}")))
        took = timed([*command, "run", "-b", own, f"{group}-{own.name}"])
        shutil.rmtree(own)
        return took

    return run


def oci_config(image: Path, group: str) -> dict[str, object]:
    """Return what the OCI runtimes get: namespaces but the users', limits, few capabilities, a read-only root."""
    kept = dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES)
    mounts = [("/proc", "proc", []), ("/dev", "tmpfs", ["nosuid", "mode=755"]), ("/tmp", "tmpfs", ["size=16m"])]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "args": ["/bin/stamp"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "capabilities": kept,
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}], "noNewPrivileges": True,
        },
        "root": {"path": str(image), "readonly": True},
        "mounts": [{"destination": at, "type": kind, "source": kind, "options": how} for at, kind, how in mounts],
        "linux": {
            "cgroupsPath": group,
            "namespaces": [{"type": name} for name in NAMESPACES],
            "resources": {
                "devices": [{"allow": False, "access": "rwm"}],
                "memory": {"limit": 64 << 20},
                "cpu": {"shares": 256, "quota": 100_000, "period": 100_000},
                "pids": {"limit": 64},
            },
        },
    }  # fmt: skip


@contextmanager
def _without_unified() -> Iterator[list[str]]:
    """Yield what goes before a command so that it sees no v2 tree; nothing where v2 is all there is."""
    if not (CGROUPS / "unified").exists():
        yield []
        return
    script = f"umount {CGROUPS}/unified; echo; exec sleep 100000"
    with subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        try:
            yield ["nsenter", "-m", "-t", str(holder.pid), "--"]
        finally:
            holder.kill()


@contextmanager
def docker(top: Path, image: Path) -> Iterator[Run]:
    """Run one container by a dockerd of our own."""
    home = top / "docker"
    home.mkdir()
    address = f"unix://{home}/d.sock"
    options = ["--iptables=false", "--ip6tables=false", "--ip-masq=false", "--bridge=none", "--storage-driver=overlay2"]
    places = ["--data-root", home / "data", "--exec-root", home / "exec", "-H", address, "-p", home / "pid"]
    daemon = subprocess.Popen(["dockerd", *places, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = ["docker", "-H", address]
    try:
        _wait_until(lambda: (home / "d.sock").exists() and not _run_quietly([*client, "version"]))
        _import_tar([*client, "import", "-", "stamp:1"], image)
        limits = ["--memory", "64m", "--cpus", "1", "--pids-limit", "64"]
        run = [*client, "run", "--rm", "--network", "none", *limits, "stamp:1", "/bin/stamp"]
        yield lambda number: timed(run)
    finally:
        daemon.terminate()
        daemon.wait(30)
        subprocess.run(["umount", "-R", home / "data"], check=False, stderr=subprocess.DEVNULL)
        _remove_groups("docker")


@contextmanager
def podman(top: Path, image: Path) -> Iterator[Run]:
    """Run one container by podman and runc."""
    home = top / "podman"
    places = ["--root", home / "root", "--runroot", home / "run"]
    client = ["podman", *places, "--cgroup-manager", "cgroupfs", "--storage-driver", "overlay", "--events-backend=file"]
    try:
        _import_tar([*client, "import", "-", "stamp:1"], image)
        limits = [*ULIMITS, "--log-driver", "none", "--memory", "64m", "--cpus", "1", "--pids-limit", "64"]
        run = [*client, "--runtime", "runc", "run", "--rm", "--network", "none", *limits, "stamp:1", "/bin/stamp"]
        yield lambda number: timed(run)
    finally:
        subprocess.run(["umount", home / "root/overlay"], check=False, stderr=subprocess.DEVNULL)
        _remove_groups("libpod_parent")


def _remove_groups(name: str) -> None:
    for group in (*CGROUPS.glob(f"*/{name}"), CGROUPS / name):
        if group.is_dir():
            remove_tree(group)


def _import_tar(command: Sequence[object], image: Path) -> None:
    with subprocess.Popen(["tar", "-C", image, "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(list(map(str, command)), stdin=tar.stdout, check=True, capture_output=True)


def _run_quietly(command: Sequence[str]) -> int:
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode


def _wait_until(condition: Callable[[], bool], deadline_s: float = 30.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("a rival did not come up in time")
        time.sleep(0.1)


RIVALS = {"crun": crun, "runc": runc, "podman": podman, "docker": docker}
