"""The supervisor for hosts without a compiler: the twin of supervise.c, same arguments, files and tests.

Run as `python -I -S supervise.py DIR COMMAND [ARGUMENT...]`, with fd 3 and 4 as there. It costs about 8 MiB a
container instead of a tenth of one, and 20 ms at the start; nothing else differs. The standard library alone, and of
it only what starts fast. The comments on why are in supervise.c.
"""

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time

STATUS_FD, LOCK_FD = 3, 4
START_TIMEOUT_MS = 60_000
KILL_RETRY_MS, TELL_RETRY_MS, LOOK_MS = 300, 10, 1000
BUSY_RETRIES, BUSY_WAIT_S = 100, 0.005
READ_BYTES, DRAIN_TURNS = 16384, 64
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
HANDLED = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD)
STARTING, RUNNING, STOPPING, KILLING = range(4)


class SetUpError(Exception):
    """The command cannot be run; the text is the reason."""


def boottime_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def unix_ms() -> int:
    return time.time_ns() // 1_000_000


def read_text(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def read_number(path: str, key: str = "") -> int:
    text = read_text(path)
    if not text or key not in text:
        return -1
    word = text[text.index(key) + len(key) :].split(None, 1)[:1]
    return int(word[0]) if word and word[0].lstrip("-").isdigit() else -1


def write_text(path: str, text: str) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY)
    except OSError:
        return False
    try:
        return os.write(descriptor, text.encode()) >= 0
    except OSError:
        return False
    finally:
        os.close(descriptor)


def note(name: str, text: str) -> None:
    """On a full disk the agent does without it."""
    with contextlib.suppress(OSError), open(name, "w") as file:
        file.write(text)


