"""One container's life, from its start to the record of its end: phases, deadlines, orders."""

import contextlib
import ctypes
import os
import select
import signal
import time

from node.runtime.twin.accounts import Accounts, WatchError, of_children
from node.runtime.twin.files import (
    boottime_ms,
    given_environment,
    read_number,
    read_text,
    record,
    unix_ms,
    write_text,
)
from node.runtime.twin.inside import Inside
from node.runtime.twin.orders import Orders
from node.runtime.twin.output import Output

STATUS_FD, LOCK_FD = 3, 4
KILL_RETRY_MS, TELL_RETRY_MS, LOOK_MS, REST_TRIES = 300, 10, 1000, 10
BUSY_RETRIES, BUSY_WAIT_S = 100, 0.005
DRAIN_TURNS = 64
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
HANDLED = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD)
STARTING, RUNNING, STOPPING, KILLING = range(4)


class SetUpError(Exception):
    """The command cannot be run; the text is the reason."""


class Supervisor:
    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.phase = STARTING
        self.deadline = self.start_by = self.look_at = self.limit_at = self.warn_at = self.stop_at = 0
        self.seek_at = self.seek_slowly_at = self.rest_at = self.rest_tries = 0
        self.started_unix_ms = 0
        self.told = self.suspect = self.timed_out = self.lease_expired = False
        self.error = ""
        self.ready = self.command_fd = -1
        self.outputs: list[Output] = []
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.wake, wake_end = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(wake_end, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, lambda *_: None)
        self.libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        boot = read_text("/proc/sys/kernel/random/boot_id")
        record("supervisor", f"pid {os.getpid()}\nboot {boot}")
        self.orders = Orders()
        self.inside = Inside(self.orders)
        self.accounts = Accounts(self.orders)

    def fail(self, reason: str) -> None:
        self.error = self.error or reason

    def run(self) -> None:
        try:
            self.set_up()
            self.start()
            self.join()
        except (SetUpError, WatchError, OSError) as error:
            self.fail(str(error))
        if self.error and self.inside.child > 0:
            self.kill_all()
        while self.inside.child > 0 and self.inside.status is None:
            self.turn()
        if self.phase == STARTING and self.ready >= 0 and self.poll([self.ready], 0):
            self.on_started()
        self.finish()

    def set_up(self) -> None:
        os.set_inheritable(STATUS_FD, False)
        os.set_inheritable(LOCK_FD, False)
        self.accounts.watch()
        if self.orders.lxc:
            self.ready = os.open("ready", os.O_RDONLY | os.O_NONBLOCK)

    def start(self) -> None:
        self.outputs = [Output("stdout", self.orders), Output("stderr", self.orders)]
        report, report_end = os.pipe()
        self.inside.child = os.fork()
        if self.inside.child == 0:
            self.execute(report_end)
        for output in self.outputs:
            os.close(output.command_end)
        os.close(report_end)
        number = os.read(report, 16)
        os.close(report)
        if number:
            self.fail(f"cannot run {self.command[0]}: {os.strerror(int(number))}")
        self.start_by = boottime_ms() + self.orders.start_timeout_ms
        self.deadline = boottime_ms() + LOOK_MS
        if not self.error and not self.orders.lxc:
            self.on_started()

    def join(self) -> None:
        if self.orders.join and not write_text(f"{self.orders.join}/cgroup.procs", "0"):
            raise SetUpError(f"cannot join {self.orders.join}")

    def execute(self, report: int) -> None:
        try:
            signal.set_wakeup_fd(-1)
            for number in (*HANDLED, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            self.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            os.setsid()
            os.umask(0o022)  # the agent's own lets nobody but root read what a command writes
            os.dup2(self.outputs[0].command_end, 1)
            os.dup2(self.outputs[1].command_end, 2)
            if self.orders.workdir:
                os.chdir(self.orders.workdir)
            os.execvpe(self.command[0], self.command, given_environment())  # noqa: S606
        except OSError as error:
            os.write(report, str(error.errno).encode())
        os._exit(127)

    def poll(self, descriptors: list[int], timeout_ms: float | None) -> list[int]:
        poller = select.poll()
        for descriptor in descriptors:
            if descriptor >= 0:
                poller.register(descriptor, select.POLLIN)
        return [descriptor for descriptor, _ in poller.poll(timeout_ms)]

    def turn(self) -> None:
        """One look at everything. At least every minute, for poll's clock stands still while the host sleeps."""
        wait_ms = min(60_000, max(0, self.deadline - boottime_ms())) if self.deadline else None
        found = self.poll([self.wake, self.ready, self.command_fd, *(output.pipe for output in self.outputs)], wait_ms)
        if self.ready in found:
            self.on_started()
        for output in self.outputs:
            if output.pipe in found:
                output.drain(4)
        if self.command_fd in found:
            self.on_command_ended()
        if self.deadline and boottime_ms() >= self.deadline:
            self.on_deadline()
        if self.wake in found:
            self.on_signals(os.read(self.wake, 512))

    def on_signals(self, numbers: bytes) -> None:
        if signal.SIGHUP in numbers:
            self.on_orders()
        if signal.SIGQUIT in numbers:
            self.begin_stop(0)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self.begin_stop(self.orders.grace_ms)
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0] > 0:
                if ended[0] == self.inside.child:
                    self.inside.status = ended[1]

    def on_started(self) -> None:
        if self.ready >= 0:
            os.close(self.ready)
            self.ready = -1
        if self.phase != STARTING:
            return
        self.phase = RUNNING
        self.started_unix_ms = unix_ms()
        self.look_at = boottime_ms() + LOOK_MS
        if self.orders.lxc:
            self.seek_at = boottime_ms()
            self.seek_slowly_at = self.seek_at + LOOK_MS
        if self.orders.time_limit_ms > 0:
            self.limit_at = boottime_ms() + self.orders.time_limit_ms
        if self.limit_at and self.orders.warn_signal:
            self.warn_at = max(boottime_ms(), self.limit_at - self.orders.warn_ms)
        record("running", f"started_unix_ms {self.started_unix_ms}\nchild {self.inside.child}\n")
        with contextlib.suppress(OSError):
            os.write(STATUS_FD, b"started\n")
        os.close(STATUS_FD)
        self.on_orders()

    def on_orders(self) -> None:
        grace_ms = read_number("stop")
        if self.phase == RUNNING:
            self.plan()
        if grace_ms >= 0:
            self.begin_stop(grace_ms)

    def plan(self) -> None:
        lease = read_number("lease")
        moments = [at for at in (self.limit_at, self.warn_at, self.look_at, self.seek_at, self.rest_at) if at]
        self.deadline = min([*moments, *([max(lease, 1)] if lease >= 0 else [])], default=0)

    def on_deadline(self) -> None:
        now = boottime_ms()
        if self.phase == STARTING:
            self.look_at_start(now)
        elif self.phase == STOPPING and now < self.stop_at:
            self.tell()
        elif self.phase != RUNNING:
            self.kill_all()
        else:
            self.look_at_limits(now)

    def look_at_start(self, now: int) -> None:
        if self.accounts.count_ooms() > 0:
            self.fail("its memory limit is too small for its set-up")
        elif now < self.start_by:
            self.deadline = now + LOOK_MS
            return
        self.fail(f"its set-up took longer than {self.orders.start_timeout_ms} ms")
        self.kill_all()

    def look(self) -> bool:
        """LXC waits for ever for an init that was killed during its set-up. True when that was seen twice in a row:
        a container may just have ended, and LXC be slow."""
        children = f"/proc/{self.inside.child}/task/{self.inside.child}/children"
        empty = bool(self.orders.cgroups) and not self.inside.count() and read_text(children) != ""
        stuck = empty and self.suspect
        self.suspect = empty
        self.look_at = boottime_ms() + LOOK_MS if empty else 0
        return stuck

    def look_at_limits(self, now: int) -> None:
        lease = read_number("lease")
        if self.look_at and now >= self.look_at and self.look():
            self.kill_all()
            return
        self.timed_out = bool(self.limit_at) and now >= self.limit_at
        self.lease_expired = not self.timed_out and 0 <= lease <= now
        if self.timed_out or self.lease_expired:
            self.begin_stop(self.orders.grace_ms)
        else:
            if self.warn_at and now >= self.warn_at:
                self.warn(now)
            if self.seek_at and now >= self.seek_at:
                self.seek(now)
            if self.rest_at and now >= self.rest_at:
                self.end_rest(now)
            self.plan_on()

    def plan_on(self) -> None:
        if self.phase == RUNNING:
            self.plan()

    def seek(self, now: int) -> None:
        """LXC's init may not have forked the command yet, or it ended already."""
        pid = self.inside.command()
        with contextlib.suppress(ProcessLookupError):
            self.command_fd = os.pidfd_open(pid) if pid else -1
        found = self.command_fd >= 0 or not self.inside.count()
        self.seek_at = 0 if found else now + (TELL_RETRY_MS if now < self.seek_slowly_at else LOOK_MS)
        if not pid and now >= self.seek_slowly_at and 0 < len(self.inside.rest()) < self.inside.count():
            self.end_rest(now)

    def on_command_ended(self) -> None:
        """While it is being stopped, the others have their grace, too."""
        os.close(self.command_fd)
        self.command_fd = -1
        if self.phase == RUNNING:
            self.end_rest(boottime_ms())
            self.plan_on()

    def end_rest(self, now: int) -> None:
        """The command has ended: LXC's init, left alone, ends with its exit code, in what time a busy host gives it."""
        left = self.inside.kill_rest()
        self.seek_at, self.rest_at = 0, now + KILL_RETRY_MS if left else 0
        self.rest_tries += bool(left)
        if self.rest_tries > REST_TRIES:
            self.kill_all()

    def warn(self, now: int) -> None:
        """LXC's init may not have forked the command yet: then again soon."""
        reached = self.inside.warn(self.orders.warn_signal, self.orders.warn_alone)
        self.warn_at = 0 if reached else now + TELL_RETRY_MS

    def begin_stop(self, grace_ms: int) -> None:
        at = boottime_ms() + grace_ms
        if self.phase == KILLING or self.inside.status is not None:
            return
        if self.phase == STARTING:
            self.fail("stopped before its command ran")
        if self.phase == STARTING or grace_ms <= 0:
            self.kill_all()
        elif self.phase != STOPPING or at < self.stop_at:
            self.phase = STOPPING
            self.stop_at = at
            self.tell()

    def tell(self) -> None:
        self.told = self.told or self.inside.signal(self.orders.stop_signal) > 0
        soon = boottime_ms() + TELL_RETRY_MS
        self.deadline = self.stop_at if self.told else min(soon, self.stop_at)

    def kill_all(self) -> None:
        if self.phase in (STARTING, KILLING):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.inside.child, signal.SIGKILL)
        self.phase = KILLING
        self.inside.signal(signal.SIGKILL)
        self.deadline = boottime_ms() + KILL_RETRY_MS

    def clear(self) -> None:
        """Everything inside is dead when this returns."""
        if not self.orders.lxc:
            with contextlib.suppress(ChildProcessError):
                while True:
                    self.inside.signal_session(signal.SIGKILL)
                    os.waitpid(-1, 0)
        for _ in range(BUSY_RETRIES):
            if self.inside.count() == 0:
                break
            self.inside.signal(signal.SIGKILL)
            time.sleep(BUSY_WAIT_S)

    def finish(self) -> None:
        ended_unix_ms = unix_ms()
        peak, cpu_ns = self.accounts.of_groups()
        ooms = self.accounts.count_ooms()
        self.clear()
        for output in self.outputs:
            output.drain(DRAIN_TURNS)
        peak_of_children, cpu_ns_of_children = of_children()
        fields = {
            "exit_code": self.exit_code(),
            "oom_killed": int(ooms > 0),
            "timed_out": int(self.timed_out),
            "lease_expired": int(self.lease_expired),
            "memory_peak_bytes": peak_of_children if peak < 0 else peak,
            "cpu_ns": cpu_ns_of_children if cpu_ns < 0 else cpu_ns,
            "started_unix_ms": self.started_unix_ms,
            "ended_unix_ms": ended_unix_ms,
            "error": self.error,
        }
        record("exit", "".join(f"{key} {value}\n" for key, value in fields.items()))

    def exit_code(self) -> int:
        status = self.inside.status or 0
        if not self.started_unix_ms:
            self.fail(f"{'lxc-execute ended' if self.orders.lxc else 'ended'} before its command ran")
        if self.orders.lxc and os.WIFSIGNALED(status) and self.phase != KILLING:
            self.fail(f"lxc-execute was killed by signal {os.WTERMSIG(status)}")
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        killed = self.orders.lxc and self.phase == KILLING and (code == 1 or os.WIFSIGNALED(status))
        return 128 + signal.SIGKILL if killed else code  # SIGPIPE where it was still talking to what was killed
