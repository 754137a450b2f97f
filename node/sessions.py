"""Commands and file copies inside running containers, as sessions that a client reads and writes piece by piece.

Owns the processes on this host that enter containers, their pipes or terminal, and what they may cost: sessions are
counted, buffers bounded (a full one stops the command until its reader has caught up), and a session whose client says
nothing for a while is ended. May not know: jobs, HTTP, who may do what; a session is used by the user who opened it.

Pieces are numbered by offset, so a piece that is sent again after a broken connection counts once. An output offset
that a client asks for says that all before has arrived.
"""

from __future__ import annotations

import fcntl
import math
import os
import secrets
import shutil
import signal
import struct
import subprocess
import termios
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import trio

from node import logs
from node.errors import Busy, CallerError, InvalidValue, NotFound
from node.freezer import Freezer
from node.runtime.protocol import USUAL_UMASK, ContainerError, Runtime, Stream, UnknownContainerError

SESSIONS_MAX = 128
PER_USER_MAX = 32
BUFFER_BYTES = 1 << 20
PIPE_BYTES = 1 << 20
INPUT_BYTES_MAX = 1 << 20
IDLE_S_MAX = 60.0
REAP_INTERVAL_S = 5.0
WORDS_BYTES_MAX = 100_000
SIZE_MAX = 10_000
DRAIN_S = 0.5
SIGNALS = ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "KILL", "WINCH", "CONT", "STOP", "TSTP")

SETSID = shutil.which("setsid") or "/usr/bin/setsid"

log = logs.get("sessions")


class Order(msgspec.Struct, frozen=True, array_like=True):
    """What to run inside: a command, or a copy ("get" or "put") of the files at `path`. Sizes in characters."""

    argv: tuple[str, ...] = ()
    copy: str = ""
    path: str = ""
    tty: bool = False
    rows: int = 24
    columns: int = 80


class Output(msgspec.Struct, frozen=True, array_like=True):
    """What came since the offsets asked for. `exit_code`: None while the command runs or more follows."""

    stdout: bytes = b""
    stderr: bytes = b""
    exit_code: int | None = None


class Control(msgspec.Struct, frozen=True, array_like=True):
    """A terminal's new size (0: as it was), and a signal by its name without SIG ("": none)."""

    rows: int = 0
    columns: int = 0
    signal: str = ""


@dataclass(slots=True)
class _Buffer:
    """A stream between the command and its reader."""

    offset: int = 0
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False

    def acknowledge(self, offset: int) -> None:
        if offset > self.offset:
            done = min(offset - self.offset, len(self.data))
            del self.data[:done]
            self.offset += done


@dataclass(slots=True)
class _Session:
    user: str
    container: str
    process: trio.Process
    stdin: trio.abc.SendStream
    terminal: int | None = None
    streams: dict[Stream, _Buffer] = field(default_factory=lambda: {"stdout": _Buffer(), "stderr": _Buffer()})
    taken: int = 0
    input_ended: bool = False
    exit_code: int | None = None
    heard_s: float = 0.0
    writing: trio.Lock = field(default_factory=trio.Lock)
    moved: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def wake(self) -> None:
        self.moved.set()
        self.moved = trio.Event()


