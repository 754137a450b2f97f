"""Builds a Debian or Ubuntu root file system with mmdebstrap, told step by step.

Owns what may be asked for, the call of the program and its bounds; knows no image store. The packages' own scripts run
as root in a mount namespace and a chroot of mmdebstrap's: whoever may build must be trusted with the host.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from node.errors import InvalidValue
from node.host.errors import ImageError

PACKAGES_MAX = 500
LINE_BYTES_MAX = 300
LINES_MAX = 5_000
VARIANTS = ("essential", "apt", "minbase", "standard")
HOST_SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

_SUITE = re.compile(r"[a-z][a-z0-9-]{0,39}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,99}(:[a-z0-9-]{1,20})?")
_TOLD = re.compile(rb"[IWE]: ")


class BuildOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be built: packages on top of a variant of a distribution's release."""

    suite: str
    include: tuple[str, ...] = ()
    variant: str = "minbase"


_decode = msgspec.json.Decoder(BuildOrder).decode


def read_order(body: bytes) -> BuildOrder:
    """Read and check an order's JSON; raises InvalidValue."""
    try:
        order = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidValue("body", body[:60].decode("utf-8", "replace"), f"expected an order: {error}") from None
    if not _SUITE.fullmatch(order.suite):
        raise InvalidValue("suite", order.suite[:80], "expected a release's name, such as bookworm")
    if order.variant not in VARIANTS:
        raise InvalidValue("variant", order.variant[:80], f"expected one of {', '.join(VARIANTS)}")
    if len(order.include) > PACKAGES_MAX:
        raise InvalidValue("include", f"{len(order.include)} packages", f"expected at most {PACKAGES_MAX}")
    for package in order.include:
        if not _PACKAGE.fullmatch(package):
            raise InvalidValue("include", package[:120], "expected names of packages, such as ca-certificates")
    return order


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """The operator's word; no mirror: the host's own sources of packages."""

    mirror: str = ""
    timeout_s: float = 1_800.0
    bytes_max: int = 64 << 30


async def build(order: BuildOrder, target: Path, scratch: Path, settings: BuildSettings) -> AsyncGenerator[str, None]:
    """Build a root file system's tar at `target`, in a new folder `scratch`; yield what the program tells.

    Raises ImageError where the program is missing, fails, or takes too long. Whatever happens, it does not go on.
    """
    program = shutil.which("mmdebstrap")
    if program is None:
        raise ImageError("this node has no mmdebstrap; install the package mmdebstrap, or build on another node")
    await trio.Path(scratch).mkdir(mode=0o700)
    last = _LastLines()
    command = _command(program, order, target, settings)
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=_environment(scratch),
    )
    try:
        deadline = trio.current_time() + settings.timeout_s
        while chunk := await _told(process, deadline, settings.timeout_s):
            for line in last.take(chunk):
                yield line
        if await process.wait() != 0:
            raise ImageError(f"mmdebstrap failed: {last.reason or f'exit code {process.returncode}'}")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await process.wait()
            await trio.to_thread.run_sync(lambda: shutil.rmtree(scratch, ignore_errors=True))


async def _told(process: trio.Process, deadline: float, timeout_s: float) -> bytes:
    assert process.stderr is not None, "asked for above"
    with trio.move_on_at(deadline):
        return bytes(await process.stderr.receive_some(4096))
    raise ImageError(f"mmdebstrap took longer than {timeout_s:g} s (images.build_timeout_s)")


class _LastLines:
    """Parts a program's output at line ends, bounds it, and remembers why it failed."""

    def __init__(self) -> None:
        self._rest = b""
        self._count = 0
        self.reason = ""

    def take(self, chunk: bytes) -> Sequence[str]:
        """Return the lines worth telling that end in this chunk."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        self._rest = rest[:LINE_BYTES_MAX]
        told = [_shown(line) for line in lines if _TOLD.match(line)]
        for line in told:
            if line.startswith("E: ") and not self.reason:
                self.reason = line.removeprefix("E: ")
        room = max(0, LINES_MAX - self._count)
        self._count += len(told)
        return told[:room]


def _shown(line: bytes) -> str:
    text = line[:LINE_BYTES_MAX].decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _command(program: str, order: BuildOrder, target: Path, settings: BuildSettings) -> list[str]:
    command = [program, f"--variant={order.variant}", "--format=tar"]
    if os.geteuid() == 0:
        # Its own user for downloads could not reach the closed folder.
        command.append('--aptopt=APT::Sandbox::User "root"')
    if order.include:
        command.append(f"--include={','.join(order.include)}")
    command += [order.suite, str(target), *_sources(order.suite, settings.mirror)]
    prlimit = shutil.which("prlimit")
    return [prlimit, f"--fsize={settings.bytes_max}", *command] if prlimit else command


def _sources(suite: str, mirror: str) -> list[str]:
    """Return where packages come from: the operator's mirror, or the host's own sources if they have the suite."""
    if mirror:
        return [mirror]
    word = re.compile(rf"(?m)^(?!#).*\b{re.escape(suite)}\b")
    for path in HOST_SOURCES:
        with suppress(OSError, UnicodeDecodeError):
            if word.search(path.read_text()):
                return [str(path)]
    return []


def _environment(scratch: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TMPDIR": str(scratch), **kept}
