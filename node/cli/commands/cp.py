"""`fofoca cp`."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click

from node.cli import find, task_names
from node.cli.failures import TASK_FAILED, Failure
from node.cli.session import Session

BLOCK_BYTES = 64 * 1024


@click.command(short_help="Copy files into a running task, or out of it.")
@click.argument("source")
@click.argument("target")
@find.node_api_option
def cp(source: str, target: str, node_api: str | None) -> None:
    """Copy a file or folder into a running task, or out of it; `-` is a tar stream on standard input or output.

    A copy goes into the target where that is a folder, else it takes the target's name. Owners are kept by number
    inside the task. Out of a task come no links that lead out of the copy.

    \b
    fofoca cp notes.txt 12001:/tmp/
    fofoca cp 12001.3:/var/log logs
    fofoca cp 12001:/data - | tar tv
    """
    there, here = _task(source), _task(target)
    if (there is None) == (here is None):
        raise Failure("one of SOURCE and TARGET should be in a task: ID:/PATH or ID.INDEX:/PATH")
    job, index, path = cast(tuple[int, int, str], there or here)
    order = {"copy": "get" if there else "put", "path": path, "task": index}
    if here and source != "-" and not os.path.lexists(source):
        raise Failure(f"{source} is not there")
    session = Session(find.agents(node_api), job, order)
    try:
        _get(session, target) if there else _put(session, source)
    finally:
        session.close()


def _task(text: str) -> tuple[int, int, str] | None:
    name, colon, path = text.partition(":")
    if not colon or not path.startswith("/"):
        return None
    return (*task_names.parse(name), path)


def _put(session: Session, source: str) -> None:
    if source == "-":
        session.feed(lambda size: os.read(sys.stdin.fileno(), size))
    else:
        reader, writer = os.pipe()
        threading.Thread(target=_pack, args=(source, writer), daemon=True).start()
        session.feed(lambda size: os.read(reader, size))
    _finish(session, lambda _data: None)


def _pack(source: str, writer: int) -> None:
    with os.fdopen(writer, "wb") as pipe, tarfile.open(fileobj=pipe, mode="w|", bufsize=BLOCK_BYTES) as tar:
        tar.add(source, arcname=os.path.basename(os.path.abspath(source)), filter=_anonymous)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Whoever packed it, inside it is root's."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _get(session: Session, target: str) -> None:
    session.end_input()
    if target == "-":
        _finish(session, sys.stdout.buffer.write)
        sys.stdout.buffer.flush()
        return
    reader, writer = os.pipe()
    unpacking = Unpacking(reader, Path(target))
    with os.fdopen(writer, "wb") as pipe:
        _finish(session, pipe.write)
    unpacking.join()
    if unpacking.failed is not None:
        raise Failure(f"{target}: {unpacking.failed}", TASK_FAILED)
    if unpacking.left_out:
        first, more = unpacking.left_out[0], len(unpacking.left_out) - 1
        others = f" and {more} more" if more else ""
        click.echo(f"fofoca: left out, for it would lead out of the copy: the link {first}{others}", err=True)


class Unpacking(threading.Thread):
    """The task's word is not trusted: nothing is written outside the target, and no device, owner or set-id bit."""

    def __init__(self, reader: int, target: Path) -> None:
        super().__init__(daemon=True)
        self._reader = reader
        self._target = target
        self.failed: Exception | None = None
        self.left_out: list[str] = []
        """Symbolic links to elsewhere: here they would mean something else, or nothing."""
        self.start()

    def run(self) -> None:
        with os.fdopen(self._reader, "rb") as pipe:
            try:
                self._unpack(pipe)
            except tarfile.ReadError as error:
                self.failed = None if "empty" in str(error) else error
            except (OSError, tarfile.TarError) as error:
                self.failed = error
            while pipe.read(BLOCK_BYTES):
                pass

    def _unpack(self, pipe: io.BufferedReader) -> None:
        folder, name = (self._target, "") if self._target.is_dir() else (self._target.parent, self._target.name)
        links: list[tarfile.TarInfo] = []
        with tarfile.open(fileobj=pipe, mode="r|", bufsize=BLOCK_BYTES) as tar:
            for entry in tar:
                if name:
                    _, slash, below = entry.name.partition("/")
                    entry.name = name + slash + below
                    if entry.islnk():
                        entry.linkname = name + "/" + entry.linkname.partition("/")[2]
                if entry.issym():
                    links.append(entry)
                elif hasattr(tarfile, "data_filter"):
                    tar.extract(entry, folder, filter="data")
                else:
                    _extract(tar, entry, folder)
        for step in (_link, _unlink_a_way_out):  # one may become a way out by another that comes later
            for link in links:
                try:
                    step(link, folder)
                except LeadsOut:
                    self.left_out.append(link.name)


class LeadsOut(tarfile.TarError):
    """A name that is not inside the target."""


def _extract(tar: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path) -> None:
    """The filter of Python 3.11.4, for those before."""
    if not (entry.isreg() or entry.isdir() or entry.islnk()):
        raise tarfile.TarError(f"{entry.name} is a device or a pipe")
    _inside(folder, entry.name, entry.name)
    if entry.islnk():
        _inside(folder, entry.linkname, entry.name)
    entry.mode = entry.mode & 0o755 | (0o700 if entry.isdir() else 0o600)
    entry.uid, entry.gid, entry.uname, entry.gname = os.geteuid(), os.getegid(), "", ""
    tar.extract(entry, folder)


def _link(entry: tarfile.TarInfo, folder: Path) -> None:
    """Symbolic links come last: nothing is written through them."""
    _inside(folder, entry.name, entry.name)
    _inside(folder, os.path.join(os.path.dirname(entry.name), entry.linkname), entry.name)
    path = folder / entry.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.is_file():
        path.unlink()
    path.symlink_to(entry.linkname)


def _unlink_a_way_out(entry: tarfile.TarInfo, folder: Path) -> None:
    path = folder / entry.name
    if path.is_symlink():
        try:
            _inside(folder, entry.name, entry.name)
        except LeadsOut:
            path.unlink()
            raise


def _inside(folder: Path, name: str, entry: str) -> None:
    if os.path.isabs(name) or not Path(os.path.realpath(folder / name)).is_relative_to(os.path.realpath(folder)):
        raise LeadsOut(f"{entry} leads out of the target")


def _finish(session: Session, take: Callable[[bytes], Any]) -> None:
    said = b""
    for out, err, code in session.output():
        take(out)
        said += err
        if code:
            text = said.decode(errors="replace").strip().splitlines()
            raise Failure(text[-1] if text else f"the copy ended with {code}", TASK_FAILED)
