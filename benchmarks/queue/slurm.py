"""A small Slurm on the loopback interface, for benchmarks: daemons of its own, tuned for short jobs.

Needs root and Debian's slurm-wlm, munge and, for its C API, libslurm-dev and gcc. Ends exactly what it started.
There is no accounting and there are no containers: this is Slurm at its lightest.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PORT = 16_817
UP_TIMEOUT_S = 60.0
JOB_TIMEOUT_S = 300.0
DONE = re.compile(rb"_job_complete: JobId=\S+ done")
STEADY_S = 2.0

SETTINGS = """
ClusterName=rival
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={top}/munge.sock
CredType=cred/munge
StateSaveLocation={top}/state
SlurmdSpoolDir={top}/spool.%n
SlurmctldPidFile={top}/ctld.pid
SlurmdPidFile={top}/slurmd.%n.pid
SlurmctldLogFile={top}/ctld.log
SlurmdLogFile={top}/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=error
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
ReturnToService=2
MaxJobCount=50000
MaxArraySize=10001
MinJobAge=2
DefMemPerCPU=8
MessageTimeout=60
PlugStackConfig={top}/plugstack.conf
SchedulerType=sched/builtin
PriorityType=priority/basic
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,default_queue_depth=10000,partition_job_depth=10000,sched_max_job_start=0,max_rpc_cnt=0
"""

SUBMIT_SOURCE = r"""
#include <slurm/slurm.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int count, char **arguments) {
    int jobs = atoi(arguments[1]), taken = 0;
    char *environment[] = {"PATH=/bin:/usr/bin", NULL};
    (void)count;
    slurm_init(NULL);
    double begin = now();
    for (int i = 0; i < jobs; i++) {
        job_desc_msg_t job;
        submit_response_msg_t *answer = NULL;
        slurm_init_job_desc_msg(&job);
        job.name = "held", job.script = "#!/bin/sh\nexit 0\n", job.priority = 0;
        job.min_nodes = job.max_nodes = job.min_cpus = job.num_tasks = 1;
        job.user_id = getuid(), job.group_id = getgid();
        job.environment = environment, job.env_size = 1, job.work_dir = "/tmp";
        job.std_in = job.std_out = job.std_err = "/dev/null";
        for (int turn = 0; turn < 200 && slurm_submit_batch_job(&job, &answer); turn++) usleep(5000);
        if (answer) taken++, slurm_free_submit_response_response_msg(answer);
    }
    printf("%d %.6f\n", taken, now() - begin);
    return 0;
}
"""


def missing() -> str | None:
    """Return what this machine lacks for it."""
    lacking = [name for name in ("slurmctld", "slurmd", "munged", "srun") if shutil.which(name) is None]
    return f"{', '.join(lacking)} not installed (slurm-wlm, munge)" if lacking else None


class Slurm:
    """A running one."""

    def __init__(self, top: Path, env: Mapping[str, str]) -> None:
        self._top = top
        self._env = dict(env)

    def array(self, count: int) -> float:
        """Run an array of `count` jobs that do nothing; return the seconds from before sbatch to the last one's end."""
        script = self._top / "nothing.sh"
        script.write_text("#!/bin/sh\nexit 0\n")
        log = self._top / "ctld.log"
        offset, begin = log.stat().st_size, time.monotonic()
        self._run("sbatch", "-Q", "-o", "/dev/null", "-e", "/dev/null", f"--array=0-{count - 1}", str(script))
        done = 0
        with log.open("rb") as lines:
            lines.seek(offset)
            while done < count and time.monotonic() - begin < JOB_TIMEOUT_S:
                time.sleep(0.02)
                done += sum(1 for line in lines if DONE.search(line))
        if done < count:
            raise SystemExit(f"Slurm ended {done} of {count} jobs within {JOB_TIMEOUT_S:g} s")
        return time.monotonic() - begin

    def srun(self) -> float:
        """Return the seconds from before srun to its command's first instruction."""
        begin = time.time()
        done = self._run("srun", "-Q", "-n1", "/bin/sh", "-c", "date +%s.%N")
        return float(done.stdout) - begin

    def submit_held(self, count: int) -> float:
        """Submit jobs one by one over the C API, held; return jobs a second."""
        source, program = self._top / "submit.c", self._top / "submit"
        source.write_text(SUBMIT_SOURCE)
        subprocess.run(["gcc", "-O2", source, "-o", program, "-lslurm"], check=True)
        taken, took_s = self._run(str(program), str(count)).stdout.split()
        self._run("scancel", "-u", "root")
        return int(taken) / float(took_s)

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=self._env, capture_output=True, text=True, check=True)


@contextmanager
def slurm(nodes: int, cpus: int) -> Iterator[Slurm]:
    """Start one of so many nodes with so many processors each; it is idle when this yields."""
    top = Path(tempfile.mkdtemp(prefix="fofoca-slurm."))
    top.chmod(0o755)
    env = {**os.environ, "SLURM_CONF": str(top / "slurm.conf")}
    started: list[subprocess.Popen[bytes]] = []
    try:
        _configure(top, nodes, cpus)
        for command in _daemons(top, nodes):
            started.append(_start(command, env, top))
            time.sleep(0.5 if len(started) < 3 else 0.0)
        _wait_until_idle(env, nodes)
        time.sleep(STEADY_S)
        yield Slurm(top, env)
    finally:
        for process in reversed(started):
            _end(process)
        shutil.rmtree(top, ignore_errors=True)


def _configure(top: Path, nodes: int, cpus: int) -> None:
    for folder in ("state", *(f"spool.n{number}" for number in range(1, nodes + 1))):
        (top / folder).mkdir()
    key = top / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    (top / "plugstack.conf").touch()
    lines = [SETTINGS.format(host=socket.gethostname().split(".")[0], port=PORT, top=top)]
    for number in range(1, nodes + 1):
        where = f"NodeHostname=n{number} NodeAddr=127.0.0.1 Port={PORT + 300 + number}"
        lines.append(f"NodeName=n{number} {where} CPUs={cpus} RealMemory=8192 State=UNKNOWN")
    lines.append(f"PartitionName=main Nodes=n[1-{nodes}] Default=YES MaxTime=INFINITE OverSubscribe=NO State=UP")
    (top / "slurm.conf").write_text("\n".join(lines) + "\n")


def _daemons(top: Path, nodes: int) -> Iterator[list[str]]:
    files = {"key-file": "key", "socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    yield ["munged", "-F", "--force", *(f"--{option}={top}/munge.{name}" for option, name in files.items())]
    yield ["slurmctld", "-D", "-c", "-f", f"{top}/slurm.conf"]
    for number in range(1, nodes + 1):
        yield ["slurmd", "-D", "-N", f"n{number}", "-f", f"{top}/slurm.conf"]


def _start(command: list[str], env: Mapping[str, str], top: Path) -> subprocess.Popen[bytes]:
    with (top / "daemons.out").open("ab") as out:
        return subprocess.Popen(command, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_idle(env: Mapping[str, str], nodes: int) -> None:
    end = time.monotonic() + UP_TIMEOUT_S
    while time.monotonic() < end:
        seen = subprocess.run(
            ["sinfo", "-h", "-o", "%T %D"], env=dict(env), capture_output=True, text=True, check=False
        )
        if f"idle {nodes}" in seen.stdout.splitlines():
            return
        time.sleep(0.3)
    raise SystemExit("Slurm did not come up; is something else on its ports?")