def record_exit(text: str) -> None:
    """Whole; the agent has reserved its place on the disk."""
    descriptor = os.open(".exit", os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(descriptor, text.encode())
    os.ftruncate(descriptor, len(text.encode()))
    os.close(descriptor)
    os.rename(".exit", "exit")


def given_environment() -> dict[bytes, bytes]:
    """What the agent gave; Python adds to os.environ in a C locale."""
    with open("/proc/self/environ", "rb") as file:
        pairs = (entry.partition(b"=") for entry in file.read().split(b"\0") if entry)
        return {key: value for key, _, value in pairs}


class Orders:
    """DIR/orders."""

    def __init__(self) -> None:
        pairs = [line.partition(" ")[::2] for line in read_text("orders").splitlines()]
        values = dict(pairs)
        self.lxc = values.get("kind") == "lxc"
        self.start_timeout_ms = int(values.get("start_timeout_ms", START_TIMEOUT_MS))
        self.time_limit_ms = int(values.get("time_limit_ms", 0))
        self.grace_ms = int(values.get("grace_ms", 10_000))
        self.log_bytes = int(values.get("log_bytes", 1 << 20))
        self.owner = int(values.get("owner", -1))
        self.cgroups = [value for key, value in pairs if key == "cgroup"]
        self.memory, self.cpu = values.get("memory", ""), values.get("cpu", "")
        self.join, self.workdir = values.get("join", ""), values.get("workdir", "")


class Output:
    """One stream: a head, and a tail of two sliding segments."""

    def __init__(self, name: str, orders: Orders) -> None:
        self.name = name
        self.orders = orders
        self.pipe, self.command_end = os.pipe()
        os.set_blocking(self.pipe, False)
        if orders.owner >= 0:
            os.fchown(self.command_end, orders.owner, orders.owner)
        self.file = -1
        self.size = self.segment_end = 0
        self.tails: list[int] = []

    def next_segment(self) -> None:
        if self.file >= 0:
            os.close(self.file)
        head = self.size == 0 and self.segment_end == 0
        path = self.name if head else f"{self.name}.{self.size}"
        if not head:
            self.tails.append(self.size)
            if len(self.tails) > 2:
                with contextlib.suppress(OSError):
                    os.unlink(f"{self.name}.{self.tails.pop(0)}")
        self.segment_end = self.size + (self.orders.log_bytes // (2 if self.size == 0 else 4))
        try:
            self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError:
            self.file = -1

    def keep(self, data: bytes) -> None:
        while data:
            if self.size >= self.segment_end:
                self.next_segment()
            part = data[: self.segment_end - self.size]
            try:
                done = os.write(self.file, part)
            except OSError:
                done = len(part)
                self.segment_end = self.size + done
            self.size += done
            data = data[done:]

    def drain(self, turns: int) -> None:
        while turns > 0 and self.pipe >= 0:
            turns -= 1
            try:
                data = os.read(self.pipe, READ_BYTES)
            except BlockingIOError:
                return
            if data:
                self.keep(data)
            else:
                os.close(self.pipe)
                self.pipe = -1


def is_init(pid: int) -> bool:
    for line in read_text(f"/proc/{pid}/status").splitlines():
        if line.startswith("NSpid:"):
            return line.count("\t") > 1 and line.split()[-1] == "1"
    return False


class Supervisor:
    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.phase = STARTING
        self.child = 0
        self.status: int | None = None
        self.deadline = self.start_by = self.look_at = self.limit_at = self.stop_at = 0
        self.started_unix_ms = self.ooms = 0
        self.told = self.suspect = self.timed_out = self.lease_expired = False
        self.error = ""
        self.ready = self.oom = -1
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
        note("supervisor", f"pid {os.getpid()}\nboot {boot}")
        self.orders = Orders()

    def fail(self, reason: str) -> None:
        self.error = self.error or reason

    def run(self) -> None:
        try:
            self.set_up()
            self.start()
        except (SetUpError, OSError) as error:
            self.fail(str(error))
        if self.error and self.child > 0:
            self.kill_all()
        while self.child > 0 and self.status is None:
            self.turn()
        if self.phase == STARTING and self.ready >= 0 and self.poll([self.ready], 0):
            self.on_started()
        self.finish()

    def set_up(self) -> None:
        os.set_inheritable(STATUS_FD, False)
        os.set_inheritable(LOCK_FD, False)
        if self.orders.join and not write_text(f"{self.orders.join}/cgroup.procs", str(os.getpid())):
            raise SetUpError(f"cannot join {self.orders.join}")
        self.watch_oom()
        if self.orders.lxc:
            self.ready = os.open("ready", os.O_RDONLY | os.O_NONBLOCK)

    def watch_oom(self) -> None:
        if not os.path.exists(f"{self.orders.memory}/memory.oom_control"):
            return
        self.oom = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        control = os.open(f"{self.orders.memory}/memory.oom_control", os.O_RDONLY)
        if not write_text(f"{self.orders.memory}/cgroup.event_control", f"{self.oom} {control}"):
            raise SetUpError("cannot watch for memory exhaustion")
        os.close(control)

    def start(self) -> None:
        self.outputs = [Output("stdout", self.orders), Output("stderr", self.orders)]
        report, report_end = os.pipe()
        self.child = os.fork()
        if self.child == 0:
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

    def execute(self, report: int) -> None:
        try:
            signal.set_wakeup_fd(-1)
            for number in (*HANDLED, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            self.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            os.setsid()
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
        found = self.poll([self.wake, self.ready, *(output.pipe for output in self.outputs)], wait_ms)
        if self.ready in found:
            self.on_started()
        for output in self.outputs:
            if output.pipe in found:
                output.drain(4)
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
                if ended[0] == self.child:
                    self.status = ended[1]

    def on_started(self) -> None:
        if self.ready >= 0:
            os.close(self.ready)
            self.ready = -1
        if self.phase != STARTING:
            return
        self.phase = RUNNING
        self.started_unix_ms = unix_ms()
        self.look_at = boottime_ms() + LOOK_MS
        if self.orders.time_limit_ms > 0:
            self.limit_at = boottime_ms() + self.orders.time_limit_ms
        note("running", f"started_unix_ms {self.started_unix_ms}\nchild {self.child}\n")
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
        moments = [at for at in (self.limit_at, self.look_at) if at]
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
        if self.count_ooms() > 0:
            self.fail("its memory limit is too small for its set-up")
        elif now < self.start_by:
            self.deadline = now + LOOK_MS
            return
        self.fail(f"its set-up took longer than {self.orders.start_timeout_ms} ms")
        self.kill_all()

    def look(self) -> bool:
        """LXC waits for ever for an init that was killed during its set-up. True when that was seen twice in a row:
        a container may just have ended, and LXC be slow."""
        children = f"/proc/{self.child}/task/{self.child}/children"
        empty = bool(self.orders.cgroups) and not self.signal_payload(0) and read_text(children) != ""
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
            self.plan()

    def begin_stop(self, grace_ms: int) -> None:
        at = boottime_ms() + grace_ms
        if self.phase == KILLING or self.status is not None:
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
        self.told = self.told or self.signal_inside(signal.SIGTERM) > 0
        soon = boottime_ms() + TELL_RETRY_MS
        self.deadline = self.stop_at if self.told else min(soon, self.stop_at)

    def kill_all(self) -> None:
        if self.phase in (STARTING, KILLING):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.child, signal.SIGKILL)
        self.phase = KILLING
        self.signal_inside(signal.SIGKILL)
        self.deadline = boottime_ms() + KILL_RETRY_MS

    def signal_inside(self, number: int) -> int:
        """How many processes it reached."""
        final = number == signal.SIGKILL
        reached = 0
        if not final:
            self.thaw()
        if not self.orders.lxc:
            reached += self.signal_session(number)
        killed = final and any(write_text(f"{path}/payload/cgroup.kill", "1") for path in self.orders.cgroups)
        if not killed:
            reached += self.signal_payload(number)
        if final:
            self.thaw()
        return reached

    def signal_session(self, number: int) -> int:
        reached = 0
        if self.child > 0 and self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child, number)
                reached = 1
        if number == signal.SIGKILL:
            for word in read_text(f"/proc/self/task/{os.getpid()}/children").split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(word), number)
        return reached

    def signal_payload(self, number: int) -> int:
        reached = 0
        for inner, _, _ in os.walk(f"{self.orders.cgroups[0]}/payload" if self.orders.cgroups else ""):
            for word in read_text(f"{inner}/cgroup.procs").split():
                if int(word) > 0 and (number != signal.SIGTERM or not is_init(int(word))):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(word), number)
                        reached += 1
        return reached

    def thaw(self) -> None:
        for path in self.orders.cgroups:
            write_text(f"{path}/payload/freezer.state", "THAWED")
            write_text(f"{path}/payload/cgroup.freeze", "0")

    def clear(self) -> None:
        """Everything inside is dead when this returns."""
        if not self.orders.lxc:
            with contextlib.suppress(ChildProcessError):
                while True:
                    self.signal_session(signal.SIGKILL)
                    os.waitpid(-1, 0)
        for _ in range(BUSY_RETRIES):
            if self.signal_payload(0) == 0:
                break
            self.signal_inside(signal.SIGKILL)
            time.sleep(BUSY_WAIT_S)

    def finish(self) -> None:
        orders, ended_unix_ms = self.orders, unix_ms()
        peak = max(read_number(f"{orders.memory}/{file}") for file in ("memory.peak", "memory.max_usage_in_bytes"))
        cpu_us = read_number(f"{orders.cpu}/cpu.stat", "usage_usec ")
        cpu_ns = read_number(f"{orders.cpu}/cpuacct.usage") if cpu_us < 0 else cpu_us * 1000
        ooms = self.count_ooms()
        self.clear()
        for output in self.outputs:
            output.drain(DRAIN_TURNS)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        fields = {
            "exit_code": self.exit_code(),
            "oom_killed": int(ooms > 0),
            "timed_out": int(self.timed_out),
            "lease_expired": int(self.lease_expired),
            "memory_peak_bytes": usage.ru_maxrss * 1024 if peak < 0 else peak,
            "cpu_ns": int((usage.ru_utime + usage.ru_stime) * 1e9) if cpu_ns < 0 else cpu_ns,
            "started_unix_ms": self.started_unix_ms,
            "ended_unix_ms": ended_unix_ms,
            "error": self.error,
        }
        record_exit("".join(f"{key} {value}\n" for key, value in fields.items()))

    def count_ooms(self) -> int:
        if self.oom < 0:
            self.ooms = read_number(f"{self.orders.memory}/memory.events", "oom_kill ") if self.orders.memory else 0
        else:
            with contextlib.suppress(BlockingIOError):
                self.ooms += os.eventfd_read(self.oom)
        return self.ooms

    def exit_code(self) -> int:
        status = self.status or 0
        if not self.started_unix_ms:
            self.fail(f"{'lxc-execute ended' if self.orders.lxc else 'ended'} before its command ran")
        if self.orders.lxc and os.WIFSIGNALED(status) and self.phase != KILLING:
            self.fail(f"lxc-execute was killed by signal {os.WTERMSIG(status)}")
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        killed = self.orders.lxc and self.phase == KILLING and (code == 1 or os.WIFSIGNALED(status))
        return 128 + signal.SIGKILL if killed else code  # SIGPIPE where it was still talking to what was killed


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(2)
    os.chdir(sys.argv[1])
    os.closerange(LOCK_FD + 1, 65536)
    supervisor = Supervisor(sys.argv[2:])
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    supervisor.run()
