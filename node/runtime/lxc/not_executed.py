"""Why a command could not be executed, told from the image: LXC's init says nothing but 255.

Only reads, and follows links within the image alone. The layout of programs is ELF's ("Program Header", PT_INTERP).
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import replace
from pathlib import Path

from node.host.image_stack import locate
from node.runtime.lxc.config import DEFAULT_PATH
from node.runtime.protocol import ContainerSpec, Exit

NOT_EXECUTED, NOT_EXECUTABLE, NOT_FOUND = 255, 126, 127
"""What LXC's init returns when it can't execute the command (or the command by itself), and what a shell says."""
HEAD_BYTES = 4_096
INTERPRETER_BYTES_MAX = 256
_ELF64, _PT_INTERP = b"\x7fELF\x02\x01", 3


def explained(spec: ContainerSpec | None, ending: Exit) -> Exit:
    """Return the ending as a shell would tell it, with the reason, where the image shows one; else unchanged."""
    if spec is None or spec.rootfs is None or ending.exit_code != NOT_EXECUTED:
        return ending
    command = spec.argv[0]
    path = dict(spec.env).get("PATH", DEFAULT_PATH)
    places = [command] if "/" in command else [f"{place}/{command}" for place in path.split(":")]
    roots = (spec.rootfs, *spec.bases)
    files = [file for place in places if (file := locate(roots, os.path.join(spec.workdir, place))) is not None]
    if not files:
        return replace(ending, exit_code=NOT_FOUND, error=f"the image has no command {command}")
    why = [_obstacle(roots, file) for file in files]
    if all(why):
        return replace(ending, exit_code=NOT_EXECUTABLE, error=f"{command} can't be executed: {why[0]}")
    return ending


def _obstacle(roots: tuple[Path, ...], file: Path) -> str:
    """Say why the kernel would not execute a file of the image; "" if it would try."""
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode):
        return "it is a directory" if stat.S_ISDIR(status.st_mode) else "it is no regular file"
    if not status.st_mode & 0o111:
        return "it has no permission to be executed"
    with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW), "rb") as opened:
        head = opened.read(HEAD_BYTES)
    interpreter = _script_interpreter(head) if head.startswith(b"#!") else _loader(head)
    if interpreter and locate(roots, interpreter) is None:
        return f"it needs {interpreter}, which the image does not have"
    return ""


def _script_interpreter(head: bytes) -> str:
    words = head[2:INTERPRETER_BYTES_MAX].split(b"\n")[0].split()
    return os.fsdecode(words[0]) if words else ""


def _loader(head: bytes) -> str:
    """Return the program that loads a dynamically linked one; "" if there is none in its first bytes."""
    if not head.startswith(_ELF64) or len(head) < 64:
        return ""
    table, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
    for start in range(table, min(table + size * count, len(head) - 55), size or HEAD_BYTES):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", head, start)
        if kind == _PT_INTERP and length <= INTERPRETER_BYTES_MAX:
            return os.fsdecode(head[offset : offset + length].rstrip(b"\0"))
    return ""