class Sessions:
    """The sessions of one node."""

    def __init__(self, runtime: Runtime, nursery: trio.Nursery, freezer: Freezer) -> None:
        self._runtime = runtime
        self._nursery = nursery
        self.set_frozen = freezer.set_frozen
        self._sessions: dict[str, _Session] = {}

    async def run(self) -> None:
        """End sessions whose clients have gone, for ever."""
        while True:
            await trio.sleep(REAP_INTERVAL_S)
            for session in list(self._sessions.values()):
                if trio.current_time() - session.heard_s > IDLE_S_MAX:
                    session.scope.cancel()

    async def open(self, user: str, container: str, order: Order) -> str:
        """Run something inside; the session's id. Raises InvalidValue, Busy, NotFound."""
        check(order)
        self._check_room(user)
        try:
            entrance = self._runtime.entrance(container, tty=order.tty)
        except UnknownContainerError as error:
            raise NotFound(str(error)) from None
        except ContainerError as error:
            raise CallerError(str(error)) from None
        words = [*entrance.files, order.copy, order.path] if order.copy else [*entrance.command, *order.argv]
        session = await _spawn(words, user, container, order)
        token = secrets.token_hex(16)
        self._sessions[token] = session
        what = f"{order.copy} {order.path}" if order.copy else " ".join(order.argv)[:200]
        log.info("entered", user=user, container=container, what=what, tty=order.tty)
        self._nursery.start_soon(self._live, token, session)
        return token

    def _check_room(self, user: str) -> None:
        if len(self._sessions) >= SESSIONS_MAX:
            raise Busy(f"this node already has {SESSIONS_MAX} sessions inside containers")
        if sum(each.user == user for each in self._sessions.values()) >= PER_USER_MAX:
            raise Busy(f"this node already has {PER_USER_MAX} sessions of {user}")

    async def write(self, user: str, token: str, offset: int, data: bytes, ended: bool) -> int:
        """Pass input on; return how much of the input has been taken in all. `ended`: nothing follows this piece."""
        session = self._session(user, token)
        async with session.writing:
            fresh = data[max(0, session.taken - offset) :] if offset <= session.taken else b""
            try:
                if fresh and not session.input_ended:
                    await session.stdin.send_all(fresh)
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                session.input_ended = True  # it reads no more: what comes is dropped, as a shell's pipe would break
            session.taken += len(fresh)
            if ended and not session.input_ended and offset + len(data) <= session.taken:
                session.input_ended = True
                await self._end_input(session)
        return session.taken

    @staticmethod
    async def _end_input(session: _Session) -> None:
        if session.terminal is None:
            await session.stdin.aclose()
        else:
            with suppress(trio.BrokenResourceError, OSError):
                await session.stdin.send_all(b"\x04")

    async def read(self, user: str, token: str, stdout: int, stderr: int, wait_s: float) -> Output:
        """Return what came after these offsets, as soon as there is something, or nothing after `wait_s`."""
        session = self._session(user, token)
        for stream, offset in (("stdout", stdout), ("stderr", stderr)):
            session.streams[stream].acknowledge(offset)  # type: ignore[index]
        session.wake()
        with trio.move_on_after(wait_s):
            while not self._has_news(session):
                await session.moved.wait()
        session.heard_s = trio.current_time()
        out, err = (bytes(session.streams[stream].data) for stream in ("stdout", "stderr"))
        ended = all(buffer.ended for buffer in session.streams.values())
        return Output(out, err, session.exit_code if ended else None)

    @staticmethod
    def _has_news(session: _Session) -> bool:
        ended = session.exit_code is not None and all(buffer.ended for buffer in session.streams.values())
        return ended or any(buffer.data for buffer in session.streams.values())

    async def control(self, user: str, token: str, control: Control) -> None:
        """Resize the terminal, send a signal to the command; InvalidValue."""
        session = self._session(user, token)
        await trio.lowlevel.checkpoint()
        if session.terminal is not None and session.exit_code is None and control.rows and control.columns:
            _check_size(control.rows, control.columns)
            _resize(session.terminal, control.rows, control.columns)
            session.process.send_signal(signal.SIGWINCH)
        if control.signal:
            if control.signal not in SIGNALS:
                raise InvalidValue("signal", control.signal, f"expected one of {', '.join(SIGNALS)}")
            _signal_inside(session.process, signal.Signals[f"SIG{control.signal}"])

    async def close(self, user: str, token: str) -> None:
        """End a session, and the command with it."""
        session = self._session(user, token)
        await trio.lowlevel.checkpoint()
        session.scope.cancel()

    def _session(self, user: str, token: str) -> _Session:
        session = self._sessions.get(token)
        if session is None or session.user != user:
            raise NotFound("no such session (any more)")
        session.heard_s = trio.current_time()
        return session

    async def _live(self, token: str, session: _Session) -> None:
        """From the start of a session until its client has heard its end, or is gone."""
        try:
            with session.scope:
                async with trio.open_nursery() as nursery:
                    await self._follow(session, nursery)
                    await trio.sleep_forever()
        finally:
            _kill(session.process)
            with trio.CancelScope(shield=True):
                await session.process.wait()
                await session.stdin.aclose()
            del self._sessions[token]
            log.info("left", user=session.user, container=session.container, exit_code=session.exit_code)

    async def _follow(self, session: _Session, nursery: trio.Nursery) -> None:
        sources: dict[Stream, Callable[[int], Awaitable[bytes | bytearray]]] = {}
        if session.terminal is not None:
            assert isinstance(session.stdin, trio.lowlevel.FdStream)
            sources["stdout"] = session.stdin.receive_some
            session.streams["stderr"].ended = True
        else:
            assert session.process.stdout is not None
            assert session.process.stderr is not None
            sources["stdout"] = session.process.stdout.receive_some
            sources["stderr"] = session.process.stderr.receive_some
        for stream, receive in sources.items():
            nursery.start_soon(_fill, session, stream, receive)
        session.exit_code = _as_shells_tell(await session.process.wait())
        await _drained(session)
        for buffer in session.streams.values():
            buffer.ended = True
        session.wake()


