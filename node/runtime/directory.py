"""One container's directory on disk: the files that agent and supervisor share, and nothing else.

Owns: names, formats and atomicity of those files. May not know: processes, LXC, trio.

    spec        the ContainerSpec (JSON), by the agent; flocked by the supervisor from before its first instruction
                until its end
    changed     the spec with limits changed while it ran, if they were
    orders      what the supervisor must know, "key value" lines, written by the agent before the start
    supervisor  its pid, and the boot that pid belongs to
    running     written when the command is being executed
    stop, lease orders to a running supervisor, SIGHUP has it look: a grace in ms; a deadline in ms of CLOCK_BOOTTIME
    exit        how it ended; once there, never changed. Not synced: a power loss takes the container along, and its
                home starts a new attempt (docs/decisions/0007)
    stdout, stdout.OFFSET, stderr, ...      see logs.py

What the supervisor says by a file's presence (supervisor, running, exit) it writes under that name with a dot, perhaps
over what lies there, and renames.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from node.host.boot import boot_id
from node.runtime.protocol import ContainerSpec, Exit

EXIT_BYTES_MAX = 1024
FIELDS_BYTES_MAX = 16 * 1024


class ContainerDirectory:
    """The directory of one name below the runtime's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    def exists(self) -> bool:
        return os.path.isdir(self.path)

    def create(self, spec: ContainerSpec, spare: Path | None = None) -> None:
        """Raises FileExistsError, OSError. `spare`: a directory to be this one from now on (spares.py)."""
        if spare is None:
            self.path.mkdir()
            self.path.chmod(0o711)  # whatever the agent's umask is; a container's root walks through, and sees nothing
            self._begin(spec)
        elif self.exists():
            raise FileExistsError(self.path)
        else:
            ContainerDirectory(spare)._begin(spec)
            os.rename(spare, self.path)

    def _begin(self, spec: ContainerSpec) -> None:
        self.write_once(".exit", b" " * EXIT_BYTES_MAX)  # reserved now, for a disk that is full by then
        self.write_once("spec", msgspec.json.encode(spec, enc_hook=str))

    def write_once(self, name: str, content: bytes) -> None:
        """For what nobody reads before the agent's next step. What an earlier container left there is overwritten:
        truncated to nothing, it would be written to the disk when it is closed."""
        descriptor = os.open(f"{self.path}/{name}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, content)
            os.ftruncate(descriptor, len(content))
        finally:
            os.close(descriptor)

    def write(self, name: str, content: bytes) -> None:
        """Whole or not at all."""
        temporary = self.path / f".{name}.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)
        temporary.replace(self.path / name)

    def write_orders(self, orders: Iterable[tuple[str, object]]) -> None:
        self.write_once("orders", "".join(f"{key} {value}\n" for key, value in orders).encode())

    def write_changed(self, spec: ContainerSpec) -> None:
        """A file of its own: the lock is on the first one."""
        self.write("changed", msgspec.json.encode(spec, enc_hook=str))

    def spec(self) -> ContainerSpec | None:
        """As it was changed last."""
        for name in ("changed", "spec"):
            with suppress(OSError, msgspec.MsgspecError, ValueError):
                return msgspec.json.decode((self.path / name).read_bytes(), type=ContainerSpec, dec_hook=_path)
        return None

    def exit(self) -> Exit | None:
        """None: it has not ended, or nobody recorded how."""
        fields = self._fields("exit")
        return _exit(fields) if fields.get("ended_unix_ms") else None

    def write_exit(self, ending: Exit) -> None:
        """For those whose supervisor could not. An exit that is there stays."""
        if self.exit() is not None:
            return
        fields = {
            "exit_code": -1 if ending.exit_code is None else ending.exit_code,
            "started_unix_ms": int((ending.started_unix_s or 0) * 1000),
            "ended_unix_ms": int((ending.ended_unix_s or time.time()) * 1000),
            "error": (ending.error or "").replace("\n", " "),
        }
        self.write("exit", "".join(f"{key} {value}\n" for key, value in fields.items()).encode())

    def started_unix_s(self) -> float | None:
        text = self._fields("running").get("started_unix_ms")
        return int(text) / 1000 if text else None

    def lease_deadline_ms(self) -> int | None:
        with suppress(FileNotFoundError, ValueError):
            return int((self.path / "lease").read_text())
        return None

    def supervisor_pid(self) -> int | None:
        """None: not known, not yet known, or of an earlier boot. Means a living process only while `is_locked`."""
        fields = self._fields("supervisor")
        return int(fields["pid"]) if fields.get("boot") == boot_id() and "pid" in fields else None

    def had_supervisor(self) -> bool:
        return (self.path / "supervisor").exists()

    def of_this_boot(self) -> bool:
        return self._fields("supervisor").get("boot") in (None, boot_id())

    def lock(self) -> int:
        """The descriptor to hand to the supervisor. Raises BlockingIOError if it has one already."""
        descriptor = os.open(f"{self.path}/spec", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def is_locked(self) -> bool:
        """A supervisor lives, or is about to. Asked with a shared lock: askers don't see each other."""
        try:
            descriptor = os.open(f"{self.path}/spec", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def discard(self) -> None:
        """Renames first, so that a death half-way leaves what is plainly rubbish."""
        rubbish = self.path.with_name(f".{self.name}.removed")
        with suppress(FileNotFoundError):
            try:
                self.path.rename(rubbish)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                shutil.rmtree(rubbish, ignore_errors=True)
                self.path.rename(rubbish)
            _remove(rubbish)

    def _fields(self, name: str) -> dict[str, str]:
        try:
            descriptor = os.open(f"{self.path}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        try:
            text = os.read(descriptor, FIELDS_BYTES_MAX).decode(errors="replace")
        finally:
            os.close(descriptor)
        return {key: value for key, _, value in (line.partition(" ") for line in text.splitlines())}


def _remove(path: Path) -> None:
    """What a container may have written into is left to shutil, which is careful and slow."""
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
    path.rmdir()


def all_directories(root: Path) -> list[ContainerDirectory]:
    """Every container below the root, by name; finishes removals that were cut short."""
    found = []
    for entry in sorted(root.iterdir()):
        if entry.name.endswith(".removed"):
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.is_dir() and not entry.name.startswith("."):
            found.append(ContainerDirectory(entry))
    return found


def _exit(fields: dict[str, str]) -> Exit:
    def number(key: str) -> int:
        text = fields.get(key, "0")
        return int(text) if text.lstrip("-").isdigit() else 0

    code, started_unix_ms = number("exit_code"), number("started_unix_ms")
    return Exit(
        exit_code=code if started_unix_ms and code >= 0 else None,
        signal=code - 128 if started_unix_ms and 128 < code < 128 + 65 else None,
        oom_killed=number("oom_killed") > 0,
        timed_out=number("timed_out") > 0,
        lease_expired=number("lease_expired") > 0,
        memory_peak_bytes=max(0, number("memory_peak_bytes")),
        cpu_ns=max(0, number("cpu_ns")),
        started_unix_s=started_unix_ms / 1000 if started_unix_ms else None,
        ended_unix_s=number("ended_unix_ms") / 1000,
        error=fields.get("error") or None,
    )


def _path(kind: type, value: str) -> Path:
    assert kind is Path, "the only field that JSON does not know"
    return Path(value)
