"""Building by mmdebstrap: told step by step, bounded, stopped whole; a stand-in plays the program."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest
import trio

from node.errors import Busy
from node.host import image_build
from node.host.errors import ArchiveError, ImageError
from node.host.image_build import BuildOrder, BuildSettings
from node.host.images import Image, ImageStore

ORDER = BuildOrder("bookworm", ("curl", "g++"), "minbase")
Play = Callable[[str], None]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Make a shell script the mmdebstrap of this host; it finds its arguments' tar in $tar."""

    def write(script: str) -> None:
        program = tmp_path / "bin/mmdebstrap"
        program.parent.mkdir(exist_ok=True)
        find_tar = 'for each; do case "$each" in /*.tar) tar="$each";; esac; done\n'
        program.write_text(f"#!/bin/sh\n{find_tar}{script}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return write


async def built(
    tmp_path: Path, order: BuildOrder = ORDER, settings: BuildSettings | None = None
) -> tuple[ImageStore, list[str | Image]]:
    store = await ImageStore.open(tmp_path / "images")
    async with aclosing(store.build("deb:1", order, settings or BuildSettings())) as steps:
        return store, [step async for step in steps]


def leftovers(tmp_path: Path) -> list[str]:
    return sorted(os.listdir(tmp_path / "images/incoming"))


GOOD = """
echo "I: running with $*" >&2; echo "chatter" >&2; printf 'W: odd \\033[31m\\n' >&2
mkdir -p "$TMPDIR/root/etc" && echo 12 > "$TMPDIR/root/etc/debian_version" && tar -C "$TMPDIR/root" -cf "$tar" etc
"""


async def test_what_is_built_is_told_and_stored_like_anything_else(tmp_path: Path, play: Play) -> None:
    play(GOOD)
    store, steps = await built(tmp_path, settings=BuildSettings(mirror="copy:/srv/mirror"))
    image = steps.pop()
    assert isinstance(image, Image)
    assert (image.name, image.tag) == ("deb", "1")
    assert (store.rootfs(image.digest) / "etc/debian_version").read_text() == "12\n"
    told = "\n".join(str(step) for step in steps)
    assert "--include=curl,g++ bookworm" in told
    assert "copy:/srv/mirror" in told
    assert "chatter" not in told
    assert "\x1b" not in told
    assert leftovers(tmp_path) == []


async def test_a_failure_is_told_in_the_programs_own_words(tmp_path: Path, play: Play) -> None:
    play('echo "I: trying" >&2; echo "E: no such suite: bookwurm" >&2; echo "E: gave up" >&2; exit 25')
    with pytest.raises(ImageError, match="mmdebstrap failed: no such suite: bookwurm"):
        await built(tmp_path)
    assert leftovers(tmp_path) == []


async def test_what_the_program_leaves_is_checked_like_any_archive(tmp_path: Path, play: Play) -> None:
    play('echo "this is no tar, whatever the exit code says" > "$tar"')
    with pytest.raises(ArchiveError):
        await built(tmp_path)
    assert leftovers(tmp_path) == []


async def test_a_host_without_the_program_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="install the package mmdebstrap"):
        await built(tmp_path)


async def test_a_build_that_takes_too_long_is_stopped_with_all_it_started(tmp_path: Path, play: Play) -> None:
    play(f"(sleep 300 & echo $! > {tmp_path}/child; wait) & sleep 300")
    with pytest.raises(ImageError, match="longer than 2 s"):
        await built(tmp_path, settings=BuildSettings(timeout_s=2))
    child = int((tmp_path / "child").read_text())
    await trio.sleep(0.05)
    assert not _runs(child)
    assert leftovers(tmp_path) == []


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


async def test_a_client_that_goes_away_ends_the_build(tmp_path: Path, play: Play) -> None:
    play('echo "I: first" >&2; sleep 300')
    store = await ImageStore.open(tmp_path / "images")
    with trio.move_on_after(10) as patience:
        async with aclosing(store.build("deb:1", ORDER, BuildSettings())) as steps:
            assert await anext(steps) == "I: first"
            with trio.move_on_after(0.05):
                await anext(steps)
    assert not patience.cancelled_caught
    assert leftovers(tmp_path) == []
    assert store.images() == []


async def test_one_build_at_a_time(tmp_path: Path, play: Play) -> None:
    play('echo "I: first" >&2; sleep 300')
    store = await ImageStore.open(tmp_path / "images")
    async with aclosing(store.build("deb:1", ORDER, BuildSettings())) as steps:
        await anext(steps)
        with pytest.raises(Busy, match="builds an image already"):
            await anext(store.build("deb:2", ORDER, BuildSettings()))
    assert leftovers(tmp_path) == []


async def test_endless_output_is_bounded_in_length_and_number(
    tmp_path: Path, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_build, "LINES_MAX", 20)
    play("i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo \"I: $i $(head -c 2000 /dev/zero | tr '\\0' x)\" >&2; done")
    started_s = time.monotonic()
    store = await ImageStore.open(tmp_path / "images")
    lines: list[str] = []

    async def listen() -> None:
        async for step in store.build("deb:1", ORDER, BuildSettings()):
            lines.append(str(step))

    with pytest.raises(ImageError):
        await listen()
    assert len(lines) <= 21
    assert max(map(len, lines)) <= image_build.LINE_BYTES_MAX
    assert time.monotonic() - started_s < 30