async def _fill(session: _Session, stream: Stream, receive: Callable[[int], Awaitable[bytes | bytearray]]) -> None:
    """From the command into the buffer, as far as there is room."""
    buffer = session.streams[stream]
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
        while not buffer.ended:
            while len(buffer.data) >= BUFFER_BYTES:
                await session.moved.wait()
            data = await receive(BUFFER_BYTES - len(buffer.data))
            if not data:
                break
            buffer.data += data
            session.wake()
    buffer.ended = True
    session.wake()


async def _drained(session: _Session) -> None:
    """What the command started may hold its pipes for ever: once it has ended, a quiet moment is the end of them."""
    while not all(buffer.ended for buffer in session.streams.values()):
        full = any(len(buffer.data) >= BUFFER_BYTES for buffer in session.streams.values())
        with trio.move_on_after(math.inf if full else DRAIN_S) as quiet:
            await session.moved.wait()
        if quiet.cancelled_caught:
            return


async def _spawn(words: list[str], user: str, container: str, order: Order) -> _Session:
    """Start the process with nothing of ours: no variable, and no descriptor but its pipes or its terminal."""
    now_s = trio.current_time()
    try:
        if not order.tty or order.copy:
            pipe = subprocess.PIPE
            process = await trio.lowlevel.open_process(
                words,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                env={},
                start_new_session=True,
                close_fds=True,
                umask=USUAL_UMASK,
            )
            assert process.stdin is not None
            _widen(process)
            return _Session(user, container, process, process.stdin, heard_s=now_s)
        ours, theirs = os.openpty()
        try:
            _resize(ours, order.rows, order.columns)
            words = [SETSID, "--ctty", *words]  # LXC speaks with /dev/tty, whatever its standard input is
            process = await trio.lowlevel.open_process(
                words, stdin=theirs, stdout=theirs, stderr=theirs, env={}, close_fds=True, umask=USUAL_UMASK
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return _Session(user, container, process, trio.lowlevel.FdStream(ours), terminal=ours, heard_s=now_s)
    except OSError as error:
        raise Busy(f"no session can be started: {error.strerror}") from None


def _widen(process: trio.Process) -> None:
    """A piece is what a pipe holds, and each costs a round trip; the kernel may refuse, then pieces are small."""
    for stream in (process.stdin, process.stdout, process.stderr):
        with suppress(OSError, AttributeError):
            fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)  # type: ignore[union-attr]


def check(order: Order) -> None:
    """Raise InvalidValue for what no container could run."""
    words = (*order.argv, order.path)
    if any("\0" in word for word in words) or sum(len(word.encode()) for word in words) > WORDS_BYTES_MAX:
        raise InvalidValue("argv", "", f"expected texts without NUL, {WORDS_BYTES_MAX:,} bytes at most")
    if order.copy:
        if order.copy not in ("get", "put"):
            raise InvalidValue("copy", order.copy, "expected get or put")
        if not order.path.startswith("/"):
            raise InvalidValue("path", order.path, "expected an absolute path in the container")
    elif not order.argv or not order.argv[0]:
        raise InvalidValue("argv", list(order.argv), "expected a command")
    if order.tty:
        _check_size(order.rows, order.columns)


def _check_size(rows: int, columns: int) -> None:
    for name, value in (("rows", rows), ("columns", columns)):
        if not 1 <= value <= SIZE_MAX:
            raise InvalidValue(name, value, f"expected 1 to {SIZE_MAX:,}")


def _resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _signal_inside(process: trio.Process, number: signal.Signals) -> None:
    """To the command itself: the child of what entered the container, or the process where nothing had to."""
    for pid in _children(process.pid) or [process.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _kill(process: trio.Process) -> None:
    if process.returncode is None:
        _signal_inside(process, signal.SIGKILL)
        with suppress(ProcessLookupError):
            process.kill()


def _as_shells_tell(code: int) -> int:
    return code if code >= 0 else 128 - code
